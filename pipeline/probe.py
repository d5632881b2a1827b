"""Looks at media that were just fetched: do they give the clip's span, and which part of the file is worth keeping?

imageio-ffmpeg brings no ffprobe, and a header says little about what decodes. So the span is decoded, as it will be
when the shard is made, but to thumbnails: a quarter of the time of a record.
"""

import dataclasses
import os
import re

from mbt.pipeline import ffmpeg
from mbt.pipeline.decode import (
    DEMUXERS,
    FRAME_RATE_HZ,
    MAX_CLIP_BYTES,
    MAX_ERROR_RATE,
    MAX_PIXELS,
    MICROSECONDS,
    SAMPLE_RATE_HZ,
    TIME_LIMIT_S,
    UnusableError,
    clip_length,
    input_span,
    left_after,
)

_THUMBNAIL = 8  # pixels a side: the cheapest picture that proves that there is one
_MARGIN_US = MICROSECONDS  # kept around a cut, so that decoders warm up on the same packets as in the whole file
_CUT_SLACK_BYTES = 1 << 20
_HEAD = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-filter_threads", "1"]
_INPUT = ["-threads", "1", "-protocol_whitelist", "file,pipe", "-format_whitelist", ",".join(DEMUXERS)]
# The same limits as in decoding, so that both say the same of a file.
_LIMITS = ["-max_pixels", str(MAX_PIXELS), "-max_error_rate", str(MAX_ERROR_RATE)]
_THUMBNAILS = (
    f"[0:V:0]fps={FRAME_RATE_HZ}:round=near:start_time=0,"
    f"scale={_THUMBNAIL}:{_THUMBNAIL}:flags=neighbor,format=gray[v];"
    f"[0:a:0]aresample={SAMPLE_RATE_HZ}:async=1:first_pts=0,aformat=s16:channel_layouts=mono[a]"
)
_OUTPUTS = ["-map", "[v]", "-f", "rawvideo", "-fps_mode", "passthrough", "{0}", "-map", "[a]", "-f", "s16le", "{1}"]
_TIMES = re.compile(r"^\[info\]   Duration: (?:(\d+):(\d\d):(\d\d\.\d+)|N/A), start: (-?\d+\.\d+)", re.MULTILINE)


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
    span_us = end_us - start_us
    arguments = [*_HEAD, *_INPUT, *_LIMITS, *input_span(path, start_us, span_us)]
    try:
        result = ffmpeg.run(
            program,
            [*arguments, "-filter_complex", _THUMBNAILS, *_OUTPUTS],
            outputs=2,
            byte_limit=MAX_CLIP_BYTES,
            time_limit_s=time_limit_s + 2 * span_us / MICROSECONDS,
        )
    except OverflowError as error:
        raise UnusableError("too_many_bytes", f"over {MAX_CLIP_BYTES >> 20} MiB when decoded") from error
    thumbnails, pcm = result.outputs
    left_us = left_after(result, path, start_us, whole=bool(thumbnails and pcm))
    video_us = len(thumbnails) // _THUMBNAIL**2 * MICROSECONDS // FRAME_RATE_HZ
    audio_us = len(pcm) // 2 * MICROSECONDS // SAMPLE_RATE_HZ
    return Probed(
        duration_us=clip_length(video_us, audio_us, span_us, left_us),
        media_us=None if left_us is None else left_us + start_us,
    )


def times(path: str, program: str) -> Times:
    """Start and length of a local file, by its container; a length of None where that says nothing."""
    source = input_span(path, 0, MICROSECONDS)[-1]
    result = ffmpeg.run(program, [*_HEAD, *_INPUT, "-i", source], outputs=0, byte_limit=0, time_limit_s=TIME_LIMIT_S)
    if not (match := _TIMES.search(result.log.replace(path, "FILE"))):
        return Times(start_us=0, duration_us=None)
    duration_us = None
    if match[1] is not None:
        duration_us = round((int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])) * MICROSECONDS)
    return Times(start_us=round(float(match[4]) * MICROSECONDS), duration_us=duration_us)


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
    # A table can name the same packets again and again: what comes out larger than its source is no cut.
    most = ["-fs", str(2 * os.path.getsize(path) + _CUT_SLACK_BYTES)]
    words = [*_HEAD, *_INPUT, *input_span(path, first_us, end_us + _MARGIN_US - first_us), *copy, *most, *plain]
    escaped = "file:" + target.replace("{", "{{").replace("}", "}}")
    result = ffmpeg.run(program, [*words, escaped], outputs=0, byte_limit=0, time_limit_s=TIME_LIMIT_S)
    if result.returncode != 0:
        return None
    return times(target, program).start_us - times(path, program).start_us
