"""The source picture of frame 0, as a pass tells of it.

Where a stream changes, that is not the picture with which the file begins, and of which the container tells.
"""

import dataclasses
import re
from fractions import Fraction

# Between filters for every picture and those for frames. Side data can be text of the file's own.
TELLING = "split[kept][first];[first]trim=end_frame=1,sidedata=mode=delete,showinfo=checksum=0,nullsink;[kept]{chosen}"
# ffmpeg's threads log at once: what one of them says in several parts, as of colours, may have another's words in
# between, and its first part may come without its name.
_PICTURE = re.compile(r"n: +0 pts: .* sar:(\d+)/(\d+) s:(\d+)x(\d+) i:([PTB]) ")
_MATRICES = "bt2020nc bt2020c bt709 bt470bg gbr fcc smpte170m smpte240m smpte2085 ycgco-re ycgco-ro ycgco ictcp ipt-c2"
_PRIMARIES = "bt2020 bt709 bt470m bt470bg smpte170m smpte240m smpte428 smpte431 smpte432 film ebu3213 vgamut"
_TRANSFERS = (
    "bt2020-10 bt2020-12 bt709 bt470m bt470bg bt1361e smpte170m smpte240m smpte2084 smpte428 "
    "iec61966-2-1 iec61966-2-4 arib-std-b67 linear log100 log316 vlog"
)
_COLORS = {
    "color_range": "tv pc",
    "color_space": f"{_MATRICES} chroma-derived-nc chroma-derived-c",
    "color_primaries": _PRIMARIES,
    "color_trc": _TRANSFERS,
}
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
    pictures = list(_PICTURE.finditer(log))
    if not pictures:
        return None
    picture = pictures[-1]  # a file's own text comes before
    across, down, width, height = (int(number) for number in picture.groups()[:4])
    color_range, matrix, primaries, transfer = (_color(log, picture.end(), name) for name in _COLORS)
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


def _color(log: str, position: int, name: str) -> str | None:
    """None where it is not said, or by a name that we do not know."""
    found = re.compile(rf"{name}:({_COLORS[name].replace(' ', '|')})").search(log, position)
    return found[1] if found else None
