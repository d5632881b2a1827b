"""The part of a file that a clip needs, as a file of its own that decodes to the same. Nothing is encoded anew.

Packets are copied, from a little before the clip on. What comes of that is decoded and compared with what the source
gave, because much can be lost: pictures before the next key frame where a seek lands behind one, the warm-up of a
decoder, an offset between the streams, a transparency or a colour that only the old container told of.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mbt.pipeline import ffmpeg, passes, probe
from mbt.pipeline.logmel import log_mel
from mbt.pipeline.passes import Span
from mbt.pipeline.probe import TIME_LIMIT_S, Probed
from mbt.pipeline.reasons import UnusableError
from mbt.schemas.clip import MEL_ROWS_PER_SECOND, MICROSECONDS, SAMPLE_RATE_HZ

# How much before the clip the copies begin, until one holds the clip whole: a second warms a decoder up, the rest is
# for files without an index, where a copy begins with the key frame after the time that it was asked for.
_BEFORE_US = (MICROSECONDS, 4 * MICROSECONDS, 16 * MICROSECONDS)
_AFTER_US = MICROSECONDS
_SLACK_BYTES = 1 << 20

_SAME_LEVEL = 1.0  # grey levels, on average: thumbnails of one picture differ by none
_SAME_PICTURES = 0.98  # the others are a neighbour's, where a container rounds times
_SAME_SAMPLE = 2  # of 32768: two decoders' rounding
# Where containers round times, samples are less than a millisecond off: then the spectrograms are compared, by the
# share that is elsewhere, in tenths of a second. Noise that a codec draws anew takes a third; another sound takes all.
_SAME_SOUND = 0.5
# Of a second, and of the clip where that is shorter than half a second.
_LENGTHS_APART = 0.05
_LENGTHS_APART_SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """A file that holds a part of another.

    Attributes:
      path: of the file.
      zero_us: the time of the source that is its time zero.
    """

    path: str
    zero_us: int


def cut(span: Span, whole: Probed, target: str, program: str, time_limit_s: float = TIME_LIMIT_S) -> Cut | None:
    """Copies the packets around a span to a file of its own, and proves that this decodes to the same.

    MP4 keeps the timestamps of every codec that it holds to the tick; Matroska rounds them to milliseconds and NUT
    refuses the unset ones of many files, so what does not go into MP4 stays whole.

    Args:
      span: of the source.
      whole: what probing that gave.
      target: where the copy goes.
      program: the ffmpeg to run.
      time_limit_s: of each of its runs; see `ffmpeg.run`.

    Returns:
      The copy, or None where none holds the clip as the source does.

    Raises:
      WorkerTroubleError: this machine failed, not the media.
    """
    end_us = span.start_us + span.duration_us
    for before_us in _BEFORE_US:
        first_us = max(0, span.start_us - before_us)
        around = Span(path=span.path, start_us=first_us, duration_us=end_us + _AFTER_US - first_us)
        if not _copied(around, whole.tracks, target, program, time_limit_s):
            return None
        zero_us = probe.times(target, program, time_limit_s).start_us - whole.media_start_us
        try:
            # As a build reads it.
            part = probe.probe(target, max(0, span.start_us - zero_us), max(0, end_us - zero_us), program, time_limit_s)
        except UnusableError:
            part = None
        if part is not None and is_same(whole, part):
            return Cut(path=target, zero_us=zero_us)
        if not first_us:
            break
    return None


def is_same(one: Probed, other: Probed) -> bool:
    """Whether two spans give the same record, but for what containers round."""
    return (
        one.form == other.form
        and _is_as_long(one.duration_us, other.duration_us, MICROSECONDS)
        and _same_pictures(one.thumbnails, other.thumbnails)
        and _same_sound(one.pcm, other.pcm)
    )


def _copied(span: Span, tracks: Sequence[int], target: str, program: str, time_limit_s: float) -> bool:
    place = ["-ss", passes.seconds(span.start_us)] if span.start_us else []
    place += ["-t", passes.seconds(span.duration_us), "-i", passes.source(span.path)]
    chosen = [word for track in tracks for word in ("-map", f"0:{track}")]
    # None of several microphones is preferred, as in the source.
    alike = ["-disposition:a", "default"] if len(tracks) > 2 else []
    copy = ["-c", "copy", "-copyts", "-avoid_negative_ts", "disabled"]
    plain = ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", "-f", "mp4", "-y"]
    # A table can name the same packets again and again: what comes out larger than its source is no cut.
    most = ["-fs", str(2 * os.path.getsize(span.path) + _SLACK_BYTES)]
    words = [*probe.QUIET, *place, *chosen, *alike, *copy, *most, *plain, passes.source(target)]
    return ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=time_limit_s).returncode == 0


def _is_as_long(one: int, other: int, per_second: int) -> bool:
    return abs(one - other) <= min(_LENGTHS_APART * per_second, _LENGTHS_APART_SHARE * max(one, other))


def _same_pictures(one: np.ndarray, other: np.ndarray) -> bool:
    count = min(len(one), len(other))
    if abs(len(one) - len(other)) > 1 or not count:
        return False
    apart = np.abs(one[:count].astype(np.int16) - other[:count]).mean(axis=1)
    return float(np.mean(apart <= _SAME_LEVEL)) >= _SAME_PICTURES


def _same_sound(one: np.ndarray, other: np.ndarray) -> bool:
    count = min(len(one), len(other))
    if not count or not _is_as_long(len(one), len(other), SAMPLE_RATE_HZ):
        return False
    if int(np.abs(one[:count].astype(np.int32) - other[:count]).max()) <= _SAME_SAMPLE:
        return True
    tenths = max(1, count * 10 // SAMPLE_RATE_HZ)  # a shorter clip's end is silence in both
    rows = tenths * MEL_ROWS_PER_SECOND // 10
    here, there = (np.exp(log_mel(pcm[:count], rows)).reshape(tenths, -1) for pcm in (one, other))
    apart = np.abs(here - there).sum(axis=1) / (here.sum(axis=1) + 1)
    return bool((apart <= _SAME_SOUND).all())
