"""Colours against computations of their own: films of one known colour through the filters and the scaler."""

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mbt.pipeline import color, curves, ffmpeg
from mbt.pipeline.streams import VideoStream

pytestmark = pytest.mark.quick

PLAIN = VideoStream(
    index=0,
    codec="h264",
    pix_fmt="yuv420p10le",
    width=320,
    height=192,
    color_range="tv",
    matrix="bt2020nc",
    primaries="bt2020",
    transfer="bt709",
    field_order="progressive",
    is_attached_picture=False,
    alpha=False,
)
# What an sRGB picture says, and is to say again.
COLORS = [(200, 100, 50), (20, 20, 20), (118, 118, 118), (40, 90, 160), (150, 150, 30), (8, 60, 12)]


def srgb_light(rgb) -> np.ndarray:
    signal = np.asarray(rgb) / 255
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


# BT.709 to BT.2020 (ITU-R BT.2087-0, section 4), and to P3 with a white of D65 (SMPTE EG 432-1).
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.8225, 0.1775, 0.0], [0.0332, 0.9668, 0.0], [0.0171, 0.0724, 0.9105]])


def pq_signal(nits: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100-2, table 4, the inverse EOTF."""
    power = (np.maximum(nits, 0) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_signal(nits: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100-2, table 5: the inverse OOTF of a display of 1,000 nits, and the OETF."""
    luminance = nits @ [0.2627, 0.6780, 0.0593]
    scene = nits / 1000 * (luminance / 1000) ** ((1 - 1.2) / 1.2)
    low, high = np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, low, high)


def yuv(signal: np.ndarray) -> bytes:
    """A frame of one colour, yuv420p10le, BT.2020's matrix, limited range."""
    red, green, blue = signal
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    planes = ((luma, 219, 16, 320 * 192), ((blue - luma) / 1.8814, 224, 128, 160 * 96))
    planes += (((red - luma) / 1.4746, 224, 128, 160 * 96),)
    return b"".join(np.full(count, round((v * scale + zero) * 4), "<u2").tobytes() for v, scale, zero, count in planes)


def shown(stream: VideoStream, frame: bytes) -> np.ndarray:
    """The colour that comes out for a frame of one colour."""
    filters, _ = color.conversion(stream)
    flags = "flags=bicubic+accurate_rnd+bitexact+full_chroma_int"
    graph = ",".join([f"scale=320:192:{flags}", *filters, f"scale={flags}:out_range=pc", "format=rgb24"])
    words = ["-f", "rawvideo", "-pix_fmt", stream.pix_fmt, "-s", "320x192", "-colorspace", str(stream.matrix)]
    words += ["-color_range", str(stream.color_range), "-i", "-", "-vf", graph, "-f", "rawvideo", "-"]
    program = ffmpeg.executable()
    done = subprocess.run(
        [program, "-v", "error", "-cpuflags", ffmpeg.CPU_FLAGS, *words], input=frame, capture_output=True, check=True
    )
    return np.frombuffer(done.stdout, np.uint8).reshape(192, 320, 3)[96, 160].astype(int)


@pytest.mark.parametrize("rgb", COLORS, ids=str)
@pytest.mark.parametrize(("transfer", "signal"), [("smpte2084", pq_signal), ("arib-std-b67", hlg_signal)])
def test_what_is_under_reference_white_looks_as_in_standard_range(transfer, signal, rgb):
    stream = dataclasses.replace(PLAIN, transfer=transfer)
    nits = TO_BT2020 @ srgb_light(rgb) * 203
    # Ten bits of a signal that reaches from 0.005 to 10,000 nits leave three levels of doubt.
    assert np.abs(shown(stream, yuv(signal(nits))) - rgb).max() <= 4


@pytest.mark.parametrize(("transfer", "signal"), [("smpte2084", pq_signal), ("arib-std-b67", hlg_signal)])
def test_highlights_keep_their_order_and_end_in_white(transfer, signal):
    stream = dataclasses.replace(PLAIN, transfer=transfer)
    levels = [shown(stream, yuv(signal(np.full(3, nits))))[1] for nits in (100, 203, 400, 1000)]
    assert levels == sorted(set(levels))
    assert 225 < levels[1] < 250
    assert levels[-1] >= 254


@pytest.mark.parametrize("rgb", COLORS, ids=str)
@pytest.mark.parametrize(("primaries", "to"), [("bt2020", TO_BT2020), ("smpte432", TO_P3)])
def test_primaries_are_converted(primaries, to, rgb):
    stream = dataclasses.replace(PLAIN, primaries=primaries)
    light = to @ srgb_light(rgb)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)
    assert np.abs(shown(stream, yuv(signal)) - rgb).max() <= 3


@pytest.mark.parametrize("primaries", sorted(color._CHROMATICITIES))
def test_white_stays_white(primaries):
    stream = dataclasses.replace(PLAIN, primaries=primaries)
    assert np.abs(shown(stream, yuv(np.full(3, 1.0))) - 255).max() <= 1


def test_plain_streams_are_left_alone():
    for primaries in (None, "bt709", "unheard-of"):
        assert color.conversion(dataclasses.replace(PLAIN, primaries=primaries)) == ((), ())


@pytest.mark.parametrize(
    ("size", "matrix", "pix_fmt", "expected"),
    [
        ((1280, 720), None, "yuv420p", "bt709"),
        ((720, 1280), None, "yuv420p", "bt709"),
        ((960, 720), None, "yuv420p", "bt709"),
        ((720, 576), None, "yuv420p", None),
        ((1920, 1080), "smpte170m", "yuv420p", None),
        ((1920, 1080), None, "gbrp", None),
    ],
)
def test_untagged_pictures_of_high_definition_are_of_bt709(size, matrix, pix_fmt, expected):
    stream = dataclasses.replace(PLAIN, width=size[0], height=size[1], matrix=matrix, pix_fmt=pix_fmt)
    assert color.untagged_matrix(stream) == expected


@pytest.mark.parametrize("curve", curves.CURVES, ids=lambda curve: curve.name)
def test_tables_are_what_the_formulas_say(curve):
    def values(text):
        return np.array([row.split() for row in text.splitlines()[1:]], float)

    np.testing.assert_allclose(values(Path(curve.path).read_text()), values(curve.table()), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["plain", "it's", "a:b", "a,b;c", "[x]", "back\\slash"])
def test_tables_are_found_wherever_the_package_lies(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    for curve in curves.CURVES:
        (folder / f"{curve.name}.cube").write_text(curve.table())
    monkeypatch.setattr(curves, "_FOLDER", folder)
    stream = dataclasses.replace(PLAIN, transfer="smpte2084")
    assert (
        np.abs(shown(stream, yuv(pq_signal(TO_BT2020 @ srgb_light((200, 100, 50)) * 203))) - (200, 100, 50)).max() <= 4
    )
