"""The plan of a film to a file, by the embedded ffmpeg."""

import functools
import io
import os
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from films import marks
from films.plan import Film

_OPTIONS = {
    "libx264": ("-preset", "veryfast", "-sc_threshold", "0", "-pix_fmt", "yuv420p"),
    "libx265": ("-preset", "ultrafast", "-x265-params", "log-level=error:scenecut=0", "-pix_fmt", "yuv420p"),
    "libvpx": ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "200k"),
    "libvpx-vp9": ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "200k"),
    "mpeg4": ("-q:v", "4", "-sc_threshold", "1000000000"),
    "mpeg2video": ("-q:v", "4", "-sc_threshold", "1000000000", "-bf", "2"),
    "h263": ("-q:v", "4", "-sc_threshold", "1000000000"),
    "mjpeg": ("-q:v", "4", "-pix_fmt", "yuvj420p"),
}
_MUXERS = {"mpg": ("-f", "vob"), "mkv": ("-f", "matroska"), "ts": ("-f", "mpegts")}
_OTHER_NUMBERS = 1000  # pictures and tones of the track that is not the default one
_OTHER_TONES = 128
_MOST_OF_A_GROUP = 600  # what an MPEG-2 encoder takes for one


def make(film: Film, folder: Path, program: str) -> Path:
    """Writes a film's file.

    Raises:
      subprocess.CalledProcessError: ffmpeg does not put these things together.
    """
    first = folder / f"made{film.seed}.{film.container}"
    _run(program, [*_inputs(film, folder), *_streams(film), *_outcome(film, first)])
    if not film.then:
        return first.rename(folder / film.name)
    path = folder / film.name
    if film.then == "join":
        _join(film, first, path, program)
    else:
        cut = ["-ss", str(film.cut_s[0])] if film.then == "cut" else []
        until = ["-t", str(film.cut_s[1] - film.cut_s[0])] if film.then == "cut" else []
        _run(
            program, [*cut, "-i", str(first), "-map", "0", "-c", "copy", *until, *_MUXERS.get(film.into, ()), str(path)]
        )
    first.unlink()
    return path


def _inputs(film: Film, folder: Path) -> list[str]:
    """A picture of 4 x 4 pixels for each number, and the tones; of the other tracks too."""
    words: list[str] = []
    for number, tone in ((1, 0), (_OTHER_NUMBERS, _OTHER_TONES))[: 1 + film.more_tracks]:
        pictures, tones = folder / f"pictures{number}.gray", folder / f"tones{tone}-{film.sample_rate}.wav"
        _write(pictures, functools.partial(_numbered, number))
        _write(tones, lambda tone=tone: _wave(marks.sound(16, film.sample_rate, tone), film.sample_rate))
        words += ["-itsoffset", str(film.video_late_s), "-f", "rawvideo", "-pix_fmt", "gray", "-s", "4x4"]
        words += ["-framerate", film.rate, "-t", str(film.seconds), "-i", str(pictures)]
        words += ["-itsoffset", str(film.audio_late_s), "-t", str(film.seconds), "-i", str(tones)]
    return words


def _streams(film: Film) -> list[str]:
    """The tracks, the default ones last."""
    words = []
    if film.more_tracks:
        words = ["-map", "2:v", "-map", "3:a"]
    words += ["-map", "0:v", "-map", "1:a"]
    if film.more_tracks:
        words += ["-disposition:v:0", "0", "-disposition:a:0", "0"]
        words += ["-disposition:v:1", "default", "-disposition:a:1", "default"]
    return words


def _outcome(film: Film, path: Path) -> list[str]:
    width, height = film.size
    chosen = []
    if film.hole:
        first, last = (at + film.video_late_s for at in film.hole)
        chosen.append(f"not(between(t,{first},{last}))")
    if film.keep:
        chosen.append(f"mod(n*n+floor(n/7),{film.keep})")
    select = [f"select='{'*'.join(chosen)}'"] if chosen else []
    filters = ",".join([*select, f"scale={width}:{height}:flags=neighbor"])
    words = ["-vf", filters, "-c:v", film.video, *_OPTIONS.get(film.video, ())]
    words += ["-g", str(min(film.key_frames, _MOST_OF_A_GROUP) if film.video == "mpeg2video" else film.key_frames)]
    if chosen:
        words += ["-fps_mode", "vfr"]
    words += ["-c:a", film.audio, "-ac", str(film.channels), "-ar", str(film.sample_rate), "-strict", "-2"]
    if film.more_tracks:  # two that are mono might be microphones, where a container prefers none
        words += ["-ac:a:0", str(3 - film.channels)]
    return [*words, *_MUXERS.get(film.container, ()), str(path)]


def _join(film: Film, first: Path, path: Path, program: str) -> None:
    """A film after itself: those that are streams of packets as `cat` does it, the others as ffmpeg does."""
    if film.container in ("ts", "mpg"):
        path.write_bytes(first.read_bytes() * 2)
        return
    listed = first.with_suffix(".txt")
    listed.write_text(f"file '{first}'\n" * 2)
    _run(program, ["-f", "concat", "-safe", "0", "-i", str(listed), "-map", "0", "-c", "copy", str(path)])
    listed.unlink()


def _numbered(first: int) -> bytes:
    return b"".join(marks.cells(number).tobytes() for number in range(first, first + 16 * 61))


def _wave(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def _write(path: Path, content: Callable[[], bytes]) -> None:
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content())
        partial.rename(path)


def _run(program: str, words: list[str]) -> None:
    command = [program, "-v", "error", "-nostdin", "-y", "-threads", "1", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
