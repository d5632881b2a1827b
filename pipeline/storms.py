"""Storms: refusal is a property of a source's host, seen in its answers together, and not of one clip.

A server that is down, throttles or wants a login says of every clip what it also says of one that is lost. So answers
are judged by host, while a run goes on (`breaker`) and in hindsight over the ledger (`hindsight`): what was heard in a
storm settles nothing. Only news counts. A clip that failed before, when its host was well, is expected to fail again:
else a run over what an earlier one left, which is hardly anything but failures, would always look like a storm.
"""

import itertools
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mbt.schemas.clip import Outcome

WINDOW = 40  # sources of a host that count as recent
FEWEST = 12  # before a share means anything
BLOCKED_SHARE = 0.5  # of a window, from which on it is a storm
LOST_SHARE = 0.8  # of a window, above which it is one, whatever the failures are
IN_A_ROW = 20  # that fail are one too, in the middle of a run that went well: by chance, of a host that lost half, 1e-6
MOSTLY = 0.5  # of all sources that a run asked a host for: if more are said to be lost, none of them is settled
# A reason that alone proves nothing: YouTube says it of videos that are gone, and of good ones to guests it dislikes.
DOUBT = "unavailable"
NOT_MEDIA = "not_media"  # a page in the place of media, which may be a login
BAD_COPY = "bad_copy"  # reason of a lab's own file that is no good: no word of the source's host
AFTER = 1 << 20  # as the number of an attempt: after all others of its run; such a row repeats what was known

# What an answer says of its host: media came, it is not for us, an error, the source is lost, we are refused.
WELL, RESTRICTED, FAILED, LOST, BLOCKED = range(5)
_KINDS = {
    Outcome.RESTRICTED.value: RESTRICTED,
    Outcome.TRANSIENT.value: FAILED,
    Outcome.GONE.value: LOST,
    Outcome.BLOCKED.value: BLOCKED,
}
# Without media, but with a word on them that would be taken as final, or is on some days.
_SAY_LOST = ((Outcome.UNUSABLE.value, NOT_MEDIA), (Outcome.TRANSIENT.value, DOUBT))
_PLACE = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>[^/?#]*)"
_HOST = re.compile(_PLACE)
_YOUTUBE = re.compile(r"(?:[a-z]+\.)?(?:youtube\.com|youtube-nocookie\.com|youtu\.be)(?::\d+)?")


def kind(outcome: str, reason: str) -> int:
    """What an answer says of its host."""
    return LOST if (outcome, reason) in _SAY_LOST else _KINDS.get(outcome, WELL)


def host(source: str) -> str:
    """Who answers for a source: a server, or a bucket; "" for a file on this machine."""
    match = _HOST.match(source)
    return _one_name(match["host"]) if match else ""


def is_storm(kinds: np.ndarray, lost_share: float = LOST_SHARE) -> bool:
    """Whether a window of answers is one; a run that is to bear more losses than usual says above which share."""
    count = len(kinds)
    blocked, lost = np.count_nonzero(kinds == BLOCKED), np.count_nonzero(kinds)
    if lost_share == LOST_SHARE and count >= IN_A_ROW and np.all(kinds[-IN_A_ROW:]):
        return True
    return count >= FEWEST and (blocked >= BLOCKED_SHARE * count or lost > lost_share * count)


def hindsight(attempts: pa.Table) -> np.ndarray:
    """Which attempts of the ledger brought no media in a storm.

    Args:
      attempts: all that were ever made: `run`, `attempt`, `clip_id`, `source`, `time`, `outcome` and `reason`.
    """
    kinds = _kinds(attempts)
    stormy = np.zeros(len(attempts), bool)
    if not np.any(kinds):
        return stormy
    sources = attempts["source"].combine_chunks().dictionary_encode()
    hosts = _hosts(sources.dictionary)[sources.indices.to_numpy()]
    rows = np.flatnonzero((hosts >= 0) & _is_answer(attempts))
    if not len(rows):
        return stormy
    run = attempts["run"].to_numpy().astype(np.int64)
    group = run * len(sources.dictionary) + sources.indices.to_numpy()  # what one run heard of one source
    time = pc.cast(attempts["time"], pa.int64()).to_numpy()
    rows = rows[np.lexsort((time[rows], group[rows]))]
    clips = attempts["clip_id"].combine_chunks().dictionary_encode()
    answers = _Answers(
        rows=rows, group=group[rows], run=run[rows], host=hosts[rows], time=time[rows], kinds=kinds[rows]
    )
    stormy[rows] = answers.in_storm(clips.indices.to_numpy()[rows], len(clips.dictionary))
    return stormy & (kinds > WELL)


class _Answers:
    """All answers, those of one run together, and in it those of one source, in the order of time."""

    def __init__(self, *, rows: np.ndarray, group: np.ndarray, run: np.ndarray, **columns: np.ndarray):
        self._starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        ends = np.concatenate([self._starts[1:], [len(rows)]])
        self._sizes = ends - self._starts
        self._run, self._host, self._time = run[ends - 1], columns["host"][ends - 1], columns["time"][ends - 1]
        # A source that gave media, to whichever attempt and for whichever clip, is there.
        is_well = np.minimum.reduceat(columns["kinds"], self._starts) == WELL
        self._kinds = np.where(is_well, WELL, columns["kinds"][ends - 1])

    def in_storm(self, clips: np.ndarray, num_clips: int) -> np.ndarray:
        """Of each row, whether it was heard in a storm; run by run, since one decides what the next one expects."""
        failing = np.zeros(num_clips, bool)
        stormy = np.zeros(len(self._starts), bool)
        bounds = np.flatnonzero(np.concatenate([[True], self._run[1:] != self._run[:-1], [True]]))
        for first, last in itertools.pairwise(bounds):
            groups = slice(first, last)
            begin, end = self._starts[first], self._starts[last - 1] + self._sizes[last - 1]
            expected = np.logical_and.reduceat(failing[clips[begin:end]], self._starts[groups] - begin)
            stormy[groups] = self._of_run(groups, expected & (self._kinds[groups] > WELL))
            settled = np.repeat(~stormy[groups], self._sizes[groups])
            is_lost = np.repeat(self._kinds[groups] > WELL, self._sizes[groups])
            failing[clips[begin:end][settled]] = is_lost[settled]
        return np.repeat(stormy, self._sizes)

    def _of_run(self, groups: slice, expected: np.ndarray) -> np.ndarray:
        host, time, kinds = self._host[groups], self._time[groups], self._kinds[groups]
        stormy = np.zeros(len(host), bool)
        news = np.flatnonzero(~expected)
        news = news[np.lexsort((time[news], host[news]))]
        begins = np.flatnonzero(np.concatenate([[True], host[news][1:] != host[news][:-1]])) if len(news) else []
        for one in np.split(news, begins[1:]):
            if len(one) >= FEWEST and (first := _storm_begins(kinds[one])) is not None:
                stormy |= (host == host[one[0]]) & (time >= time[one[first]]) & (kinds > WELL)
        return stormy


def _storm_begins(kinds: np.ndarray) -> int | None:
    """Which answer of a host's is the first of a storm, or None."""
    if np.count_nonzero(kinds == LOST) > MOSTLY * len(kinds):
        return 0
    ends = np.arange(FEWEST, len(kinds) + 1)
    begins, rows = np.maximum(ends - WINDOW, 0), np.maximum(ends - IN_A_ROW, 0)
    lost, blocked = (np.concatenate([[0], np.cumsum(of)]) for of in (kinds > WELL, kinds == BLOCKED))
    is_many = lost[ends] - lost[begins] > LOST_SHARE * (ends - begins)
    is_many |= blocked[ends] - blocked[begins] >= BLOCKED_SHARE * (ends - begins)
    found = np.concatenate([begins[is_many], rows[lost[ends] - lost[rows] == IN_A_ROW]])
    return int(found.min()) if len(found) else None


def _kinds(attempts: pa.Table) -> np.ndarray:
    """As `kind`, of all."""
    outcomes = attempts["outcome"].combine_chunks().dictionary_encode()
    kinds = np.array([_KINDS.get(outcome, WELL) for outcome in outcomes.dictionary.to_pylist()], np.int8)
    kinds = kinds[outcomes.indices.to_numpy()] if len(kinds) else kinds
    for outcome, reason in _SAY_LOST:
        kinds[pc.and_(pc.equal(attempts["outcome"], outcome), pc.equal(attempts["reason"], reason)).to_numpy()] = LOST
    return kinds


def _is_answer(attempts: pa.Table) -> np.ndarray:
    repeated = pc.equal(attempts["attempt"], AFTER)
    return ~pc.or_(repeated, pc.equal(attempts["reason"], BAD_COPY)).to_numpy()


def _hosts(sources: pa.StringArray) -> np.ndarray:
    """The number of each source's host; -1 where it is a file on this machine."""
    found = pc.extract_regex(sources, _PLACE)
    names = pc.struct_field(found, "host").dictionary_encode()
    one_name = [_one_name(name) for name in names.dictionary.to_pylist()]
    numbers = {name: number for number, name in enumerate(sorted(set(one_name)))}
    of_name = np.array([numbers[name] for name in one_name] + [-1])
    return of_name[pc.fill_null(names.indices, len(one_name)).to_numpy()]


def _one_name(name: str) -> str:
    """YouTube has many."""
    name = name.lower()
    return "youtube.com" if _YOUTUBE.fullmatch(name) else name
