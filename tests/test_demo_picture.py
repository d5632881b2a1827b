import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from mbt.schemas.fakes import FakeClip, write_snapshot

DEMO = pathlib.Path(__file__).parents[1] / "demo"
LABELS = ("a", "b", "c", "d", "e")


@pytest.fixture
def picture(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    import picture

    return picture


def fake_clip(label: int) -> FakeClip:
    jpeg = io.BytesIO()
    Image.new("RGB", (40, 30), (50 * label, 100, 100)).save(jpeg, "JPEG")
    mel = np.full((110, 128), label, np.float32)
    return FakeClip(id=f"clip-{label}", jpegs=[jpeg.getvalue()] * 27, size=(30, 40), mel=mel, labels=(label,))


@pytest.fixture
def manifest(tmp_path):
    return write_snapshot(tmp_path, {"test": [fake_clip(label) for label in range(5)]}, LABELS)


def test_examples_are_spread_over_the_labels(picture, manifest, tmp_path):
    clips = picture.examples(tmp_path, manifest, "test")
    assert list(clips) == ["a", "b", "d", "e"]
    assert picture.middle_frame(clips["d"]).shape == (30, 40, 3)
    mel = picture.spectrogram(clips["d"])
    assert mel.shape == (110, 128)
    assert np.all(mel == 3)


@pytest.mark.parametrize("count", [1, 5])
def test_picture_is_written_and_small(picture, tmp_path, count):
    clips = {"test": [fake_clip(label) for label in range(count)]}
    manifest = write_snapshot(tmp_path, clips, LABELS)
    lines = [{"step": step, "kind": "train", "loss": 1 / step} for step in (1, 10, 20)]
    lines += [{"step": step, "kind": "eval", "top1": step / 20} for step in (10, 20)]
    workdirs = {name: tmp_path / name for name in picture.COLOURS}
    for workdir in workdirs.values():
        workdir.mkdir()
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture.draw(tmp_path / "demo.png", tmp_path, manifest, workdirs, "test")
    with Image.open(tmp_path / "demo.png") as image:
        assert image.width == 1000
    assert (tmp_path / "demo.png").stat().st_size < 200_000
