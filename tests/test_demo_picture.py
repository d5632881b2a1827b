import json
import pathlib

import pytest
from PIL import Image

from mbt.schemas.manifest import Manifest

DEMO = pathlib.Path(__file__).parents[1] / "demo"


@pytest.fixture
def picture(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    import picture

    return picture


@pytest.fixture(scope="module")
def root(clip_folder, mbt_data, write_csv, tmp_path_factory) -> pathlib.Path:
    """A dataset of six clips: five labels in `test`, one in `other`."""
    folder = tmp_path_factory.mktemp("picture")
    rows = [
        {"video_path": f"{i}.mp4", "start": 0, "end": 0.8, "label": "abcdea"[i], "split": "test" if i < 5 else "other"}
        for i in range(6)
    ]
    annotations = write_csv(folder / "clips.csv", rows)
    built = mbt_data(
        "build", f"--annotations={annotations}", f"--media_root={clip_folder}", f"--output={folder / 'ds'}"
    )
    assert built.returncode == 0, built.stderr
    return folder / "ds"


@pytest.fixture
def manifest(root) -> Manifest:
    (path,) = root.glob("snapshots/*/manifest.json")
    return Manifest.from_json(path.read_text())


def test_examples_are_spread_over_the_labels(picture, root, manifest):
    clips = picture.examples(root, manifest, "test")
    assert list(clips) == ["a", "b", "d", "e"]
    # 3.mp4 is 112 x 48; 0.8 s are 80 rows, and a step is 100.
    assert picture.middle_frame(clips["d"]).shape == (48, 112, 3)
    assert picture.spectrogram(clips["d"]).shape == (80, 128)


@pytest.mark.parametrize(("split", "score"), [("test", "top1"), ("other", "map")])
def test_picture_is_written_and_small(picture, root, manifest, split, score, tmp_path):
    lines = [{"step": step, "kind": "train", "loss": 1 / step} for step in (1, 10, 20)]
    lines += [{"step": step, "kind": "eval", score: step / 20} for step in (10, 20)]
    workdirs = {name: tmp_path / name for name in picture.COLOURS}
    for workdir in workdirs.values():
        workdir.mkdir()
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture.draw(tmp_path / "demo.png", root, manifest, workdirs, split)
    with Image.open(tmp_path / "demo.png") as image:
        assert image.width == 1000
    assert (tmp_path / "demo.png").stat().st_size < 200_000
