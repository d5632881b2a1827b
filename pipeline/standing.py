"""How far a dataset's fetching is: outcomes per split, reasons, and the time that is left."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import catalogue, known, ledger, lost_source, media, snapshot
from mbt.pipeline.reasons import RULES
from mbt.schemas.clip import Outcome
from mbt.schemas.index import FIRST_RULES

COMMONEST = 10
# What another run would try again without waiting for the world to change.
_LEFT = (Outcome.NOT_TRIED, Outcome.TRANSIENT, Outcome.BLOCKED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Counts of clips.

    Attributes:
      splits: by split, by outcome; rows whose split could not be read stand under "".
      reasons: by split, the commonest reasons (outcome, reason, clips) of clips that are not there.
      num_removed: clips that are there, but not online when they were last asked for.
      num_unanswered: clips that are there, and whose sources gave no answer when they were last asked for.
      num_missing: clips that are there, and whose media are not in the store any more.
      num_outdated: clips that older rules refused, and that the next build tries once more.
      num_old_cuts: clips whose media older rules cut out of their sources, which may be wrong.
      num_left: clips that another run would try, besides those that are restricted.
      clips_per_second: of the newest run, or None.
      notes: about the annotations.
    """

    splits: dict[str, dict[str, int]]
    reasons: dict[str, list[tuple[str, str, int]]]
    num_removed: int
    num_unanswered: int
    num_missing: int
    num_outdated: int
    num_old_cuts: int
    num_left: int
    clips_per_second: float | None
    notes: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no clip is there, although all were tried and another run would try some again."""
        hopes = (Outcome.OK, Outcome.NOT_TRIED)
        return bool(self.num_left) and not any(split[hope] for split in self.splits.values() for hope in hopes)

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the newest run."""
        return self.num_left / self.clips_per_second if self.clips_per_second else None


def of(valid: pa.Table, invalid: pa.Table, root: str, notes: tuple[str, ...], *, media_root: str) -> Status:
    """The status of these clips by the ledger in ROOT; the notes say where the first file was looked for in vain."""
    found = known.of(valid, ledger.state(root))
    there, store = known.is_there(found), media.listing(root)
    missing = pc.and_(pc.and_(there, known.is_remote(valid)), pc.invert(known.is_held(found, store)))
    tried = pc.if_else(pc.equal(found["outcome"], ""), Outcome.NOT_TRIED.value, found["outcome"])
    outcome = pc.if_else(there, Outcome.OK.value, tried)
    names = ("split", "outcome", "reason")
    rows = pa.concat_tables(
        [
            pa.table(dict(zip(names, (valid["split"], outcome, pc.if_else(there, "", found["reason"])), strict=True))),
            pa.table({name: invalid[name] for name in names}),
        ]
    )
    num_missing = _count(missing)
    outdated = known.is_outdated(found)
    may_be_built = pc.or_(there, pc.equal(found["outcome"], ""))
    counts = rows.group_by(list(names)).aggregate([([], "count_all")]).to_pylist()
    splits: dict[str, dict[str, int]] = {}
    reasons: dict[str, list[tuple[str, str, int]]] = {}
    for row in sorted(counts, key=lambda row: (row["split"], -row["count_all"], row["outcome"], row["reason"])):
        split = splits.setdefault(row["split"], dict.fromkeys((str(outcome) for outcome in Outcome), 0))
        split[row["outcome"]] += row["count_all"]
        if row["outcome"] not in (Outcome.OK, Outcome.NOT_TRIED):
            reasons.setdefault(row["split"], []).append((row["outcome"], row["reason"], row["count_all"]))
    return Status(
        splits=splits,
        reasons={split: found[:COMMONEST] for split, found in reasons.items()},
        num_missing=num_missing,
        num_removed=_count(known.is_removed(found)),
        num_unanswered=_count(known.is_unanswered(found)),
        num_outdated=_count(pc.or_(outdated, pc.and_(may_be_built, _is_refused(valid, root)))),
        num_old_cuts=_count(known.is_old_cut(found, store)),
        num_left=sum(split[outcome] for split in splits.values() for outcome in _LEFT) + num_missing + _count(outdated),
        clips_per_second=rate(root),
        notes=(*notes, *_absent(valid, outcome, found, media_root)),
    )


def _count(mask: pa.ChunkedArray) -> int:
    return pc.sum(mask).as_py() or 0


def _is_refused(valid: pa.Table, root: str) -> pa.ChunkedArray:
    """Which clips are no records of the newest snapshot because older rules refused them."""
    newest = snapshot.latest(root)
    if newest is None:
        return pa.chunked_array([pa.repeat(False, len(valid))])
    rows = catalogue.clip_table(root, newest, ["id", "outcome", "rule"])
    rules = rows["rule"] if "rule" in rows.column_names else pa.chunked_array([pa.repeat(FIRST_RULES, len(rows))])
    refused = pc.and_(pc.equal(rows["outcome"], Outcome.UNUSABLE.value), pc.less(rules, RULES))
    return pc.is_in(valid["id"], value_set=rows.filter(refused)["id"].combine_chunks())


def _absent(valid: pa.Table, outcome: pa.ChunkedArray, found: pa.Table, media_root: str) -> tuple[str, ...]:
    """What is said of files of this machine that are not there."""
    missing = pc.equal(found["reason"], lost_source.MISSING)
    missing = pc.and_(pc.and_(missing, pc.equal(outcome, Outcome.TRANSIENT.value)), pc.invert(known.is_remote(valid)))
    if not pc.any(missing).as_py():
        return ()
    rows = valid.select(["id", "file", "line", "source"]).filter(missing)
    for name, column in (("outcome", outcome), ("reason", found["reason"]), ("detail", found["detail"])):
        rows = rows.append_column(name, column.filter(missing))
    return (lost_source.said(rows, valid, media_root),)


def rate(root: str) -> float | None:
    """Clips that the newest run ended with per second."""
    attempts = ledger.read(root, ["run", "clip_id", "time"])
    if not len(attempts):
        return None
    newest = attempts.filter(pc.equal(attempts["run"], pc.max(attempts["run"])))
    first, last = (pc.cast(bound(newest["time"]), pa.int64()).as_py() for bound in (pc.min, pc.max))
    clips = pc.count_distinct(newest["clip_id"]).as_py()
    return clips / ((last - first) / 1e6) if last > first else None
