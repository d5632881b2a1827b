"""How many digits a support vector machine names from the same records: what a model of theirs is measured by.

    python demo/digits_svm.py --root=digits/ten/dataset

It sees the middle frame, gray, and hears the rows around the voice; each becomes 16 x 16 numbers.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import picture
from PIL import Image
from run import latest_manifest

from mbt.schemas.example import SequenceExample
from mbt.schemas.manifest import Manifest

SIDE = 16
ROWS = 64  # of 10 ms: what most voices last


def seen(record: SequenceExample) -> np.ndarray:
    """The middle frame, (256,) from 0 to 1, the digit bright."""
    gray = Image.fromarray(picture.middle_frame(record)).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(gray, np.float64).ravel()
    return (values - values.min()) / np.ptp(values)


def heard(record: SequenceExample) -> np.ndarray:
    """The rows around the middle of the sound's energy, (256,) of mean 0 and variance 1."""
    rows = picture.spectrogram(record)
    energy = np.exp(rows).sum(axis=1)
    middle = round(np.average(np.arange(len(rows)), weights=energy))
    first = int(np.clip(middle - ROWS // 2, 0, len(rows) - ROWS))
    part = rows[first : first + ROWS]
    values = part.reshape(SIDE, ROWS // SIDE, SIDE, part.shape[1] // SIDE).mean(axis=(1, 3)).ravel()
    return (values - values.mean()) / values.std()


def features(
    root: pathlib.Path, manifest: Manifest, split: str, feature: Callable[[SequenceExample], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What is seen or heard in each clip of a split, (n, 256), and its class, (n,)."""
    found = [
        (feature(record), record.context.feature["clip/label/index"].int64_list.value[0])
        for record in picture.records(root, manifest, split)
    ]
    values, labels = zip(*found, strict=True)
    return np.stack(values), np.array(labels)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, required=True, help="of a dataset of demo/make_digits.py's films")
    args = parser.parse_args()
    try:
        from sklearn.svm import SVC
    except ImportError:
        sys.exit("the machine is scikit-learn's: pip install scikit-learn")
    if not (args.root / "snapshots").is_dir():
        sys.exit(f"--root={args.root}: no dataset there; mbt-data build makes one of the films")
    manifest = latest_manifest(args.root)
    if missing := {"train", "test"} - set(manifest.splits):
        sys.exit(f"--root={args.root}: the dataset has no split {min(missing)}")
    for sense, feature in (("sight", seen), ("sound", heard)):
        train, test = (features(args.root, manifest, split, feature) for split in ("train", "test"))
        print(f"{sense} {SVC(C=10).fit(*train).score(*test):.3f}")


if __name__ == "__main__":
    main()
