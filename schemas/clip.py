"""The clip row: one annotated span of one video, and the outcome it had."""

import dataclasses
import enum

FRAME_RATE_HZ = 25
SAMPLE_RATE_HZ = 16_000
MEL_BINS = 128
MEL_ROWS_PER_SECOND = 100
MICROSECONDS = 1_000_000


class Outcome(enum.StrEnum):
    """What became of a clip. Only `GONE` is taken as final."""

    OK = "ok"
    GONE = "gone"
    RESTRICTED = "restricted"
    BLOCKED = "blocked"
    TRANSIENT = "transient"
    UNUSABLE = "unusable"
    INVALID = "invalid"
    NOT_TRIED = "not_tried"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """One row of the annotations.

    Attributes:
      id: unique in the dataset; any text.
      split: e.g. "train".
      source: the local path or URL, as annotated.
      start_us: where the clip starts in the source, in microseconds.
      end_us: where it ends, in microseconds.
      labels: label strings, as annotated.
    """

    id: str
    split: str
    source: str
    start_us: int
    end_us: int
    labels: tuple[str, ...]

    @property
    def duration_us(self) -> int:
        """Length, in microseconds."""
        return self.end_us - self.start_us


def num_frames(duration_us: int) -> int:
    """Frames at 25 fps in a clip of this length: round(25 x seconds), at least 1."""
    return max(1, _round_div(duration_us * FRAME_RATE_HZ, MICROSECONDS))


def num_mel_rows(duration_us: int) -> int:
    """Spectrogram rows (10 ms each) in a clip of this length: round(100 x seconds), at least 1."""
    return max(1, _round_div(duration_us * MEL_ROWS_PER_SECOND, MICROSECONDS))


def _round_div(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
