"""The demo: clips, records, three trained models, and what hearing and seeing together is worth.

It runs the commands that you would run, and prints each one first. Run again, it repeats nothing that is unchanged.

    make demo                              # on films that it makes itself
    make demo CSV=my.csv                   # on yours
    python demo/run.py --all_strategies    # two more models, which fuse by cross-attention and by self-attention
    python demo/run.py --regularised       # all of them with the paper's regularisation, for 400 steps
"""

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import zlib

import make_clips
import picture

from mbt.schemas.manifest import MANIFEST_FILE, Manifest

OUT = pathlib.Path("demo-out")
MODELS = {
    "audio only": ["--config.modalities=spectrogram"],
    "visual only": ["--config.modalities=rgb"],
    "fused": [],
}
STRATEGIES = {
    "cross-attn": ["--config.model.fusion=cross_attention"],
    "self-attn": ["--config.model.fusion=self_attention"],
}
# Section 4.2; masks that are as large a share of the demo's 2 s as the paper's are of 8 s.
REGULARISED = [
    *("--config.mixup.alpha=0.3", "--config.mixup.by_modality=true", "--config.model.stochastic_depth=0.3"),
    *("--config.data.spec_augment.time_masks=1", "--config.data.spec_augment.time_rows=48"),
    *("--config.data.spec_augment.frequency_masks=1", "--config.data.color_jitter=0.8"),
    "--config.train.steps=400",
]
# One sense names one clip in four; fused must be far above that to have used both.
CLEAR_MARGIN = 0.25


@dataclasses.dataclass(frozen=True)
class Clips:
    """What to build from: the annotations, the folder that their paths start from, and where results go."""

    annotations: pathlib.Path
    media_root: pathlib.Path
    out: pathlib.Path
    eval_split: str = "test"
    multi_label: bool = False
    is_demo: bool = False

    @property
    def root(self) -> pathlib.Path:
        """Of the dataset."""
        return self.out / "dataset"


def main() -> None:
    """The whole demo, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--annotations", type=pathlib.Path, help="CSV of your own clips; default: films of the demo's own"
    )
    parser.add_argument("--media_root", type=pathlib.Path, help="folder of your clips; default: the CSV's")
    parser.add_argument("--all_strategies", action="store_true", help="fuse by cross- and self-attention, too")
    parser.add_argument("--regularised", action="store_true", help="with mixup, stochastic depth and SpecAugment")
    args = parser.parse_args()
    models = MODELS | (STRATEGIES if args.all_strategies else {})
    started = time.monotonic()
    clips = own_clips(args.annotations, args.media_root) if args.annotations else demo_clips()
    build(clips)
    manifest = latest_manifest(clips.root)
    workdirs = {name: train(clips, manifest, name, models[name], args.regularised) for name in models}
    results = {name: json.loads((workdir / "result.json").read_text()) for name, workdir in workdirs.items()}
    print_table(manifest, results)
    image = clips.out / "demo.png"
    picture.draw(image, clips.root, manifest, {name: workdirs[name] for name in MODELS}, clips.eval_split)
    print_places(clips, image, workdirs, time.monotonic() - started)
    if clips.is_demo:
        check_fusion_helps(results)


def demo_clips() -> Clips:
    """Writes the demo's own films, unless they are there."""
    out = OUT / "shapes-and-sounds"
    folder = out / "clips"
    heading("Films: what is seen and what is heard make a class together")
    written = make_clips.write_set(folder, train_per_class=20, test_per_class=8, seed=0)
    print(f"{written} written to {folder}" if written else f"unchanged in {folder}")
    return Clips(folder / "clips.csv", folder, out, is_demo=True)


def own_clips(annotations: pathlib.Path, media_root: pathlib.Path | None) -> Clips:
    """Prepares a user's CSV: finds the split to evaluate on, or holds one out."""
    try:
        with annotations.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        sys.exit(f"{annotations}: cannot be read as CSV: {error}")
    if not rows or not {"video_path", "label"} <= rows[0].keys():
        sys.exit(f"{annotations}: wants a header with video_path,start,end,label and at least one row")
    heading(f"Clips of {annotations}: {len(rows)} rows")
    out = OUT / annotations.stem
    media_root = media_root or annotations.parent
    multi_label = any(";" in (row["label"] or "") for row in rows)
    if "split" in rows[0]:
        return Clips(annotations, media_root, out, choose_eval_split(annotations, rows), multi_label)
    return Clips(hold_out(rows, out / "clips.csv"), media_root, out, multi_label=multi_label)


def choose_eval_split(annotations: pathlib.Path, rows: list[dict[str, str]]) -> str:
    """The split of a user's CSV to evaluate on."""
    splits = {row["split"] or "train" for row in rows}
    others = sorted(splits - {"train"})
    if "train" not in splits or not others:
        sys.exit(
            f"{annotations}: the column `split` must name `train` and one more, e.g. `test`; it has {sorted(splits)}"
        )
    return "test" if "test" in others else others[0]


def hold_out(rows: list[dict[str, str]], copy: pathlib.Path) -> pathlib.Path:
    """Writes the CSV anew with a split: one video in five, by a hash of its path, is held out for the test.

    By video, not by clip, so that no film is in both.
    """
    for row in rows:
        row["split"] = "test" if zlib.crc32(row["video_path"].encode()) % 5 == 0 else "train"
    held_out = sum(row["split"] == "test" for row in rows)
    if held_out in (0, len(rows)):
        sys.exit("too few videos to hold some out for the test: add a column `split` with `train` and `test`")
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"no column `split`: {held_out} clips held out for the test, one video in five by a hash of its path;")
    print(f"the list with its splits is {copy}")
    return copy


def build(clips: Clips) -> None:
    """Makes the records."""
    heading("Records: frames at 25 a second and a log-mel spectrogram of each clip, in TFRecord shards")
    flags = [f"--annotations={clips.annotations}", f"--media_root={clips.media_root}", f"--output={clips.root}"]
    run("mbt-data", "build", *flags)


def latest_manifest(root: pathlib.Path) -> Manifest:
    """The snapshot that was published last."""
    manifests = (Manifest.from_json(path.read_text()) for path in root.glob(f"snapshots/*/{MANIFEST_FILE}"))
    return max(manifests, key=lambda manifest: manifest.created)


def train(clips: Clips, manifest: Manifest, name: str, changes: list[str], regularised: bool) -> pathlib.Path:
    """Trains and evaluates one model.

    Returns:
      its work folder. The snapshot is in its name: changed records are trained on anew.
    """
    heading(f"Model: {name}")
    folder = clips.out / ("runs-regularised" if regularised else "runs")
    workdir = folder / manifest.snapshot / name.replace(" ", "-")
    flags = [*train_flags(clips), "--config.train.eval_every=20", *changes, *(REGULARISED if regularised else [])]
    run("mbt-train", "train", *flags, f"--workdir={workdir}")
    return workdir


def train_flags(clips: Clips) -> list[str]:
    """What the training of any model on these clips needs to be told."""
    flags = ["--config=demo", f"--config.data.root={clips.root}"]
    if clips.eval_split != "test":
        flags.append(f"--config.data.eval_split={clips.eval_split}")
    if clips.multi_label:
        flags.append("--config.loss.name=bce")
    return flags


def run(program: str, *arguments: str) -> None:
    """Prints a command of ours and runs it; ends the demo where it fails."""
    command = [command_path(program), *arguments]
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(f"\nthat command failed with status {status}; the same `make demo` tries again from here")


def command_path(program: str) -> str:
    """A command of ours, as it can be typed here."""
    return os.path.relpath(pathlib.Path(sys.executable).with_name(program))


def heading(text: str) -> None:
    """Says what comes next."""
    print(f"\n== {text}", flush=True)


def print_table(manifest: Manifest, results: dict[str, dict]) -> None:
    """The three models side by side."""
    heading("Results on held-out clips")
    print(f"{'':12} {'top-1':>7} {'mAP':>7} {'parameters':>11} {'training':>9}")
    for name, result in results.items():
        # Where a clip may have several labels there is no top-1.
        scores = f"{result['top1']:7.1%}" if "top1" in result else f"{'-':>7}"
        mean_precision = result.get("map")
        scores += f" {'-':>7}" if mean_precision is None else f" {mean_precision:7.3f}"
        print(f"{name:12} {scores} {result['parameters']:11,} {result['seconds']:7.0f} s")
    print()
    for name, split in manifest.splits.items():
        size_mb = sum(shard.bytes for shard in split.shards) / 1e6
        print(f"{name}: {split.num_clips} clips, {split.num_records} records, {size_mb:.1f} MB")


def print_places(clips: Clips, image: pathlib.Path, workdirs: dict[str, pathlib.Path], seconds: float) -> None:
    """Where everything lies, and what to do next."""
    heading(f"Done in {seconds:.0f} s")
    print(f"picture   {image}")
    print(f"records   {clips.root}")
    for name, workdir in workdirs.items():
        print(f"{name.removesuffix(' only'):9} {workdir}")
    if clips.is_demo:
        print("\nNext, clips of your own: a CSV with the header video_path,start,end,label, times in seconds")
        print("  make demo CSV=my.csv")
    else:
        print("\nThose were small models, trained for a minute. Next, train for longer:")
        longer = ["--config.train.steps=5000", f"--workdir={clips.out / 'runs' / 'longer'}"]
        print(f"  {shlex.join([command_path('mbt-train'), 'train', *train_flags(clips), *longer])}")


def check_fusion_helps(results: dict[str, dict]) -> None:
    """Ends with an error where a fused model is not clearly better than one sense alone: something is broken then."""
    top1 = {name: result["top1"] for name, result in results.items()}
    one_sense = max(top1.pop("audio only"), top1.pop("visual only"))
    for name, value in top1.items():
        if value < one_sense + CLEAR_MARGIN:
            sys.exit(f"the {name} model must beat one sense alone by {CLEAR_MARGIN:.0%} on these films: a bug")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
