"""Which formats are chosen of those that YouTube has of a video."""

import pytest

from mbt.pipeline import youtube_formats

pytestmark = pytest.mark.quick


def _form(width=None, height=None, *, sound=True, picture=True, **more) -> dict:
    codecs = {"vcodec": "avc1.4d401e" if picture else "none", "acodec": "mp4a.40.2" if sound else "none"}
    sizes = {"width": width, "height": height}
    return {"url": "https://x/", "protocol": "https", "tbr": 100, **codecs, **sizes, **more}


SOUND = _form(picture=False, name="sound", tbr=130)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ([_form(640, 360, name="a"), _form(640, 360, sound=False, name="b"), SOUND], ["a"]),
        ([_form(426, 240, name="a"), _form(640, 360, sound=False, name="b"), SOUND], ["b", "sound"]),
        # Upright: the shorter side is the width.
        (
            [_form(240, 426, name="a"), _form(360, 640, sound=False, name="b"), _form(480, 854, name="c"), SOUND],
            ["b", "sound"],
        ),
        # Very wide: 360p has 240 rows only, so the next size is needed.
        ([_form(640, 240, name="a"), _form(854, 320, sound=False, name="b"), SOUND], ["b", "sound"]),
        ([_form(256, 144, name="a"), _form(426, 240, name="b")], ["b"]),
        ([_form(1920, 1080, name="a"), _form(1280, 720, name="b")], ["b"]),
        ([_form(640, 360, sound=False, name="a")], []),
        ([SOUND], []),
        ([], []),
        ([_form(640, 360, name="a", has_drm=True)], []),
        ([_form(640, 360, name="a", protocol="m3u8_native"), _form(640, 360, name="b")], ["b"]),
        ([_form(640, 360, name="a", protocol="rtmp")], []),
        # The film's own language before a dubbed one, also where that is less work.
        (
            [
                _form(640, 360, name="a", sound=False),
                SOUND | {"name": "dubbed", "language_preference": -1},
                SOUND | {"name": "own", "language_preference": 10, "tbr": 50},
            ],
            ["a", "own"],
        ),
        ([_form(640, 360, sound=False, name="a"), SOUND | {"name": "48", "tbr": 48}, SOUND], ["a", "sound"]),
        ([_form(name="unknown"), _form(256, 144, name="small")], ["small"]),
    ],
)
def test_formats(formats, expected):
    assert [form["name"] for form in youtube_formats.choose(formats)] == expected
