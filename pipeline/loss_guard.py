"""The guard before publication: a split does not shrink for what says nothing about its clips.

That is: clips that were refused to us, met an error that may pass, were not reached, or whose local files are not
there; what was heard in a storm, which the ledger calls transient; and what is gone by the word of a host that said so
of most. Any other clip that is gone, restricted or cannot be used is lost as it should be, and so is a row that
left the list.
"""

import dataclasses
import math
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import catalogue, lost_source, snapshot
from mbt.pipeline.errors import IncompleteError
from mbt.pipeline.terminal import by_count
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Manifest

NEW_SHARE = 0.1  # of a split's list: clips that no snapshot has accounted for yet
OLD_SHARE = 0.02  # of the records that the snapshot before has in a split
OLD_CLIPS = 3  # may always be lost of those, where they are no more than `NEW_SHARE`
DAMAGED = "damaged"  # of media that came again, and lay damaged in the store again
_OF_DECODING = ["too_slow", "out_of_memory", DAMAGED]
_PASSING = [Outcome.BLOCKED.value, Outcome.TRANSIENT.value, Outcome.NOT_TRIED.value]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """What a split would lose to causes that may pass.

    Attributes:
      split: its name.
      clips: of the list.
      new: lost clips that the snapshot before had not accounted for.
      records: of the split in the snapshot before.
      old: lost clips that are records there.
    """

    split: str
    clips: int
    new: int
    records: int = 0
    old: int = 0

    def is_excessive(self, allowed: float | None = None) -> bool:
        """Whether it is more than that share, or than the defaults."""
        return self.of_list(allowed) or self.of_records(allowed)

    def of_list(self, allowed: float | None = None) -> bool:
        """Whether too much of the list is lost."""
        return self.new > _whole((NEW_SHARE if allowed is None else allowed) * self.clips)

    def of_records(self, allowed: float | None = None) -> bool:
        """Whether too many records are."""
        if allowed is not None:
            return self.old > _whole(allowed * self.records)
        few = min(OLD_CLIPS, _whole(NEW_SHARE * self.records))
        return self.old > max(few, _whole(OLD_SHARE * self.records))

    @property
    def share(self) -> float:
        """That must be allowed, in whole percents."""
        share = max(self.new / self.clips, self.old / max(1, self.records))
        return min(1.0, math.ceil(100 * share - 1e-9) / 100)


def _whole(clips: float) -> int:
    return int(clips + 1e-9)  # 0.29 of 100 is a bit under 29


def check(table: pa.Table, root: str, *, allowed: float | None, media_root: str) -> None:
    """Refuses to publish what would lose too much, or have no record.

    Args:
      table: the valid rows of the list, with what became of each.
      root: of the dataset.
      allowed: share that was allowed to be lost, or None for the defaults.
      media_root: where relative paths begin.

    Raises:
      IncompleteError: it would.
    """
    passing = table.filter(is_passing(table))
    parent = snapshot.latest(root) if len(passing) else None
    every = list(losses(table, passing, root, parent))
    if found := [loss for loss in every if loss.is_excessive(allowed)]:
        rows = passing.filter(pc.is_in(passing["split"], value_set=pa.array([loss.split for loss in found])))
        raise IncompleteError(
            f"nothing was published, for too many clips are only out of reach: {_said(found, allowed)}. "
            f"{lost_source.said(rows, table, media_root)} The same command goes on when that is mended; to publish "
            f"without them, say --allow_loss={max(loss.share for loss in every):.2f}"
        )
    check_records(table, pc.sum(pc.equal(table["outcome"], Outcome.OK.value)).as_py() or 0, media_root)


def check_records(table: pa.Table, num_records: int, media_root: str) -> None:
    """Refuses to publish nothing at all.

    Args:
      table: as in `check`, with the clips that cannot be used.
      num_records: that there would be.
      media_root: where relative paths begin.

    Raises:
      IncompleteError: none.
    """
    if not num_records:
        rows = table.group_by(["outcome", "reason"]).aggregate([([], "count_all")]).to_pylist()
        counts = by_count({f"{row['outcome']}/{row['reason']}": row["count_all"] for row in rows})
        why = ", ".join(f"{count} {reason}" for reason, count in counts[:3])
        passing = table.filter(is_passing(table))
        first = lost_source.said(passing if len(passing) else table, table, media_root)
        raise IncompleteError(f"nothing was published, for no clip would be a record ({why}). {first}")


def losses(table: pa.Table, passing: pa.Table, root: str, parent: Manifest | None) -> Iterator[Loss]:
    """What each split would lose, for those that would lose anything."""
    if not len(passing):
        return
    accounted, records = _in_parent(passing["id"].combine_chunks(), root, parent)
    clips = _counts(table)
    new = _counts(passing.filter(pc.invert(pc.is_in(passing["id"], value_set=accounted))))
    old = _counts(passing.filter(pc.is_in(passing["id"], value_set=records)))
    for split in sorted(new | old):
        num_records = parent.splits[split].num_records if parent and split in parent.splits else 0
        lost = {"new": new.get(split, 0), "old": old.get(split, 0)}
        yield Loss(split=split, clips=clips[split], records=num_records, **lost)


def is_passing(table: pa.Table) -> pa.ChunkedArray:
    """Which clips are not there for a cause that may pass.

    Not those that came and cannot be decoded today, such as one that takes too long: a clip blocks none but itself. Of
    more than `OLD_CLIPS` in a split it is the machine that is to blame.
    """
    came = _came(table)
    counts = _counts(table.filter(came))
    many = pa.array([split for split, count in counts.items() if count > OLD_CLIPS], pa.string())
    own = pc.and_(came, pc.invert(pc.is_in(table["split"], value_set=many)))
    passing = pc.or_(pc.is_in(table["outcome"], value_set=pa.array(_PASSING)), table["mostly_gone"])
    return pc.and_(passing, pc.invert(own))


def _came(table: pa.Table) -> pa.ChunkedArray:
    """Which clips came, and cannot be decoded here and now."""
    decoding = pc.is_in(table["reason"], value_set=pa.array(_OF_DECODING))
    return pc.and_(decoding, pc.not_equal(table["digest"], ""))


def _in_parent(clips: pa.Array, root: str, parent: Manifest | None) -> tuple[pa.Array, pa.Array]:
    """Of these clips, those that the snapshot before accounted for, and those that are records there."""
    accounted: list[str] = []
    records: list[str] = []
    try:
        for batch in catalogue.clip_batches(root, parent, ("id", "outcome")) if parent else ():
            found = batch.filter(pc.is_in(batch["id"], value_set=clips))
            accounted += found["id"].to_pylist()
            records += found.filter(pc.equal(found["outcome"], Outcome.OK.value))["id"].to_pylist()
    except catalogue.CatalogueError:  # a damaged table, which this build replaces
        pass
    return pa.array(accounted, pa.string()), pa.array(records, pa.string())


def _counts(table: pa.Table) -> dict[str, int]:
    rows = table.group_by("split").aggregate([([], "count_all")]).to_pylist()
    return {row["split"]: row["count_all"] for row in rows}


def _said(found: list[Loss], allowed: float | None) -> str:
    words = []
    for loss in found:
        if loss.of_list(allowed):
            lost, most = f"{loss.new} of {loss.clips} clips", NEW_SHARE if allowed is None else allowed
        else:
            lost, most = f"{loss.old} of {loss.records} records", OLD_SHARE if allowed is None else allowed
        words.append(f"{loss.split} would lack {lost} (over {100 * most:.3g} %)")
    return ", ".join(words)
