import csv
import itertools
import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

DEMO = pathlib.Path(__file__).parents[1] / "demo"


@pytest.fixture
def make_clips(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    import make_clips

    return make_clips


@pytest.fixture
def small(make_clips, monkeypatch):
    """Two sights and two sounds: the same code on a quarter of the classes."""
    for table in ("SIGHTS", "SOUNDS"):
        monkeypatch.setattr(make_clips, table, dict(itertools.islice(getattr(make_clips, table).items(), 2)))
    return make_clips


def decoded(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames and samples of a film."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    frames = subprocess.run([*ffmpeg, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    sound = subprocess.run([*ffmpeg, "-f", "s16le", "-"], capture_output=True, check=True)
    return np.frombuffer(frames.stdout, np.uint8).reshape(-1, 120, 160, 3), np.frombuffer(sound.stdout, np.int16)


def test_set_is_written_once_and_listed(small, tmp_path):
    assert small.write_set(tmp_path, train_per_class=2, test_per_class=1, seed=0) == 12
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*.mp4")}
    assert len(before) == 12
    rows = list(csv.DictReader((tmp_path / "clips.csv").read_text().splitlines()))
    assert [row["split"] for row in rows] == ["train"] * 8 + ["test"] * 4
    assert len({row["id"] for row in rows}) == 12
    assert all((tmp_path / row["video_path"]).is_file() for row in rows)

    assert small.write_set(tmp_path, train_per_class=2, test_per_class=1, seed=0) == 0
    victim = next(iter(before))
    victim.unlink()
    assert small.write_set(tmp_path, train_per_class=2, test_per_class=1, seed=0) == 1
    assert victim.read_bytes() == before[victim][0]
    assert all(path.stat().st_mtime_ns == mtime for path, (_, mtime) in before.items() if path != victim)
    assert small.write_set(tmp_path, train_per_class=2, test_per_class=1, seed=1) == 12
    assert victim.read_bytes() != before[victim][0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


def test_films_show_and_sound_as_long_as_listed(make_clips, tmp_path):
    (tmp_path / "train").mkdir()
    film = make_clips.Film("train", "red-circle", "hum", 0, seed=0)
    make_clips.film_files.write_film(make_clips.tracks(film), tmp_path / film.path)
    frames, sound = decoded(tmp_path / film.path)
    assert len(frames) == round(make_clips.SECONDS * make_clips.FRAME_RATE_HZ)
    # AAC comes in blocks of 1024 samples.
    assert len(sound) == pytest.approx(make_clips.SECONDS * make_clips.SOUND_RATE_HZ, abs=2048)
    red, green, blue = (frames[..., channel].astype(int) for channel in range(3))
    assert np.all(((red - np.maximum(green, blue)) > 60).sum(axis=(1, 2)) > 500)
    assert np.abs(sound.astype(int)).max() > 2000


def test_neither_sense_alone_names_a_class(make_clips):
    labels = {film.label for film in make_clips.films(1, 1, seed=0)}
    assert len(labels) == len(make_clips.SIGHTS) * len(make_clips.SOUNDS) == 16
    films = [make_clips.Film("train", "red-circle", sound, 0, seed=0) for sound in make_clips.SOUNDS]
    pictures = [make_clips.draw_frames(film) for film in films]
    # The sounds of one sight go with pictures that differ only by chance, not by a mark of the sound.
    assert len({picture.tobytes() for picture in pictures}) == len(films)


def test_drawings_stay_inside(make_clips):
    for film in itertools.islice(make_clips.films(3, 0, seed=0), 0, None, 8):
        frames = make_clips.draw_frames(film)
        assert frames.shape == (60, make_clips.HEIGHT, make_clips.WIDTH, 3)
        assert frames.dtype == np.uint8
        assert make_clips.make_sound(film).dtype == np.int16
