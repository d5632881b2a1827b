"""How the pictures of a stream become frames: what is done to each source picture, and to each that is kept.

Frames are sRGB, as JPEG readers take them to be. Counted as treatments: fields that were put together, transparency
over black, high dynamic range, other primaries, high definition that does not say its matrix, colours that the scaler
cannot read.
"""

import dataclasses

from mbt.pipeline import color
from mbt.pipeline.streams import VideoStream

SHORTER_SIDE = 256
SCALER = "bicubic+accurate_rnd+bitexact+full_chroma_int"
DEINTERLACED = "deinterlaced"
ALPHA_OVER_BLACK = "alpha_over_black"
UNTAGGED_HD = "untagged_hd"
UNKNOWN_COLORS = "unknown_colors"

_SCALE = f"min(1,{SHORTER_SIDE}/min(iw*sar,ih))"
_FLAGS = f"flags={SCALER}"
# The sizes are those of the first frame: where a stream's size changes, the later frames are scaled to them.
_SIZE = f"scale=w='max(1,trunc(iw*sar*{_SCALE}+0.5))':h='max(1,trunc(ih*{_SCALE}+0.5))':{_FLAGS}"
_JFIF = "out_color_matrix=smpte170m:out_range=pc"  # JFIF readers assume BT.601, full range
_ENCODED = "setsar=1,format=yuvj420p"
_SCALED = f"{_SIZE}:{_JFIF},{_ENCODED}"
# One frame of two fields, where the decoder marks it so: the rate stays, and progressive pictures in between as well.
_DEINTERLACE = "bwdif=mode=send_frame:parity=auto:deint=interlaced"
_TURNS = {90: "transpose=cclock", 180: "hflip,vflip", 270: "transpose=clock"}
# Transparency lies beside the film (VP8 and VP9 in Matroska), and ffmpeg's own decoders leave it there.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_OVER_BLACK = "premultiply=inplace=1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is done to the pictures of a stream.

    Attributes:
      each: filters for every source picture, before any is chosen (deinterlacing needs them all, and thumbnails need
        colours that can be read); "" for none.
      chosen: filters for each frame at 25 fps, down to what is encoded.
      decoder: the name of a decoder that is not ffmpeg's first choice for the codec, or None.
      is_turned_last: whether `chosen` turns frames upright, and not ffmpeg all source pictures.
      treatments: the words by which `clips.parquet` counts what was done.
    """

    each: str = ""
    chosen: str = _SCALED
    decoder: str | None = None
    is_turned_last: bool = False
    treatments: tuple[str, ...] = ()


PLAIN = Pictures()


def filters(stream: VideoStream, *, steady: bool = False) -> Pictures:
    """What a stream needs; `PLAIN` for an ordinary one, which then takes no second pass.

    Args:
      stream: as its file describes it.
      steady: whether its colours are what is said here, whatever its pictures say.
    """
    told, stream = stream, color.readable(stream)
    is_told = stream == told and not steady
    is_interlaced = stream.field_order in ("top_first", "bottom_first")
    to_srgb, treatments = color.conversion(stream)
    matrix = color.untagged_matrix(stream)
    if is_told and not (is_interlaced or stream.alpha or to_srgb or matrix):
        return PLAIN
    size = f"{_SIZE}:in_color_matrix={matrix}" if matrix else _SIZE
    over_black = (_OVER_BLACK,) if stream.alpha else ()
    if to_srgb:
        chosen = (*over_black, size, *to_srgb, f"scale={_FLAGS}:{_JFIF}", _ENCODED)
    else:
        chosen = (*over_black, f"{size}:{_JFIF}", _ENCODED)
    each = ("" if is_told else color.tags(stream), _DEINTERLACE if is_interlaced else "")
    done = {
        DEINTERLACED: is_interlaced,
        ALPHA_OVER_BLACK: stream.alpha,
        UNTAGGED_HD: matrix is not None,
        UNKNOWN_COLORS: not is_told,
    }
    return Pictures(
        each=",".join(filter(None, each)),
        chosen=",".join(chosen),
        decoder=_ALPHA_DECODERS.get(stream.codec) if stream.alpha else None,
        treatments=(*(word for word, is_done in done.items() if is_done), *treatments),
    )


def sized(pictures: Pictures, width: int, height: int) -> Pictures:
    """The same with frames of this size, before they are turned."""
    return dataclasses.replace(pictures, chosen=pictures.chosen.replace(_SIZE, f"scale=w={width}:h={height}:{_FLAGS}"))


def is_turned(stream: VideoStream) -> bool:
    """Whether ffmpeg turns its pictures by a whole number of quarters."""
    return stream.rotation in _TURNS


def turned_last(pictures: Pictures, degrees: int) -> Pictures:
    """The same for a stream that says how to turn it, and changes its size, which ffmpeg's turning would cut off.

    Args:
      pictures: for a stream that is upright.
      degrees: as a display matrix says it, counterclockwise: 90, 180 or 270.
    """
    return dataclasses.replace(pictures, chosen=f"{pictures.chosen},{_TURNS[degrees]}", is_turned_last=True)


def frame_size(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
    """(width, height) of the frames of such source pictures, upright or not: what `_SIZE` computes."""
    scale = min(1, SHORTER_SIDE / min(width * pixel_aspect, height))
    return max(1, int(width * pixel_aspect * scale + 0.5)), max(1, int(height * scale + 0.5))


def settings() -> dict[str, object]:
    """What is done to pictures that are not plain, for `dataset.json`."""
    return {
        "deinterlacing": _DEINTERLACE,
        "transparency": _OVER_BLACK,
        "alpha_decoders": _ALPHA_DECODERS,
        "sizing": _SIZE,
        "encoding": [_FLAGS, _JFIF, _ENCODED],
        "colors": color.settings(),
    }
