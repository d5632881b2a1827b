"""Pieces of sound, each with a time stamp, on one clock: holes become silence, jitter stays what it is."""

import itertools

import numpy as np

from mbt.schemas.clip import SAMPLE_RATE_HZ

_JITTER = SAMPLE_RATE_HZ // 100  # time stamps may be off by so much (10 ms, in samples) without anything missing
_WINDOW = SAMPLE_RATE_HZ // 2  # a gap that the stamps of so many samples take back was none


def place(samples: np.ndarray, times: np.ndarray, lengths: np.ndarray, most: int) -> np.ndarray:
    """The samples, each piece where it belongs, from time 0 on.

    Time stamps are written by clocks that tremble: many films have some that are 10 or 20 ms off and none missing
    between. So a piece moves only where it and all that follow for half a second agree that it must, by over 10 ms, and
    by no more than they agree on.

    Args:
      samples: (samples, ...) of all pieces, one after the other.
      times: (pieces,) when each begins, in samples.
      lengths: (pieces,) how long each is.
      most: how many samples are wanted.
    """
    starts = np.cumsum(lengths) - lengths
    shifts = _shifts(times - starts, starts)
    length = min(most, int((starts + shifts + lengths).max()))
    placed = np.zeros((max(0, length), *samples.shape[1:]), samples.dtype)
    edges = [0, *(np.flatnonzero(np.diff(shifts)) + 1), len(shifts)]
    end = 0
    for first, last in itertools.pairwise(edges):
        at = int(starts[first] + shifts[first])
        skipped = max(0, end - at)  # an overlap: what came first stays
        part = samples[starts[first] + skipped : starts[last - 1] + lengths[last - 1]]
        part = part[: max(0, length - at - skipped)]
        placed[at + skipped : at + skipped + len(part)] = part
        end = max(end, at + skipped + len(part))
    return placed


def settings() -> dict[str, object]:
    """Every number that decides where pieces go, for `dataset.json`."""
    return {"jitter_samples": _JITTER, "window_samples": _WINDOW}


def _shifts(late: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """By how much each piece is moved, of what its stamp says that it is later than the samples before it end."""
    shifts = np.full(len(late), late[0])
    if np.abs(late - late[0]).max() <= _JITTER:
        return shifts
    ends = np.searchsorted(starts, starts + _WINDOW)
    index = 0
    while index < len(late):
        away = late[index : ends[index]] - shifts[index]
        if np.abs(away).min() > _JITTER and abs(np.sign(away).sum()) == len(away):
            shifts[index:] = shifts[index] + away[np.abs(away).argmin()]
        index += 1
    return shifts
