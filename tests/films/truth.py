"""What is seen and heard in a file, by ffmpeg's reading of all of it from its beginning.

Both streams are read in one run: ffmpeg counts time from the first packet of the streams that it reads, so that apart
each would start at its own zero. ffmpeg chooses the tracks.
"""

import dataclasses
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from films import marks

SAMPLE_RATE_HZ = 16_000
GRID_S = 0.02
_SIDE = 16


class NoTruthError(ValueError):
    """There are no pictures, or no sound, in the whole file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """A file.

    Attributes:
      times: (pictures,) seconds, ascending.
      numbers: (pictures,) what each says.
      frame_s: how long the last one is seen.
      tones: (moments,) what is heard at each multiple of `GRID_S`.
      sound_s: from when to when there is sound.
      complaints: of the decoder.
    """

    times: np.ndarray
    numbers: np.ndarray
    frame_s: float
    tones: np.ndarray
    sound_s: tuple[float, float]
    complaints: str

    @property
    def pictures_s(self) -> tuple[float, float]:
        """From when to when there are pictures."""
        return float(self.times[0]), float(self.times[-1]) + self.frame_s

    @property
    def end_s(self) -> float:
        """Of the later stream."""
        return max(self.pictures_s[1], self.sound_s[1])

    def on_screen(self, first_s: float, last_s: float) -> set[int]:
        """The numbers of the pictures that are on screen at some moment between these."""
        first = np.searchsorted(self.times, first_s, "right") - 1
        last = np.searchsorted(self.times, last_s, "right")
        seen = {int(number) for number in self.numbers[max(0, first) : max(1, last)]}
        # Before the first picture: black, or that picture already.
        return seen | {marks.NOTHING} if first < 0 else seen


def read(path: Path, program: str) -> Truth:
    """Reads a whole file.

    Raises:
      NoTruthError: it has no pictures or no sound.
    """
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        shown = [
            "-an",
            "-sn",
            "-dn",
            "-vf",
            f"scale={_SIDE}:{_SIDE}:flags=area,format=gray",
            "-fps_mode",
            "passthrough",
        ]
        shown += ["-enc_time_base", "1:1000000", "-stats_enc_pre", str(at / "pictures"), "-stats_enc_pre_fmt", "{t}"]
        shown += ["-f", "rawvideo", str(at / "v")]
        heard = ["-vn", "-sn", "-dn", "-af", f"aresample={SAMPLE_RATE_HZ}", "-ac", "1", "-c:a", "pcm_s16le"]
        heard += [
            "-stats_enc_pre",
            str(at / "sounds"),
            "-stats_enc_pre_fmt",
            "{t} {samp}",
            "-f",
            "s16le",
            str(at / "a"),
        ]
        command = [program, "-v", "error", "-nostdin", "-threads", "1", "-i", str(path), *shown, *heard]
        result = subprocess.run(command, capture_output=True, timeout=120, check=False)
        if not all(
            file.exists() and file.stat().st_size for file in map(at.joinpath, ("v", "a", "pictures", "sounds"))
        ):
            raise NoTruthError(f"{path}: {result.stderr.decode(errors='replace')}")
        pictures = np.fromfile(at / "v", np.uint8).reshape(-1, _SIDE, _SIDE)
        times = np.loadtxt(at / "pictures", ndmin=1)[: len(pictures)]
        pcm, sound_s = _placed(np.fromfile(at / "a", "<i2"), np.loadtxt(at / "sounds", ndmin=2))
    order = np.argsort(times, kind="stable")
    return Truth(
        times=times[order],
        numbers=np.array([marks.number(picture) for picture in pictures])[order],
        frame_s=float(np.median(np.diff(times))) if len(times) > 1 else 0.04,
        tones=marks.heard(pcm, SAMPLE_RATE_HZ, np.arange(0, len(pcm) / SAMPLE_RATE_HZ, GRID_S)),
        sound_s=sound_s,
        complaints=result.stderr.decode(errors="replace"),
    )


def _placed(samples: np.ndarray, chunks: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Each piece of the sound at its time, silence between them."""
    first = np.round(chunks[:, 0] * SAMPLE_RATE_HZ).astype(int)
    lengths = chunks[:, 1].astype(int)
    pcm = np.zeros(max(0, int((first + lengths).max())), np.int16)
    read = 0
    for at, length in zip(first, lengths, strict=True):
        piece = samples[read : read + length]
        read += length
        piece = piece[max(0, -at) :]
        pcm[max(0, at) : max(0, at) + len(piece)] = piece
    return pcm, (max(0, first[0]) / SAMPLE_RATE_HZ, len(pcm) / SAMPLE_RATE_HZ)
