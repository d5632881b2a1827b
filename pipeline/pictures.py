"""How the pictures of a stream become frames: what is done to each source picture, and to each that is kept."""

import dataclasses

from mbt.pipeline.streams import VideoStream

SHORTER_SIDE = 256

_SCALE = f"min(1,{SHORTER_SIDE}/min(iw*sar,ih))"
# The sizes are those of the first frame: where a stream's size changes, the later frames are scaled to them.
_SCALED = (
    f"scale=w='max(1,trunc(iw*sar*{_SCALE}+0.5))':h='max(1,trunc(ih*{_SCALE}+0.5))'"
    ":flags=bicubic+accurate_rnd+bitexact+full_chroma_int"
    ":out_color_matrix=smpte170m:out_range=pc"  # JFIF readers assume BT.601, full range
    ",setsar=1,format=yuvj420p"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is done to the pictures of a stream.

    Attributes:
      each: filters for every source picture, before any is chosen (deinterlacing needs them all); "" for none.
      chosen: filters for each frame at 25 fps, down to what is encoded.
      decoder: the name of a decoder that is not ffmpeg's first choice for the codec, or None.
      treatments: the words by which `clips.parquet` counts what was done.
    """

    each: str = ""
    chosen: str = _SCALED
    decoder: str | None = None
    treatments: tuple[str, ...] = ()


PLAIN = Pictures()


def filters(stream: VideoStream) -> Pictures:
    """What a stream needs; `PLAIN` for an ordinary one, which then takes no second pass."""
    del stream  # nothing is done to any, yet
    return PLAIN
