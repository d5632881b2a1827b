"""Looks at media that were just fetched: do they give the clip's span, and which part of the file is worth keeping?

imageio-ffmpeg brings no ffprobe, and a header says little about what decodes. So the span is decoded, as it will be
when the shard is made, but to thumbnails: a quarter of the time of a record.
"""

import dataclasses

import numpy as np

from mbt.pipeline import ffmpeg, passes, sound, streams, timeline
from mbt.pipeline.decode import TIME_LIMIT_S
from mbt.pipeline.passes import Span
from mbt.schemas.clip import MICROSECONDS

# Before an input that is not decoded.
QUIET = [
    *("-hide_banner", "-nostdin", "-nostats", "-v", "level+info"),
    *("-protocol_whitelist", passes.PROTOCOLS, "-format_whitelist", ",".join(passes.DEMUXERS)),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """What a container says of itself.

    Attributes:
      start_us: its earliest timestamp.
      duration_us: its length, or None.
    """

    start_us: int
    duration_us: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probed:
    """What a span gave.

    Attributes:
      duration_us: length of the clip.
      media_us: length of the whole file, which may be a guess of its demuxer's, or None where it does not say.
      media_start_us: its earliest timestamp.
      tracks: the numbers of the streams that were decoded, the picture first.
      form: what else decides about a record, from how its colours are read to what was done to it.
      thumbnails: (frames, pixels) grey.
      pcm: (samples,) int16, 16 kHz mono.
    """

    duration_us: int
    media_us: int | None
    media_start_us: int
    tracks: tuple[int, ...]
    form: tuple
    thumbnails: np.ndarray
    pcm: np.ndarray


def probe(path: str, start_us: int, end_us: int, program: str, time_limit_s: float = TIME_LIMIT_S) -> Probed:
    """Decodes [start, end) of a local file.

    Raises:
      UnusableError: it gives none, for the reason that decoding would name.
      WorkerTroubleError: this machine failed, not the media.
    """
    span = Span(path=path, start_us=start_us, duration_us=end_us - start_us)
    time_limit_s += 2 * span.duration_us / MICROSECONDS
    reading = timeline.read(span, program, time_limit_s, thumbnails=True)
    done = reading.done
    assert done.streams is not None, "what decodes was opened"
    thumbnails = np.frombuffer(done.frames, np.uint8).reshape(-1, passes.THUMBNAIL**2)
    duration_us = timeline.length(done, len(thumbnails), span)
    tracks = tuple(index for _, index in sorted(streams.mapped(done.log).items()))
    return Probed(
        duration_us=duration_us,
        media_us=done.streams.duration_us,
        media_start_us=done.streams.start_us,
        tracks=tracks,
        form=(
            _form(done.streams, tracks),
            reading.frame_size,
            sorted({*reading.treatments, *timeline.late(done, duration_us)}),
        ),
        thumbnails=thumbnails,
        pcm=sound.mixed(done.sounds),
    )


def times(path: str, program: str, time_limit_s: float = TIME_LIMIT_S) -> Times:
    """Start and length of a local file, by its container; a length of None where that says nothing."""
    words = [*QUIET, "-i", passes.source(path)]
    result = ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=time_limit_s)
    found = streams.parse(result.log.replace(path, "FILE"))
    if found is None:
        return Times(start_us=0, duration_us=None)
    duration_us = found.duration_us
    if streams.has_no_index(found):
        duration_us = timeline.scan(path, program, time_limit_s)[1]
    return Times(start_us=found.start_us, duration_us=duration_us)


def _form(found: streams.Streams, tracks: tuple[int, ...]) -> tuple:
    """Of the picture: what a container may tell, and decoders and filters go by."""
    names = ("pix_fmt", "width", "height", "color_range", "matrix", "primaries", "transfer", "alpha")
    (video,) = (stream for stream in found.video if stream.index == tracks[0])
    return tuple(getattr(video, name) for name in names)
