"""Looks at media that were just fetched: do they give the clip's span, and which part of the file is worth keeping?

imageio-ffmpeg brings no ffprobe, and a header says little about what decodes. So the span is decoded, as it will be
when the shard is made, but to thumbnails: a quarter of the time of a record.
"""

import dataclasses
import time

from mbt.pipeline import ffmpeg, passes, streams, timeline
from mbt.pipeline.decode import TIME_LIMIT_S
from mbt.pipeline.passes import Span
from mbt.schemas.clip import MICROSECONDS

_MARGIN_US = MICROSECONDS  # kept around a cut, so that decoders warm up on the same packets as in the whole file
_HEAD = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+info"]
_INPUT = ["-protocol_whitelist", passes.PROTOCOLS, "-format_whitelist", ",".join(passes.DEMUXERS)]


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
      media_us: length of the whole file, or None where it does not say.
    """

    duration_us: int
    media_us: int | None


def probe(path: str, start_us: int, end_us: int, program: str, time_limit_s: float = TIME_LIMIT_S) -> Probed:
    """Decodes [start, end) of a local file.

    Raises:
      UnusableError: it gives none, for the reason that decoding would name.
      WorkerTroubleError: this machine failed, not the media.
    """
    span = Span(path=path, start_us=start_us, duration_us=end_us - start_us)
    deadline = time.monotonic() + time_limit_s + 2 * span.duration_us / MICROSECONDS
    done = timeline.read(span, program, deadline, thumbnails=True).done
    return Probed(
        duration_us=timeline.length(done, len(done.frames) // passes.THUMBNAIL**2, span),
        media_us=None if timeline.has_no_index(done.streams) or done.streams is None else done.streams.duration_us,
    )


def times(path: str, program: str) -> Times:
    """Start and length of a local file, by its container; a length of None where that says nothing."""
    words = [*_HEAD, *_INPUT, "-i", passes.source(path)]
    result = ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=TIME_LIMIT_S)
    found = streams.parse(result.log.replace(path, "FILE"))
    if found is None:
        return Times(start_us=0, duration_us=None)
    duration_us = found.duration_us
    if timeline.has_no_index(found):
        duration_us = timeline.scan(path, program, time.monotonic() + TIME_LIMIT_S)[1]
    return Times(start_us=found.start_us, duration_us=duration_us)


def cut(path: str, start_us: int, end_us: int, target: str, program: str) -> int | None:
    """Copies the packets around [start, end) to a file of its own, without decoding.

    MP4 keeps the timestamps of every codec that it holds to the tick; Matroska rounds them to milliseconds and NUT
    refuses the unset ones of many files, so what does not go into MP4 stays whole.

    Returns:
      Which time of the source is time zero of the new file, in microseconds; or None where nothing was cut.
    """
    first_us = max(0, start_us - _MARGIN_US)
    copy = ["-map", "0:V:0", "-map", "0:a:0", "-c", "copy", "-copyts", "-avoid_negative_ts", "disabled"]
    plain = ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", "-f", "mp4", "-y"]
    span = ["-ss", passes.seconds(first_us)] if first_us else []
    span += ["-t", passes.seconds(end_us + _MARGIN_US - first_us), "-i", passes.source(path)]
    words = [*_HEAD, *_INPUT, *span, *copy, *plain, passes.source(target)]
    result = ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=TIME_LIMIT_S)
    if result.returncode != 0:
        return None
    return times(target, program).start_us - times(path, program).start_us
