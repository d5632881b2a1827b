"""Films of written and spoken digits: what they are made of, and that a small model learns them from nothing."""

import collections
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import wave

import numpy as np
import pytest

DEMO = pathlib.Path(__file__).parents[1] / "demo"


def wav(samples: int = 100, rate_hz: int = 8_000) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(b"\1\2" * samples)
    return data.getvalue()


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    import make_digits

    return make_digits


@pytest.fixture
def recordings(shared) -> pathlib.Path:
    return shared / "digits" / "recordings"


def test_each_class_is_there_as_often_and_one_sense_tells_one_in_four(digits):
    films = list(digits.films("sixteen", "train", 320))
    assert set(collections.Counter(film.label for film in films).values()) == {20}
    for sense in ("seen", "heard"):
        labels = collections.defaultdict(set)
        for film in films:
            labels[getattr(film, sense)].add(film.label)
        assert [len(others) for others in labels.values()] == [4] * 4
    ten = list(digits.films("ten", "test", 100))
    assert all(film.seen == film.heard == film.label for film in ten)
    assert set(collections.Counter(film.label for film in ten).values()) == {10}


def test_nothing_of_a_test_film_is_in_one_to_train_on(digits, recordings):
    material = digits.read_material(recordings)
    for found in (material.pictures, material.recordings):
        parts = {split: set() for split in ("train", "test")}
        for (split, _), values in found.items():
            parts[split] |= {np.asarray(value).tobytes() for value in values}
        assert parts["train"] and parts["test"] and not parts["train"] & parts["test"]
    numbers = [len(material.recordings["test", digit]) for digit in digits.DIGITS]
    assert numbers == [20] * 10  # four speakers, five each


def test_a_film_that_is_missing_is_written_again_as_it_was(digits, recordings, tmp_path):
    material, counts = digits.read_material(recordings), {"train": 3, "test": 2}
    assert digits.write_set(tmp_path, "ten", counts, material) == 5
    (film,) = tmp_path.glob("train/*00001.mp4")
    before, rows = film.read_bytes(), (tmp_path / "clips.csv").read_text()
    film.unlink()
    assert digits.write_set(tmp_path, "ten", counts, material) == 1
    assert film.read_bytes() == before and (tmp_path / "clips.csv").read_text() == rows
    other = dataclasses.replace(material, pictures={key: 16 - found for key, found in material.pictures.items()})
    assert digits.write_set(tmp_path, "ten", counts, other) == 5
    assert film.read_bytes() != before
    names = sorted(path.name for path in tmp_path.rglob("*.*") if path.suffix != ".mp4")
    assert names == ["clips.csv", "recipe.json"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no 0_SPEAKER_NUMBER.wav of the train split"),
        (
            {"0_bob_3_copy.wav": b"", "0_bob_x.wav": b"", "notes.txt": b"x"},
            "no 0_SPEAKER_NUMBER.wav of the train split",
        ),
        ({"0_bob_3.wav": b""}, "0_bob_3.wav: ends too early"),
        ({"0_bob_3.wav": wav()[:169]}, "0_bob_3.wav: ends too early"),
        ({"0_bob_3.wav": wav()[:170]}, "0_bob_3.wav: ends too early"),
        ({"0_bob_3.wav": b"no RIFF at all" * 9}, "0_bob_3.wav: file does not start with RIFF id"),
        ({"0_bob_3.wav": wav(rate_hz=16_000)}, "must be sound of 16 bits, mono, 8000 Hz"),
        ({"0_bob_3.wav": wav(samples=0)}, "must be sound of 16 bits, mono, 8000 Hz"),
    ],
)
def test_recordings_that_cannot_serve_end_in_one_line(digits, tmp_path, files, said):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SystemExit, match=said) as end:
        digits.read_material(tmp_path)
    assert "\n" not in end.value.code


def test_a_folder_that_is_not_there_ends_in_one_line(digits, tmp_path):
    with pytest.raises(SystemExit, match="no such folder"):
        digits.read_material(tmp_path / "absent")


def test_a_support_vector_machine_names_most_digits_of_the_records(digits, recordings, mbt_data, tmp_path):
    digits.write_set(tmp_path, "ten", {"train": 200, "test": 40}, digits.read_material(recordings))
    built = mbt_data("build", f"--annotations={tmp_path / 'clips.csv'}", f"--output={tmp_path / 'dataset'}")
    assert built.returncode == 0, built.stderr
    named = svm(tmp_path / "dataset")
    assert named.returncode == 0, named.stderr
    scores = dict(line.split() for line in named.stdout.splitlines())
    assert sorted(scores) == ["sight", "sound"] and min(map(float, scores.values())) > 0.6
    nowhere = svm(tmp_path)
    assert nowhere.returncode == 1 and "no dataset there" in nowhere.stderr


def svm(root: pathlib.Path) -> subprocess.CompletedProcess:
    words = [sys.executable, str(DEMO / "digits_svm.py"), f"--root={root}"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_senses_are_learned_from_nothing_on_real_pictures_and_voices(digits, recordings, mbt_data, tmp_path):
    """From a quarter of the films in half of the steps; docs/digits.md has the whole, which takes an hour."""
    digits.write_set(tmp_path, "sixteen", {"train": 960, "test": 160}, digits.read_material(recordings))
    root = tmp_path / "dataset"
    built = mbt_data("build", f"--annotations={tmp_path / 'clips.csv'}", f"--output={root}", "--num_shards=4")
    assert built.returncode == 0, built.stderr
    words = [str(pathlib.Path(sys.executable).with_name("mbt-train")), "train", "--config=digits"]
    words += [f"--workdir={tmp_path / 'run'}", f"--config.data.root={root}", "--config.train.steps=500"]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    trained = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert trained.returncode == 0, trained.stderr
    top1 = json.loads((tmp_path / "run" / "result.json").read_text())["top1"]
    assert top1 > 0.6, top1  # one sense alone can reach 0.25
