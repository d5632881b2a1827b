"""Sets of short films: MP4 files of H.264 and AAC, and the CSV that `mbt-data build` reads."""

import concurrent.futures
import csv
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import imageio_ffmpeg
import numpy as np

RECIPE_FILE = "recipe.json"
ANNOTATIONS_FILE = "clips.csv"


class Film(Protocol):
    """What a set needs to know of one of its films."""

    @property
    def id(self) -> str:
        """Unique in the set."""

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""

    @property
    def split(self) -> str:
        """`train` or `test`."""

    @property
    def label(self) -> str:
        """The class."""


F = TypeVar("F", bound=Film)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracks:
    """What is seen and heard in a film.

    Attributes:
      frames: uint8 of shape (frames, height, width, 3).
      frame_rate_hz: of them.
      sound: int16, mono.
      sound_rate_hz: of it.
      sound_bits: what the encoded sound takes a second, in ffmpeg's words.
    """

    frames: np.ndarray
    frame_rate_hz: int
    sound: np.ndarray
    sound_rate_hz: int
    sound_bits: str


def write_film(tracks: Tracks, path: pathlib.Path) -> None:
    """Encodes one film. It appears under its name only when it is complete."""
    height, width = tracks.frames.shape[1:3]
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        sound, unfinished = os.path.join(scratch, "sound.wav"), os.path.join(scratch, "film.mp4")
        with wave.open(sound, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(tracks.sound_rate_hz)
            file.writeframes(tracks.sound.tobytes())
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(tracks.frame_rate_hz)]
        command += ["-i", "pipe:0", "-i", sound]
        command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-threads", "1"]
        # Without bitexact the file names its encoder's build, and another ffmpeg would give other bytes.
        command += ["-c:a", "aac", "-b:a", tracks.sound_bits, "-flags", "+bitexact", "-fflags", "+bitexact", unfinished]
        subprocess.run(command, input=tracks.frames.tobytes(), check=True)
        os.replace(unfinished, path)


def write_set(
    folder: pathlib.Path, films: Sequence[F], *, seconds: float, recipe: dict, tracks: Callable[[F], Tracks]
) -> int:
    """Writes the films of a set that are not there yet, and its CSV; returns how many were written.

    Args:
      folder: of the set.
      films: all of them.
      seconds: how long each is.
      recipe: what they are made by; films of another recipe are written anew.
      tracks: makes what is seen and heard in one.
    """
    for split in {film.split for film in films}:
        (folder / split).mkdir(parents=True, exist_ok=True)
    recipe_file, text = folder / RECIPE_FILE, json.dumps(recipe)
    if not recipe_file.exists() or recipe_file.read_text(encoding="utf-8") != text:
        for film in films:
            (folder / film.path).unlink(missing_ok=True)
        recipe_file.write_text(text, encoding="utf-8")
    missing = [film for film in films if not (folder / film.path).exists()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda film: write_film(tracks(film), folder / film.path), missing):
            pass
    (folder / ANNOTATIONS_FILE).write_text(_annotations(films, seconds), encoding="utf-8")
    return len(missing)


def _annotations(films: Sequence[Film], seconds: float) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["video_path", "start", "end", "label", "split", "id"])
    rows.writerows([film.path, 0, seconds, film.label, film.split, film.id] for film in films)
    return text.getvalue()
