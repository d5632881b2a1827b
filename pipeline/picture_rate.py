"""How many source pictures come for each frame of ours: with too many, a clip takes as long as its file likes.

Time stamps that are damaged, or made to, put thousands of pictures where one is shown, and each is decoded.
"""

from mbt.pipeline.reasons import UnusableError
from mbt.schemas.clip import FRAME_RATE_HZ

MOST_HZ = 1000  # phones record up to 960 a second
IN_A_ROW = 5  # frames of ours: where a clock begins again, one alone may stand for many pictures
_MOST = MOST_HZ // FRAME_RATE_HZ


class PictureRate:
    """Is told a pass's lines about frames, each of which ends in the number of its source picture, as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._last: int | None = None
        self._in_a_row = 0

    def __call__(self, part: bytes) -> None:
        """Takes the next part of the lines.

        Raises:
          UnusableError: too many source pictures were passed over, for too many frames in a row.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            self._count(int(line.split()[-1]))
            if self._in_a_row >= IN_A_ROW:
                raise UnusableError("too_many_pictures", f"over {MOST_HZ} pictures a second for {IN_A_ROW} frames")

    def _count(self, number: int) -> None:
        is_many = self._last is not None and number - self._last > _MOST
        self._in_a_row = self._in_a_row + 1 if is_many else 0
        self._last = number


def settings() -> dict[str, object]:
    """What is too much, for `dataset.json`."""
    return {"most_hz": MOST_HZ, "in_a_row": IN_A_ROW}
