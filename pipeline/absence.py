"""Which streams have nothing in a span, by the packets of the whole file: what none holds, no pass finds.

Copying packets costs next to nothing; decoding a film from its beginning, to find that out, costs its length.
"""

import re
from collections.abc import Iterable

from mbt.pipeline import ffmpeg, passes
from mbt.pipeline.passes import Pass, Span
from mbt.pipeline.reasons import failure
from mbt.pipeline.streams import mapped
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS

_SLACK_US = MICROSECONDS // FRAME_RATE_HZ  # around the span: decoders look over the edges of packets
_BYTE_LIMIT = 1 << 28  # of lines about packets: two days of a film
_TIME_BASE = re.compile(rb"^#tb (\d+): (\d+)/(\d+)$", re.MULTILINE)
_PACKET = re.compile(rb"^(\d+), +(?:-?\d+|NOPTS), +(-?\d+|NOPTS), +(-?\d+), ", re.MULTILINE)


def of(done: Pass, span: Span, program: str, time_limit_s: float) -> frozenset[str]:
    """Of "picture" and "sound" what a pass did not find and the file does not have there.

    A picture counts as there from its time on, for it is held. Nothing is named where packets cannot tell, or where the
    pass complained of something else.

    Raises:
      WorkerTroubleError: this machine failed, not the media.
    """
    if not (missing := _missing(done, span)) or failure(done.returncode, done.log).reason != "no_frames_or_sound":
        return frozenset()
    used = mapped(done.log)
    outputs = {"picture": [0], "sound": list(range(1, 1 + len(done.sounds)))}
    if any(output not in used for numbers in outputs.values() for output in numbers):
        return frozenset()
    times = _times(span.path, used.values(), program, time_limit_s)
    if times is None:
        return frozenset()
    positions = {stream: position for position, stream in enumerate(dict.fromkeys(used.values()))}
    since_us = {"picture": None, "sound": span.start_us - _SLACK_US}
    until_us = span.start_us + span.duration_us + _SLACK_US
    return frozenset(
        name
        for name in missing
        if not any(
            _lies_within(times.get(positions[used[output]], []), since_us[name], until_us) for output in outputs[name]
        )
    )


def _missing(done: Pass, span: Span) -> list[str]:
    if done.returncode or not done.sounds:
        return []
    first_us = done.first_picture_us
    has_pictures = bool(done.frames) and (first_us is None or first_us < span.duration_us)
    has_sound = any(heard.first_us is not None for heard in done.sounds)
    return [name for name, is_there in (("picture", has_pictures), ("sound", has_sound)) if not is_there]


def _lies_within(times: Iterable[tuple[float, float]], since_us: int | None, until_us: int) -> bool:
    return any(start_us < until_us and (since_us is None or end_us > since_us) for start_us, end_us in times)


def _times(
    path: str, indices: Iterable[int], program: str, time_limit_s: float
) -> dict[int, list[tuple[float, float]]] | None:
    """Beginning and end of each packet, in microseconds after the file's zero, by the order of the indices.

    The clock is that of a file that is read from its beginning. None where a packet has no time.
    """
    words = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+error", "-protocol_whitelist", passes.PROTOCOLS]
    words += ["-format_whitelist", ",".join(passes.DEMUXERS), "-i", passes.source(path)]
    for index in dict.fromkeys(indices):
        words += ["-map", f"0:{index}"]
    words += ["-c", "copy", "-f", "framecrc", "{0}"]
    try:
        done = ffmpeg.run(program, words, outputs=1, byte_limit=_BYTE_LIMIT, time_limit_s=time_limit_s)
    except OverflowError:
        return None
    if done.returncode:
        return None
    listed = bytes(done.outputs[0])
    ticks_us = {
        int(number): MICROSECONDS * int(over) / int(under) for number, over, under in _TIME_BASE.findall(listed)
    }
    found: dict[int, list[tuple[float, float]]] = {}
    for number, shown, length in _PACKET.findall(listed):
        if shown == b"NOPTS" or int(number) not in ticks_us or int(shown) == passes.NO_TIME:
            return None
        tick_us = ticks_us[int(number)]
        found.setdefault(int(number), []).append((int(shown) * tick_us, (int(shown) + int(length)) * tick_us))
    return found
