"""Which time a media file holds, by its packets: what it keeps, and not what its container says or a player shows.

A cut begins at a key frame, long before its clip may, and an edit list hides from players what is still in the file.
"""

import re

from mbt.pipeline import ffmpeg, passes, probe
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS

# Around each end: decoders look over the edges of packets, and some containers round, or leave out how long one lasts.
SLACK_US = MICROSECONDS // FRAME_RATE_HZ
_BYTE_LIMIT = 1 << 28  # of lines about packets: two days of a film
_TIME_LIMIT_S = 600.0
_HEAD = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+error"]
# Of MP4 and its kin, also the packets that an edit list hides; other demuxers do not know the option.
_HIDDEN_TOO = ["-advanced_editlist", "0"]
_INPUT = ["-protocol_whitelist", "file,pipe", "-format_whitelist", ",".join(passes.DEMUXERS)]
_LIST = ["-map", "0:V?", "-map", "0:a?", "-c", "copy", "-copyts", "-f", "framecrc", "{0}"]
_TIME_BASE = re.compile(rb"^#tb (\d+): (\d+)/(\d+)$", re.MULTILINE)
_PACKET = re.compile(rb"^(\d+), +(-?\d+|NOPTS), +(-?\d+|NOPTS), +(-?\d+), ", re.MULTILINE)


def of(path: str, program: str) -> tuple[int, int] | None:
    """First and last microsecond of the packets of a local file, counted from its zero, with `SLACK_US` around them.

    None where that cannot be told: then it may hold anything.

    Raises:
      WorkerTroubleError: this machine failed, not the file.
    """
    listed = packets(path, program)
    if not listed:
        return None
    try:
        bases = {int(stream): int(over) / int(under) for stream, over, under in _TIME_BASE.findall(listed)}
        starts, ends = [], []
        for stream, _, shown, length in _PACKET.findall(listed):
            start_s = int(shown) * bases[int(stream)]
            starts.append(start_s)
            ends.append(start_s + int(length) * bases[int(stream)])
    except (KeyError, ValueError):  # packets without a time
        return None
    if not starts:
        return None
    try:
        zero_us = probe.times(path, program).start_us
    except ffmpeg.INPUT_FAULTS:
        return None
    first_us, last_us = round(min(starts) * MICROSECONDS), round(max(ends) * MICROSECONDS)
    return first_us - zero_us - SLACK_US, last_us - zero_us + SLACK_US


def packets(path: str, program: str) -> bytes:
    """ffmpeg's list of the packets of a local file; empty where it is no media, or ffmpeg cannot bear it."""
    source = ["-i", passes.source(path)]
    for hidden in (_HIDDEN_TOO, []):
        words = [*_HEAD, *hidden, *_INPUT, *source, *_LIST]
        try:
            result = ffmpeg.run(program, words, outputs=1, byte_limit=_BYTE_LIMIT, time_limit_s=_TIME_LIMIT_S)
        except (OverflowError, *ffmpeg.INPUT_FAULTS):
            return b""
        if result.returncode == 0:
            return bytes(result.outputs[0])
    return b""


def overlaps(extent: tuple[int, int] | None, start_us: int, end_us: int) -> bool:
    """Whether a file with that extent may hold a part of [start, end)."""
    return extent is None or (extent[0] < end_us and start_us < extent[1])
