"""Storms: refusal is a property of a source's host, seen in its answers together, and not of one clip.

A server that is down, throttles or wants a login says of every clip what it also says of one that is lost. So answers
are judged by host, while a run goes on (`breaker`) and in hindsight over the ledger (`hindsight`): what was heard in a
storm settles nothing. Only news counts. A clip that failed before, when its host was well, is expected to fail again:
else a run over what an earlier one left, which is hardly anything but failures, would always look like a storm.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mbt.schemas.clip import Outcome

WINDOW = 40  # sources of a host that count as recent
FEWEST = 12  # before a share means anything
BLOCKED_SHARE = 0.5  # of a window, from which on it is a storm
LOST_SHARE = 0.8  # of a window, above which it is one, whatever the failures are
IN_A_ROW = 20  # that fail are one too, in the middle of a run that went well: by chance, of a host that lost half, 1e-6
MOSTLY = 0.5  # of all sources that a run asked a host for, 12 or more: if more are said to be lost, none is settled
FEWEST_GONE = 2  # of the sources of a host that was asked for fewer than `FEWEST`, before most of them say something
# A reason that alone proves nothing: YouTube says it of videos that are gone, and of good ones to guests it dislikes.
DOUBT = "unavailable"
NOT_MEDIA = "not_media"  # a page in the place of media, which may be a login
# What a server gives that cuts off or mangles all its files, under lengths that agree with it.
DAMAGED = ("truncated", "decode_failed", "decode_errors", "no_frames_or_sound")
BAD_COPY = "bad_copy"  # reason of a lab's own file that is no good: no word of the source's host
AFTER = 1 << 20  # as the number of an attempt: after all others of its run; such a row repeats what was known

# What an answer says of its host: media came, it is not for us, an error, the source is lost or gone, we are refused.
WELL, RESTRICTED, FAILED, LOST, GONE, BLOCKED = range(6)
_KINDS = {
    Outcome.RESTRICTED.value: RESTRICTED,
    Outcome.TRANSIENT.value: FAILED,
    Outcome.GONE.value: GONE,
    Outcome.BLOCKED.value: BLOCKED,
}
# Without media, but with a word on them that would be taken as final, or is on some days.
_SAY_LOST = (*((Outcome.UNUSABLE.value, reason) for reason in (NOT_MEDIA, *DAMAGED)), (Outcome.TRANSIENT.value, DOUBT))
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
    return bool(count >= FEWEST and (blocked >= BLOCKED_SHARE * count or lost > lost_share * count))


@dataclasses.dataclass(frozen=True)
class Hindsight:
    """What is known of attempts once their run is over.

    Attributes:
      in_storm: which brought no media in a storm: their run gave up their host, or most of what it asked the host for
        was said to be lost.
      mostly_gone: which said of a source that it is gone, of a host that said so of most, but of too few for a storm.
    """

    in_storm: np.ndarray
    mostly_gone: np.ndarray


def hindsight(attempts: pa.Table, stopped: Mapping[int, Collection[str]]) -> Hindsight:
    """Looks back at the attempts of the ledger.

    Args:
      attempts: all that were ever made: `run`, `attempt`, `clip_id`, `source`, `outcome` and `reason`.
      stopped: of each run, the hosts that it gave up.
    """
    kinds = _kinds(attempts)
    stormy, gone = np.zeros(len(attempts), bool), np.zeros(len(attempts), bool)
    if not np.any(kinds):
        return Hindsight(stormy, gone)
    sources = attempts["source"].combine_chunks().dictionary_encode()
    names, of_source = _hosts(sources.dictionary)
    hosts = of_source[sources.indices.to_numpy()]
    rows = np.flatnonzero((hosts >= 0) & _is_answer(attempts))
    if not len(rows):
        return Hindsight(stormy, gone)
    runs = attempts["run"].to_numpy().astype(np.int64)
    # What one run heard of one source; of the two or three attempts in it the last.
    group = runs * len(sources.dictionary) + sources.indices.to_numpy()
    rows = rows[np.lexsort((attempts["attempt"].to_numpy()[rows], group[rows]))]
    clips = attempts["clip_id"].combine_chunks().dictionary_encode()
    answers = _Answers(group[rows], runs[rows], hosts[rows], kinds[rows])
    given_up = {run: [names.index(host) for host in found if host in names] for run, found in stopped.items()}
    stormy[rows], gone[rows] = answers.judged(clips.indices.to_numpy()[rows], len(clips.dictionary), given_up)
    return Hindsight(stormy & (kinds > WELL), gone & (kinds == GONE))


class _Answers:
    """Rows of the ledger, those of one run together, and in it those of one source."""

    def __init__(self, group: np.ndarray, runs: np.ndarray, hosts: np.ndarray, kinds: np.ndarray):
        self._starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        ends = np.concatenate([self._starts[1:], [len(group)]])
        self._sizes = ends - self._starts
        self._runs, self._hosts = runs[ends - 1], hosts[ends - 1]
        # A source that gave media, to whichever attempt and for whichever clip, is there.
        self._kinds = np.where(np.minimum.reduceat(kinds, self._starts) == WELL, WELL, kinds[ends - 1])

    def judged(
        self, clips: np.ndarray, num_clips: int, given_up: Mapping[int, Sequence[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the two of `Hindsight`; run by run, since one decides what the next one expects."""
        failing = np.zeros(num_clips, bool)
        stormy, gone = np.zeros(len(self._starts), bool), np.zeros(len(self._starts), bool)
        bounds = np.flatnonzero(np.concatenate([[True], self._runs[1:] != self._runs[:-1], [True]]))
        for first, last in itertools.pairwise(bounds):
            groups = slice(first, last)
            begin, end = self._starts[first], self._starts[last - 1] + self._sizes[last - 1]
            is_lost = self._kinds[groups] > WELL
            expected = is_lost & np.logical_and.reduceat(failing[clips[begin:end]], self._starts[groups] - begin)
            hosts = self._mostly_lost(groups, expected)
            hosts[given_up.get(int(self._runs[first]), [])] = True
            stormy[groups] = hosts[self._hosts[groups]] & is_lost
            gone[groups] = self._mostly_gone(groups, expected)[self._hosts[groups]] & (self._kinds[groups] == GONE)
            settled = np.repeat(~(stormy | gone)[groups], self._sizes[groups])
            failing[clips[begin:end][settled]] = np.repeat(is_lost, self._sizes[groups])[settled]
        return np.repeat(stormy, self._sizes), np.repeat(gone, self._sizes)

    def _mostly_lost(self, groups: slice, expected: np.ndarray) -> np.ndarray:
        """Of each host, whether it said of most sources that they are lost."""
        asked, lost = self._counts(groups, ~expected, (LOST, GONE))
        return (asked >= FEWEST) & (lost > MOSTLY * asked)

    def _mostly_gone(self, groups: slice, expected: np.ndarray) -> np.ndarray:
        """Of each host that was asked for few sources, whether it said of most that they are gone.

        What is expected counts too: of a few there is no past that could be told from the present.
        """
        found = np.zeros(self._hosts.max() + 1, bool)
        for counted in (~expected, np.ones_like(expected)):
            asked, gone = self._counts(groups, counted, (GONE,))
            found |= (asked < FEWEST) & (gone >= FEWEST_GONE) & (gone > MOSTLY * asked)
        return found

    def _counts(self, groups: slice, counted: np.ndarray, of_kinds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of each host, how many sources it was asked for, and how many answers were of these kinds."""
        hosts, kinds = self._hosts[groups][counted], self._kinds[groups][counted]
        some = hosts[np.isin(kinds, of_kinds)]
        return np.bincount(hosts, minlength=self._hosts.max() + 1), np.bincount(some, minlength=self._hosts.max() + 1)


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


def _hosts(sources: pa.StringArray) -> tuple[list[str], np.ndarray]:
    """All hosts, and of each source its host's place among them; -1 where it is a file on this machine."""
    found = pc.extract_regex(sources, _PLACE)
    names = pc.struct_field(found, "host").dictionary_encode()
    one_name = [_one_name(name) for name in names.dictionary.to_pylist()]
    hosts = list(dict.fromkeys(one_name))
    places = {name: place for place, name in enumerate(hosts)}
    of_name = np.array([places[name] for name in one_name] + [-1])
    return hosts, of_name[pc.fill_null(names.indices, len(one_name)).to_numpy()]


def _one_name(name: str) -> str:
    """YouTube has many."""
    name = name.lower()
    return "youtube.com" if _YOUTUBE.fullmatch(name) else name
