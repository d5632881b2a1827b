"""What a pass tells of the first picture, whatever ffmpeg's threads say in between."""

from fractions import Fraction

import pytest

from mbt.pipeline import shown

pytestmark = pytest.mark.quick

NAME = "[Parsed_showinfo_6 @ 0x7f] [info] "
PICTURE = (
    "n:   0 pts:    125 pts_time:5       duration:      1 duration_time:0.04    "
    "fmt:yuv420p10le cl:left sar:16/15 s:720x576 i:T iskey:1 type:I "
)
COLORS = ["color_range:tv", " color_space:bt2020nc", " color_primaries:bt2020", " color_trc:smpte2084", "\n"]
OTHER = "Output #0, image2pipe, to 'pipe:5':\n"


def test_a_picture_is_read():
    found = shown.parse(f"{NAME}{PICTURE}\n{NAME}{''.join(COLORS)}")
    assert found is not None
    assert (found.width, found.height, found.pixel_aspect) == (720, 576, Fraction(16, 15))
    assert (found.color_range, found.matrix, found.primaries) == ("tv", "bt2020nc", "bt2020")
    assert (found.transfer, found.field_order) == ("smpte2084", "top_first")


@pytest.mark.parametrize("place", range(8))
def test_words_of_other_threads_in_between_change_nothing(place):
    parts = [NAME, PICTURE, "\n", *COLORS]
    plain = shown.parse("".join(parts))
    parts.insert(place, OTHER)
    assert plain is not None and shown.parse("".join(parts)) == plain


def test_what_is_not_said_is_none():
    words = "color_range:unknown color_space:unknown color_primaries:reserved color_trc:unknown\n"
    found = shown.parse(f"{NAME}{PICTURE.replace('16/15', '0/1')}\n{NAME}{words}")
    assert found is not None and found.pixel_aspect == 1
    assert (found.color_range, found.matrix, found.primaries, found.transfer) == (None, None, None, None)
    assert shown.parse("[info] Stream mapping:\n") is None


def test_a_files_own_text_before_is_not_the_picture():
    assert shown.parse(f"[info]     title : {PICTURE.replace('720', '1')}\n{NAME}{PICTURE}\n").width == 720
