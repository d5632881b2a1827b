"""Times and spans as annotation files write them, in microseconds."""

import functools
import re

from mbt.pipeline.annotations.rows import BadRowError, shown
from mbt.pipeline.decode import MAX_CLIP_US
from mbt.schemas.clip import MICROSECONDS

_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_CLOCK = re.compile(r"([0-9]{2}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?)")
_DAMAGE = (
    (re.compile(r"[0-9]+(?::[0-9]{1,2}){1,2}(?:[.,][0-9]+)?(?: [AP]M)?"), "a spreadsheet wrote a clock time"),
    (re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]+"), "a spreadsheet wrote a rounded number"),
    (re.compile(r"[0-9]+,[0-9]+"), "a decimal comma in place of a point"),
    (re.compile(r"#.*"), "a spreadsheet's error"),
    (re.compile(r"-.*"), "it is before the video begins"),
    (re.compile(r"#*"), "it is missing"),
)


@functools.lru_cache(maxsize=4096)  # starts of 10 s segments are few and many times the same
def seconds_us(value: str, column: str) -> int:
    """Microseconds of a plain decimal number of seconds."""
    if not _SECONDS.fullmatch(value):
        raise BadRowError("bad_time", f"{shown(value)} is no number of seconds{_cause(value)}", column)
    return round(float(value) * MICROSECONDS)


def clock_us(value: str, column: str) -> int:
    """Microseconds of HH:MM:SS.ss."""
    match = _CLOCK.fullmatch(value)
    if not match:
        raise BadRowError("bad_time", f"{shown(value)} is no time in the form HH:MM:SS.ss{_cause(value)}", column)
    hours, minutes, seconds = match.groups()
    return (int(hours) * 3600 + int(minutes) * 60) * MICROSECONDS + round(float(seconds) * MICROSECONDS)


def _cause(value: str) -> str:
    return next((f": {cause}" for pattern, cause in _DAMAGE if pattern.fullmatch(value)), "")


def check_span(start_us: int, end_us: int, column: str) -> None:
    """Refuses a span that is empty or longer than MAX_CLIP_US."""
    if end_us <= start_us:
        start, end = start_us / MICROSECONDS, end_us / MICROSECONDS
        raise BadRowError("empty_span", f"the end, {end:g} s, is not after the start, {start:g} s", column)
    if end_us - start_us > MAX_CLIP_US:
        raise BadRowError("span_too_long", f"over {MAX_CLIP_US // MICROSECONDS} s; cut it into several clips", column)
