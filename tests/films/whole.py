"""A whole file as ffmpeg reads it from its beginning: each picture and each sample at its time.

Both streams are read in one run: ffmpeg counts time from the first packet of the streams that it reads, so that apart
each would start at its own zero. ffmpeg chooses the tracks.
"""

import dataclasses
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SAMPLE_RATE_HZ = 16_000
_TIME_LIMIT_S = 120
_HOLE_S = 0.1


class NothingToReadError(ValueError):
    """There are no pictures, or no sound, in the whole file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """A file.

    Attributes:
      times: (pictures,) seconds, ascending.
      pictures: (pictures, height, width) grey thumbnails.
      pcm: (samples,) int16 from the file's zero on, 16 kHz mono; silence where there is none.
      sounds_s: (pieces, 2) from when to when there is sound without a hole of a tenth of a second.
    """

    times: np.ndarray
    pictures: np.ndarray
    pcm: np.ndarray
    sounds_s: np.ndarray

    @property
    def sound_s(self) -> tuple[float, float]:
        """From when to when there is sound, with holes or without."""
        return float(self.sounds_s[0, 0]), float(self.sounds_s[:, 1].max())


def read(path: Path, program: str, width: int, height: int, to_mono: str = "") -> Whole:
    """Reads all of a file.

    Args:
      path: of the file.
      program: the ffmpeg to run.
      width: of the thumbnails.
      height: of the thumbnails.
      to_mono: a filter that makes one channel of the sound; by default ffmpeg's downmix does.

    Raises:
      NothingToReadError: it has no pictures or no sound.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = ("pictures", "times", "samples", "pieces")
        pictures, times, samples, pieces = files = [Path(folder) / name for name in names]
        shown = ["-an", "-sn", "-dn", "-vf", f"scale={width}:{height}:flags=area,format=gray"]
        shown += ["-fps_mode", "passthrough", "-enc_time_base", "1:1000000"]
        shown += ["-stats_enc_pre", str(times), "-stats_enc_pre_fmt", "{t}", "-f", "rawvideo", str(pictures)]
        mono = ",".join(filter(None, [to_mono, f"aresample={SAMPLE_RATE_HZ}"]))
        heard = ["-vn", "-sn", "-dn", "-af", mono, "-ac", "1", "-c:a", "pcm_s16le"]
        heard += ["-stats_enc_pre", str(pieces), "-stats_enc_pre_fmt", "{t} {samp}", "-f", "s16le", str(samples)]
        command = [program, "-v", "error", "-nostdin", "-threads", "1", "-i", str(path), *shown, *heard]
        result = subprocess.run(command, capture_output=True, timeout=_TIME_LIMIT_S, check=False)
        if not all(file.exists() and file.stat().st_size for file in files):
            raise NothingToReadError(f"{path}: {result.stderr.decode(errors='replace')}")
        thumbnails = np.fromfile(pictures, np.uint8).reshape(-1, height, width)
        at = np.loadtxt(times, ndmin=1)[: len(thumbnails)]
        pcm, sounds_s = _placed(np.fromfile(samples, "<i2"), np.loadtxt(pieces, ndmin=2))
    # At a seam a picture can come after another whose time is later: it is seen from then on, as in any player.
    return Whole(times=np.maximum.accumulate(at), pictures=thumbnails, pcm=pcm, sounds_s=sounds_s)


def _placed(samples: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each piece at its time, silence between them; and from when to when there is none."""
    first = np.round(pieces[:, 0] * SAMPLE_RATE_HZ).astype(int)
    lengths = pieces[:, 1].astype(int)
    pcm = np.zeros(max(0, int((first + lengths).max())), np.int16)
    read_to = 0
    for at, length in zip(first, lengths, strict=True):
        piece = samples[read_to : read_to + length][max(0, -at) :]
        read_to += length
        pcm[max(0, at) : max(0, at) + len(piece)] = piece
    holes = np.flatnonzero(first[1:] - (first + lengths)[:-1] > _HOLE_S * SAMPLE_RATE_HZ) + 1
    begins, ends = first[[0, *holes]], (first + lengths)[[*(holes - 1), -1]]
    return pcm, np.stack([begins.clip(0), ends], axis=1) / SAMPLE_RATE_HZ
