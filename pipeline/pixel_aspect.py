"""The shape of a pixel where a span of a transport stream begins: broadcasts change between 4:3 and 16:9 in one size.

ffmpeg gives all pictures of a stream the shape that it found when it opened the file. Where it opens a file without
looking into the streams, pictures keep the shape of their own. So the key frames up to the start are looked at again.
"""

import re
from fractions import Fraction

from mbt.pipeline import ffmpeg, passes
from mbt.pipeline.passes import Pass, Span
from mbt.pipeline.streams import mapped
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS

_CONTAINER = "mpegts"
_SHAPE = re.compile(r"n: +\d+ pts: .* sar:(\d+)/(\d+) s:")


def at_start(done: Pass, span: Span, seek_us: int, program: str, time_limit_s: float) -> Fraction | None:
    """Width of a pixel by its height in the last key frame up to the start; None where that is not told.

    Args:
      done: a pass over the span.
      span: of a file.
      seek_us: where to begin to read.
      program: the ffmpeg to run.
      time_limit_s: see `ffmpeg.run`.

    Raises:
      WorkerTroubleError: this machine failed, not the media.
    """
    found, index = done.streams, mapped(done.log).get(0)
    if done.returncode or found is None or index is None:
        return None
    if found.container != _CONTAINER or not span.start_us:
        return None
    # Without a look into the streams the zero of the clock is not moved to where they begin.
    until_us = span.start_us + found.start_us + MICROSECONDS // FRAME_RATE_HZ // 2
    words = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-cpuflags", ffmpeg.CPU_FLAGS]
    words += ["-protocol_whitelist", passes.PROTOCOLS, "-format_whitelist", _CONTAINER, "-max_error_rate", "1"]
    words += ["-max_pixels", str(passes.MAX_PIXELS), "-nofind_stream_info", "-skip_frame", "nokey", "-threads", "1"]
    words += passes.place(seek_us)
    words += ["-i", passes.source(span.path), "-map", f"0:{index}", "-vf"]
    words += [f"trim=end={passes.seconds(until_us)},sidedata=mode=delete,showinfo=checksum=0", "-f", "null", "-"]
    looked = ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=time_limit_s)
    shapes = _SHAPE.findall(looked.log)
    if looked.returncode or not shapes:
        return None
    across, down = (int(number) for number in shapes[-1])
    return Fraction(across, down) if across and down else Fraction(1)
