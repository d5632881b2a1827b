"""What a stream's colours need to become sRGB's: HDR is tone-mapped, other primaries are converted.

All of it is float32 in ffmpeg's own filters, which obey `-cpuflags`, so that the bytes are the same on every CPU.
"""

import dataclasses
import functools

import numpy as np

from mbt.pipeline import curves
from mbt.pipeline.streams import VideoStream

TONE_MAPPED = "tone_mapped"
PRIMARIES_CONVERTED = "primaries_converted"
LINEARITY_LIMIT = 0.75  # of reference white: up to there tone mapping changes nothing
HDR_PEAK = 1000.0  # nits that become white; what is brighter is clipped
HD_SIDES = (1280, 720)  # from this width or height on, pictures that do not say their matrix are BT.709's
# x and y of red, green, blue and white, by ffmpeg's names (ITU-T H.273, table 2).
_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    "bt470m": ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    "bt470bg": ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    "smpte170m": ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    "smpte240m": ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    "film": ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    "ebu3213": ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
_HDR = {"smpte2084": curves.PQ, "arib-std-b67": curves.HLG}
# What ffmpeg's scaler reads; it refuses pictures that name other matrices, and those that name some curves.
_MATRICES = ("bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc")
_LIKE_BT2020 = ("bt2020c", "ictcp", "ipt-c2")
_UNREADABLE_CURVES = ("log100", "log316", "vlog")
_BT2020_LUMA = (0.2627, 0.6780, 0.0593)


def readable(stream: VideoStream) -> VideoStream:
    """The stream with the nearest that the scaler can read in the place of the colours that it cannot.

    For a matrix that is BT.2020's, for those of BT.2020's kin and for those with its primaries; else for the one that
    the picture's size speaks for. For a curve, none: all of standard range are read alike.
    """
    matrix, transfer = stream.matrix, stream.transfer
    if not _is_matrix(stream):
        if _is_rgb(stream.pix_fmt):
            matrix = None
        elif matrix in _LIKE_BT2020 or stream.primaries == "bt2020":
            matrix = "bt2020nc"
        else:
            matrix = "bt709" if _is_hd(stream) else "smpte170m"
    if transfer in _UNREADABLE_CURVES:
        transfer = None
    return dataclasses.replace(stream, matrix=matrix, transfer=transfer)


def tags(stream: VideoStream) -> str:
    """A filter that makes pictures say of their colours what a stream does."""
    return f"setparams=colorspace={stream.matrix or 'unknown'}:color_trc={stream.transfer or 'unknown'}"


def untagged_matrix(stream: VideoStream) -> str | None:
    """The matrix that a picture's size speaks for where the stream names none and ffmpeg would take another."""
    return "bt709" if stream.matrix is None and _is_hd(stream) and not _is_rgb(stream.pix_fmt) else None


def conversion(stream: VideoStream) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Filters that take a stream's pictures, already scaled, to sRGB; and the treatments that this is.

    Where nothing is to be done there are no filters; else they give and take any pixel format.
    """
    if stream.transfer in _HDR:
        return _tone_mapping(stream), (TONE_MAPPED,)
    if stream.primaries not in _CHROMATICITIES or stream.primaries == "bt709":
        return (), ()
    # The curves of standard range differ less than screens do: all are read as sRGB's.
    filters = ("format=gbrpf32le", _lut(curves.SRGB_LIGHT), _matrix(stream.primaries), _lut(curves.SRGB))
    return filters, (PRIMARIES_CONVERTED,)


def settings() -> dict[str, object]:
    """Every number of the conversion, for `dataset.json`."""
    return {
        "target": "sRGB; BT.709 where primaries are not said",
        "untagged_matrix": f"BT.709 from {HD_SIDES[0]} wide or {HD_SIDES[1]} high on, else BT.601",
        "readable": [sorted(_MATRICES), sorted(_LIKE_BT2020), sorted(_UNREADABLE_CURVES)],
        "reference_white_nits": curves.REFERENCE_WHITE,
        "peak_nits": HDR_PEAK,
        "linearity_limit": LINEARITY_LIMIT,
        "hlg_display_nits": curves.HLG_PEAK,
        "chromaticities": {name: [list(point) for point in points] for name, points in _CHROMATICITIES.items()},
        "curves": {curve.name: curve.digest() for curve in curves.CURVES},
    }


def _tone_mapping(stream: VideoStream) -> tuple[str, ...]:
    """The brightest of a pixel's three colours is bent under white (mobius), and the others go with it."""
    light = [_lut(_HDR[stream.transfer or ""])]
    if stream.transfer == "arib-std-b67":
        luma = _mixer(np.array([_BT2020_LUMA] * 3))
        light.append(f"split[scene][for_luma];[for_luma]{luma},{_lut(curves.HLG_GAIN)}[gain]")
        light[-1] += ";[scene][gain]blend=all_mode=multiply"
    # BT.2100 knows no other primaries than BT.2020's.
    mapping = f"tonemap=mobius:param={LINEARITY_LIMIT}:peak={HDR_PEAK / curves.REFERENCE_WHITE:.6f}:desat=0"
    return ("format=gbrpf32le", *light, _matrix("bt2020"), mapping, _lut(curves.SRGB))


def _lut(curve: curves.Curve) -> str:
    return f"lut1d=file={_escaped(curve.path)}:interp=linear"


def _escaped(path: str) -> str:
    """A path as the value of an option in a graph: escaped for the option, and then for the graph."""
    for special in ("\\':", "\\'[],;"):
        path = "".join(f"\\{letter}" if letter in special else letter for letter in path)
    return path


@functools.cache
def _matrix(primaries: str) -> str:
    """From these primaries to BT.709's, in linear light."""
    return _mixer(np.linalg.inv(_to_xyz("bt709")) @ _adaptation(primaries) @ _to_xyz(primaries))


def _mixer(matrix: np.ndarray) -> str:
    names = [f"{to}{of}" for to in "rgb" for of in "rgb"]
    return "colorchannelmixer=" + ":".join(
        f"{name}={value:.6f}" for name, value in zip(names, matrix.ravel(), strict=True)
    )


def _to_xyz(primaries: str) -> np.ndarray:
    """RGB to CIE XYZ (SMPTE RP 177, section 3)."""
    *colors, white = (_xyz(point) for point in _CHROMATICITIES[primaries])
    columns = np.stack(colors, axis=1)
    return columns * np.linalg.solve(columns, white)


def _adaptation(primaries: str) -> np.ndarray:
    """White to D65's, by Bradford's cones (ICC.1:2022, annex E)."""
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    ratio = (cones @ _xyz(_D65)) / (cones @ _xyz(_CHROMATICITIES[primaries][3]))
    return np.linalg.inv(cones) @ np.diag(ratio) @ cones


def _xyz(point: tuple[float, float]) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _is_matrix(stream: VideoStream) -> bool:
    """Whether the scaler reads a stream's pictures by the matrix that it names, or names none."""
    return stream.matrix in (None, *_MATRICES) or (stream.matrix == "gbr" and _is_rgb(stream.pix_fmt))


def _is_hd(stream: VideoStream) -> bool:
    return stream.width >= HD_SIDES[0] or stream.height >= HD_SIDES[1]


def _is_rgb(pix_fmt: str) -> bool:
    return pix_fmt.startswith(
        ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "gray", "mono", "ya", "x2rgb")
    )
