"""From where in a file a span must be read so that its beginning is right, and how long the clip is that comes.

A demuxer that is asked for a time lands where its index says, or where it guesses: behind the key frame, behind the
sound, in another recording. So the times of what was decoded are looked at, and where the start was not reached the
pass is made again from further back, at last from the beginning of the file.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Collection
from typing import NoReturn

from mbt.pipeline import absence, choice, passes, pixel_aspect
from mbt.pipeline import ffmpeg as process
from mbt.pipeline.passes import Pass, Span, Wanted
from mbt.pipeline.patience import StalledError, TooSlowError
from mbt.pipeline.reasons import UnusableError, failure
from mbt.pipeline.streams import Streams, has_no_index, mapped, parse
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS, SAMPLE_RATE_HZ

# A stream may begin this much after the clip does, or end this much before: the first or last frame is held, the sound
# padded with silence.
TOLERATED_GAP_US = MICROSECONDS // 2
TOLERATED_GAP_SHARE = 0.1
# Tools differ by some hundredths of a second about how long a file is: a span that ends this much later is honoured.
END_SLACK_US = MICROSECONDS // 10

# How much before the start the passes begin to read, until one reaches it; the last begins with the file. A tenth of a
# second is what decoders of sound need to warm up: what they give first lacks what came before (MP3, AAC, Opus).
_BACK_US = (MICROSECONDS // 10, 2 * MICROSECONDS, 8 * MICROSECONDS, 32 * MICROSECONDS)
_WITHOUT_KEY_FRAMES = ("h261", "h263")
_BACK_WITHOUT_INDEX_US = (10 * MICROSECONDS, 40 * MICROSECONDS)
_NEAR_US = 20 * MICROSECONDS  # from the beginning, a file without an index is read at once
# Where its clock begins again, ffmpeg sets it right by the streams that it still reads: a stream that has given its
# part, but does not end before that place, is read on.
_LINGER_US = 10 * MICROSECONDS
_MOST_CHANGES = 4  # of what a pass is asked for, where a stream changes: unevenness, colours, turning, size
_RESTART = re.compile(r"^(?:\[[^\]]*\] )*\[warning\] timestamp discontinuity ", re.MULTILINE)
_SCANNED = re.compile(r"^\[info\] (?:frame|size)=.* time=(\d+):(\d\d):(\d\d\.\d+) ", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a span was read.

    Attributes:
      done: the pass that gives it.
      seek_us: where that began to read.
      treatments: what it did that is not done to most files.
      linger_us: how much further it read than the span.
      frame_size: (width, height) of frames by the first source picture, also where thumbnails were made.
    """

    done: Pass
    seek_us: int
    treatments: frozenset[str]
    linger_us: int
    frame_size: tuple[int, int] | None


def read(span: Span, program: str, time_limit_s: float, *, thumbnails: bool = False) -> Reading:
    """Makes as many passes as a span needs: one, for a plain file with an index.

    Args:
      span: of a file.
      program: the ffmpeg to run.
      time_limit_s: of each pass; see `ffmpeg.run`.
      thumbnails: tiny pictures in the place of frames.

    Raises:
      UnusableError: nothing of the span is there, with the reason that ffmpeg's log names.
      WorkerTroubleError: this machine failed, not the media.
    """
    place, wanted, done, treatments = _reached_start(span, Wanted(thumbnails=thumbnails), program, time_limit_s)
    if steadied := choice.steadied(done, wanted):
        wanted, more = steadied
        treatments |= more
        done = passes.run(span, place, wanted, program, time_limit_s)
    if not place and _RESTART.search(done.log):
        wanted = dataclasses.replace(wanted, linger_us=_LINGER_US)
        done = passes.run(span, place, wanted, program, time_limit_s)
    told = _treatments(wanted)
    aspect = pixel_aspect.at_start(done, span, place, program, time_limit_s)
    for _ in range(_MOST_CHANGES):
        if (other := choice.as_at_start(done, wanted, aspect)) is None:
            break
        wanted, done = other, passes.run(span, place, other, program, time_limit_s)
    return Reading(
        done=_checked(done, span),
        seek_us=place,
        treatments=treatments - told | _treatments(wanted),
        linger_us=wanted.linger_us,
        frame_size=choice.frame_size(done, wanted, aspect),
    )


def _reached_start(
    span: Span, plain: Wanted, program: str, time_limit_s: float
) -> tuple[int, Wanted, Pass, frozenset[str]]:
    """Where a pass that reaches the start began to read, what was asked of it, what it gave, and its treatments."""
    places = _places(span.start_us, _BACK_US)
    place = places.pop(0)
    stop = functools.partial(_is_in_vain, place=place, plain=plain)
    done = passes.run(span, place, plain, program, time_limit_s, stop=stop)
    wanted, treatments = choice.choose(done.streams, done.log, plain) or _nothing(done)
    if place and has_no_index(done.streams):
        places = _places_without_index(span, program, time_limit_s)
    elif place and _has_false_key_frames(done.streams):
        places = [0]
    elif wanted != plain:
        places.insert(0, place)
    elif _good(done) or _is_past_end(done, span) or _is_absent(done, span, program, time_limit_s):
        places = []
    if places:
        places = places if done.returncode == 0 or wanted != plain else places[-1:]
        before = done if wanted == plain else None
        place, done = _from_further_back(span, places, wanted, program, time_limit_s, before=before)
    return place, wanted, done, treatments


def _treatments(wanted: Wanted) -> frozenset[str]:
    return frozenset(wanted.pictures.treatments) if wanted.pictures else frozenset()


def _from_further_back(
    span: Span, places: list[int], wanted: Wanted, program: str, time_limit_s: float, *, before: Pass | None
) -> tuple[int, Pass]:
    """The first pass that reaches the start of the span, or the last one, and where it began to read.

    A pass that failed stands where those from further back take too long. One that did not reach the start does not:
    how fast a machine is must not decide what is in a record.
    """
    for place in places:
        try:
            done = passes.run(span, place, wanted, program, time_limit_s)
        except StalledError:
            raise
        except TooSlowError:
            if before is None or not before.returncode:
                raise
            return place, before
        if _good(done) or ((before is None or not before.sounds) and _is_absent(done, span, program, time_limit_s)):
            break
        before = done
    return place, done


def _is_absent(done: Pass, span: Span, program: str, time_limit_s: float) -> bool:
    """Whether the file has neither pictures nor sound there.

    Raises:
      UnusableError: it has not one of them.
    """
    absent = absence.of(done, span, program, time_limit_s)
    if len(absent) == 1:
        (name,) = absent
        raise UnusableError(f"no_{name}_there", f"the span holds no {name}")
    return bool(absent)


def settings() -> dict[str, object]:
    """Every number that decides where a span is read and how long its clip is, for `dataset.json`."""
    return {
        "tolerated_gap_us": TOLERATED_GAP_US,
        "tolerated_gap_share": TOLERATED_GAP_SHARE,
        "end_slack_us": END_SLACK_US,
        "back_us": list(_BACK_US),
        "back_without_index_us": list(_BACK_WITHOUT_INDEX_US),
        "near_us": _NEAR_US,
        "linger_us": _LINGER_US,
    }


def _is_in_vain(log: str, *, place: int, plain: Wanted) -> bool:
    """Whether a first pass will be made again, whatever it gives: to read elsewhere, or to do something else."""
    found = parse(log)
    if found is None or len(mapped(log)) < 2:  # not said yet
        return False
    if place and (has_no_index(found) or _has_false_key_frames(found)):
        return True
    return choice.choose(found, log, plain) not in (None, (plain, frozenset()))


def _nothing(done: Pass) -> NoReturn:
    raise failure(done.returncode, done.log)


def _has_false_key_frames(found: Streams | None) -> bool:
    """Whether a seek may land where nothing can be decoded from, without a word of the decoder's.

    ffmpeg's copies of H.263 mark every picture as a key frame. MP4 and its kin have a table of their own.
    """
    if found is None or found.container.startswith("mov"):
        return False
    return any(stream.codec in _WITHOUT_KEY_FRAMES for stream in found.video)


def scan(path: str, program: str, time_limit_s: float) -> tuple[bool, int | None]:
    """Reads the packets of a whole file: whether its clock begins again inside, and its length in microseconds.

    Once, however many clips are of it.
    """
    try:
        found = os.stat(path)
    except OSError:
        return _scan(path, program, time_limit_s)
    version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return _scan_once(_File(path=path, version=version, program=program, time_limit_s=time_limit_s))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """What a scan depends on; not on how long it may take."""

    path: str
    version: tuple[int, ...]
    program: str
    time_limit_s: float = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=16)
def _scan_once(file: _File) -> tuple[bool, int | None]:
    return _scan(file.path, file.program, file.time_limit_s)


def _scan(path: str, program: str, time_limit_s: float) -> tuple[bool, int | None]:
    words = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-protocol_whitelist", passes.PROTOCOLS]
    words += ["-format_whitelist", ",".join(passes.DEMUXERS), "-i", passes.source(path)]
    words += ["-map", "0:V?", "-map", "0:a?", "-c", "copy", "-f", "null", "-"]
    log = process.run(program, words, outputs=0, byte_limit=0, time_limit_s=time_limit_s).log
    found = _SCANNED.findall(log.replace(path, "FILE"))
    if not found:
        return True, None
    hours, minutes, rest = found[-1]  # the last line is ffmpeg's own
    seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    return bool(_RESTART.search(log)), round(seconds * MICROSECONDS)


def length(done: Pass, num_frames: int, span: Span) -> int:
    """Length of the clip that a pass gives, in microseconds; less than the span where the media end earlier.

    Raises:
      UnusableError: a stream ends long before the clip does.
    """
    audio_us = max(len(heard.pcm) for heard in done.sounds) * MICROSECONDS // SAMPLE_RATE_HZ
    lengths_us = {"video": num_frames * MICROSECONDS // FRAME_RATE_HZ, "audio": audio_us}
    there_us = _left_us(done, span)
    if there_us is None or _is_wrong(there_us, lengths_us.values(), span):
        there_us = max(lengths_us.values())
    duration_us = span.duration_us if span.duration_us <= there_us + END_SLACK_US else there_us
    gap_us = tolerated_gap_us(duration_us)
    for name, stream_us in lengths_us.items():
        if stream_us < duration_us - gap_us:
            detail = f"{name} ends after {stream_us / MICROSECONDS:.2f} of {duration_us / MICROSECONDS:.2f} s"
            raise UnusableError("truncated", detail)
    return duration_us


def tolerated_gap_us(duration_us: int) -> int:
    """How much of a clip a stream may lack at either end."""
    return max(TOLERATED_GAP_US, int(duration_us * TOLERATED_GAP_SHARE))


def late(done: Pass, duration_us: int) -> tuple[str, ...]:
    """The treatments of a clip in which a stream begins, by more than what is tolerated, after the clip does."""
    gap_us = tolerated_gap_us(duration_us)
    found = []
    if done.first_picture_us is not None and done.first_picture_us > gap_us:
        found.append("late_picture")
    if any(heard.first_us is not None and heard.first_us > gap_us and not heard.follows for heard in done.sounds):
        found.append("late_sound")
    return tuple(found)


def _left_us(done: Pass, span: Span) -> int | None:
    """How much of the media is left from the start of the span on, by the container; None where it does not know."""
    found = done.streams
    if found is None or has_no_index(found) or found.duration_us is None:
        return None
    # Matroska counts from zero, wherever its streams begin.
    before_us = found.start_us if found.container.startswith("matroska") else 0
    return found.duration_us - before_us + MICROSECONDS // 200 - span.start_us  # ffmpeg prints hundredths, rounded


def _is_wrong(left_us: int, lengths_us: Collection[int], span: Span) -> bool:
    """Whether what a container says is left is not so.

    The first fragment may know of no other; a track that is no picture and no sound may end a little later. Where both
    end long before, the file is cut off.
    """
    missing_us = min(left_us, span.duration_us) - max(lengths_us)
    return min(lengths_us) > left_us + END_SLACK_US or END_SLACK_US < missing_us <= TOLERATED_GAP_US


def _places(start_us: int, back_us: tuple[int, ...]) -> list[int]:
    """Where the passes begin to read, one after the other; 0 is the beginning, where nothing is sought."""
    return [start_us - back for back in back_us if start_us > back] + [0]


def _places_without_index(span: Span, program: str, time_limit_s: float) -> list[int]:
    if span.start_us <= _NEAR_US or scan(span.path, program, time_limit_s)[0]:
        return [0]
    return _places(span.start_us, _BACK_WITHOUT_INDEX_US)


def _good(done: Pass) -> bool:
    return done.returncode == 0 and done.reaches_start


def _is_past_end(done: Pass, span: Span) -> bool:
    left_us = _left_us(done, span)
    return left_us is not None and left_us <= 0 and not done.frames


def _checked(done: Pass, span: Span) -> Pass:
    if _is_past_end(done, span):
        there_us = span.start_us + (_left_us(done, span) or 0)
        raise UnusableError("start_past_end", f"the media is {there_us / MICROSECONDS:.2f} s long")
    if done.returncode:
        raise failure(done.returncode, done.log)
    first_us = done.first_picture_us
    there = {
        "picture": bool(done.frames) and (first_us is None or first_us < span.duration_us),
        "sound": any(heard.first_us is not None for heard in done.sounds),
    }
    if all(there.values()):
        return done
    error = failure(done.returncode, done.log)
    if error.reason == "no_frames_or_sound":
        if not any(there.values()) and has_no_index(done.streams):
            error = UnusableError("start_past_end", "the media has neither picture nor sound there")
        elif any(there.values()):
            (missing,) = (name for name, is_there in there.items() if not is_there)
            error = UnusableError(f"no_{missing}_there", f"the span holds no {missing}")
    raise error
