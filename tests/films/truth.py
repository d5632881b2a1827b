"""What the marks say that are seen and heard in a whole film."""

import dataclasses
from pathlib import Path

import numpy as np

from films import marks, whole

GRID_S = 0.02
_SIDE = 16
_FRAME_S = 0.04  # of a record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """A film.

    Attributes:
      times: (pictures,) seconds, ascending.
      numbers: (pictures,) what each says.
      frame_s: how long the last one is seen.
      tones: (moments,) what is heard at each multiple of `GRID_S`.
      sounds_s: (pieces, 2) from when to when there is sound.
    """

    times: np.ndarray
    numbers: np.ndarray
    frame_s: float
    tones: np.ndarray
    sounds_s: np.ndarray

    @property
    def pictures_s(self) -> tuple[float, float]:
        """From when to when there are pictures."""
        return float(self.times[0]), float(self.times[-1]) + self.frame_s

    @property
    def end_s(self) -> float:
        """Of the later stream."""
        return max(self.pictures_s[1], float(self.sounds_s[:, 1].max()))

    def sound_within(self, first_s: float, last_s: float) -> tuple[float, float] | None:
        """From when to when something is heard between these times, holes or not; None where nothing is."""
        inside = self.sounds_s[(self.sounds_s[:, 1] > first_s) & (self.sounds_s[:, 0] < last_s)].clip(first_s, last_s)
        return (float(inside[:, 0].min()), float(inside[:, 1].max())) if len(inside) else None

    def on_screen(self, first_s: float, last_s: float) -> set[int]:
        """The numbers of the pictures that are on screen at some moment between these.

        After the last one, what the last frame of a record showed: that one, or the one of a frame's time before.
        """
        first_s = min(first_s, self.pictures_s[1] - 1.5 * _FRAME_S)
        first = np.searchsorted(self.times, first_s, "right") - 1
        last = np.searchsorted(self.times, last_s, "right")
        seen = {int(number) for number in self.numbers[max(0, first) : max(1, last)]}
        # Before the first picture: black, or that picture already.
        return seen | {marks.NOTHING} if first < 0 else seen


def read(path: Path, program: str) -> Truth:
    """Reads a film's marks.

    Raises:
      NothingToReadError: it has no pictures or no sound.
    """
    film = whole.read(path, program, _SIDE, _SIDE)
    return Truth(
        times=film.times,
        numbers=np.array([marks.number(picture) for picture in film.pictures]),
        frame_s=float(np.median(np.diff(film.times))) if len(film.times) > 1 else 0.04,
        tones=marks.heard(film.pcm, whole.SAMPLE_RATE_HZ, np.arange(0, film.sound_s[1], GRID_S)),
        sounds_s=film.sounds_s,
    )
