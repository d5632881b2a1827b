"""The source picture of frame 0, as a pass tells of it.

Where a stream changes, that is not the picture with which the file begins, and of which the container tells.
"""

import dataclasses
import re
from fractions import Fraction

# Between filters for every picture and those for frames. Side data can be text of the file's own.
TELLING = "split[kept][first];[first]trim=end_frame=1,sidedata=mode=delete,showinfo=checksum=0,nullsink;[kept]{chosen}"
_FILTER = r"^\[Parsed_showinfo_\d+ @ [^\]]*\] \[info\] "
_PICTURE = re.compile(rf"{_FILTER}n: +0 .* sar:(\d+)/(\d+) s:(\d+)x(\d+) i:([PTB]) ", re.MULTILINE)
_COLORS = re.compile(
    rf"{_FILTER}color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)", re.MULTILINE
)
_FIELD_ORDERS = {"P": "progressive", "T": "top_first", "B": "bottom_first"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A source picture, as the filters for every picture leave it.

    Attributes:
      width: pixels.
      height: pixels.
      pixel_aspect: width of a pixel by its height; 1 where it is not said.
      field_order: "progressive", "top_first" or "bottom_first".
      color_range: by ffmpeg's names, None where it is not said, as all of the next.
      matrix: of colours.
      primaries: of colours.
      transfer: of colours.
    """

    width: int
    height: int
    pixel_aspect: Fraction
    field_order: str
    color_range: str | None
    matrix: str | None
    primaries: str | None
    transfer: str | None


def parse(log: str) -> Shown | None:
    """What the log of a pass says of it; None where no picture came."""
    picture = _PICTURE.search(log)
    colors = _COLORS.search(log, picture.end()) if picture else None
    if picture is None or colors is None:
        return None
    across, down, width, height = (int(number) for number in picture.groups()[:4])
    color_range, matrix, primaries, transfer = (
        None if name in ("unknown", "reserved") else name for name in colors.groups()
    )
    return Shown(
        width=width,
        height=height,
        pixel_aspect=Fraction(across, down) if across and down else Fraction(1),
        field_order=_FIELD_ORDERS[picture[5]],
        color_range=color_range,
        matrix=matrix,
        primaries=primaries,
        transfer=transfer,
    )
