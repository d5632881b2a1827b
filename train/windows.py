"""Where the windows of a clip lie, and which of its frames and spectrogram rows they take.

T frames and V spectrogram rows of a clip, F frames and R rows of its window.
"""

import dataclasses

import numpy as np

from mbt.schemas.clip import FRAME_RATE_HZ, MEL_ROWS_PER_SECOND

ROWS_PER_FRAME = MEL_ROWS_PER_SECOND // FRAME_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """What is taken of a clip.

    Attributes:
      frame_offsets: (F,) frames, counted from the window's first; empty to take none.
      frames: length of the window of frames, in source frames; 0 to take none.
      mel_rows: R; 0 to take none.
      alignment: "start", "proportion", "wrapped" or "independent"; see `starts`.
      loop: a clip shorter than the window begins again; otherwise its last frame is held and its sound is followed by
        `mel_fill`. Under "wrapped" it begins again in any case.
      mel_fill: value of rows past the end of the clip.
    """

    frame_offsets: np.ndarray
    frames: int
    mel_rows: int
    alignment: str
    loop: bool
    mel_fill: float

    @property
    def wraps(self) -> bool:
        """Whether what lies behind the end of a clip is its beginning."""
        return self.loop or self.alignment == "wrapped"


def starts(window: Window, num_frames: int, num_rows: int, positions: np.ndarray, *, random: bool) -> tuple[int, int]:
    """First frame and first spectrogram row of a window.

    - "start": both at the same moment, so that the longer of the two windows fits.
    - "proportion": the frames at their position; the sound at the same share of what the clip leaves it free.
    - "wrapped": as DMVR samples for the reference (`processors.sample_sequence`). In training the sound begins at the
      moment of the frames, and where the clip ends goes on with its beginning. In a test as "proportion".
    - "independent": each at its own position.

    Args:
      window: what is taken.
      num_frames: T.
      num_rows: V.
      positions: (2,) of frames and sound, from 0 to 1.
      random: positions are draws from [0, 1); otherwise shares of the way from the first place to the last.
    """
    place = random_place if random else view_place
    if window.alignment == "start":
        longer = max(window.frames, -(-window.mel_rows // ROWS_PER_FRAME))
        frame = place(num_frames - longer, positions[0])
        return frame, frame * ROWS_PER_FRAME
    if window.alignment == "wrapped" and random:
        if not len(window.frame_offsets):
            return 0, random_place(num_rows - window.mel_rows, positions[0])
        frame = random_place(num_frames - 1 - int(window.frame_offsets[-1]), positions[0])
        # In single precision, as there: a half may fall on either side.
        return frame, int(np.rint(np.float32(frame) / np.float32(num_frames) * np.float32(num_rows)))
    free = num_frames - window.frames
    frame, free_rows = place(free, positions[0]), num_rows - window.mel_rows
    if window.alignment in ("proportion", "wrapped"):
        return frame, view_place(free_rows, frame / free if free > 0 else positions[0])
    return frame, place(free_rows, positions[1])


def random_place(free: int, draw: float) -> int:
    """One of the places 0 to `free`, each as likely, by a draw from [0, 1); 0 where there is no other."""
    return min(int(draw * (max(free, 0) + 1)), max(free, 0))


def view_place(free: int, share: float) -> int:
    """The place nearest to a share of the way from 0 to `free`."""
    return int(np.rint(share * max(free, 0)))


def view_shares(views: int) -> np.ndarray:
    """Positions of the windows of an evaluation, (views,): linspace(0, 1, views); of one alone the middle."""
    return np.linspace(0, 1, views) if views > 1 else np.array([0.5])


def chosen_frames(window: Window, start: int, num_frames: int) -> tuple[np.ndarray, float]:
    """The frames of a window, (F,), and the share of them that are no repetition."""
    wanted = start + window.frame_offsets
    within = wanted % num_frames if window.wraps else np.minimum(wanted, num_frames - 1)
    return within, float(np.mean(wanted < num_frames))
