"""What there is to do: clips, videos and seconds, by what the annotations, the ledger and the disk say."""

import dataclasses
import os

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import dataset as datasets
from mbt.pipeline import known, ledger, media, plan, snapshot
from mbt.pipeline.sources import is_url
from mbt.pipeline.youtube import video_id
from mbt.schemas.clip import MICROSECONDS, Outcome

_LOSSES = (Outcome.GONE, Outcome.RESTRICTED, Outcome.UNUSABLE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Clips of the annotations.

    Attributes:
      splits: valid rows by split.
      shards: by split.
      invalid: rows that cannot be clips.
      seconds: of all valid rows.
      local: clips whose source is a file on this machine.
      missing: of these, clips whose file is not there.
      there: clips that were fetched before.
      lost: clips that were tried and are settled without media, by outcome.
      tried: clips by the ledger's newest word, of those outcomes that say something of the clip: ok, gone, restricted
        and unusable.
      attempts: rows of the ledger.
      left: clips to fetch.
      videos: their sources.
      youtube: of these, videos on YouTube.
      built: records of the newest snapshot, by the encoder of today.
      reencoded: its clips, where another encoder made them.
    """

    splits: dict[str, int]
    shards: dict[str, int]
    invalid: int
    seconds: float
    local: int
    missing: int
    there: int
    lost: dict[str, int]
    tried: dict[str, int]
    attempts: int
    left: int
    videos: int
    youtube: int
    built: int
    reencoded: int = 0

    @property
    def clips(self) -> int:
        """All valid rows."""
        return sum(self.splits.values())


def of(valid: pa.Table, invalid: pa.Table, root: str, num_shards: int | None) -> Counts:
    """Counts these clips.

    Args:
      valid: the clips.
      invalid: rows that cannot be clips.
      root: of the dataset, which may not have been begun.
      num_shards: per split, or None for the default.
    """
    state = ledger.state(root)
    found, remote = known.of(valid, state), known.is_remote(valid)
    rows = known.to_fetch(valid, state, media.listing(root), run=0)
    rows = rows.filter(pc.and_(known.is_remote(rows), pc.equal(rows["copy"], "")))
    sources = pc.unique(rows["source"]).to_pylist()
    there = pc.and_(known.is_there(found), remote)
    # Those whose media went missing are fetched again.
    again = pc.sum(pc.not_equal(rows["known_digest"], "")).as_py() or 0
    tried = _by_outcome(found.filter(remote), there.filter(remote))
    length_us = pc.subtract(pc.sum(valid["end_us"]), pc.sum(valid["start_us"])).as_py() or 0
    return Counts(
        splits=_by_split(valid),
        shards=_shards(valid, root, num_shards),
        invalid=len(invalid),
        seconds=length_us / MICROSECONDS,
        local=len(valid) - (pc.sum(remote).as_py() or 0),
        missing=_missing(valid.filter(pc.invert(remote))),
        there=(pc.sum(there).as_py() or 0) - again,
        lost=_settled(tried, rows),
        tried=tried,
        attempts=len(ledger.read(root, ["run"])),
        left=len(rows),
        videos=len(sources),
        youtube=sum(is_url(source) and video_id(source) is not None for source in sources),
        built=_built(root),
    )


def _by_split(valid: pa.Table) -> dict[str, int]:
    counts = valid.group_by("split").aggregate([([], "count_all")]).to_pylist()
    return {row["split"]: row["count_all"] for row in sorted(counts, key=lambda row: row["split"])}


def _shards(valid: pa.Table, root: str, num_shards: int | None) -> dict[str, int]:
    existing = datasets.read(root)
    counts = {split: num_shards or count for split, count in plan.num_shards(valid).items()}
    counts |= {split: count for split, count in (existing.num_shards if existing else {}).items() if split in counts}
    return dict(sorted(counts.items()))


def _missing(local: pa.Table) -> int:
    """Clips whose file is not on this machine."""
    sources = pc.unique(local["source"]).to_pylist()
    gone = pa.array([source for source in sources if not os.path.exists(source)], pa.string())
    return pc.sum(pc.is_in(local["source"], value_set=gone)).as_py() or 0


def _by_outcome(found: pa.Table, there: pa.ChunkedArray) -> dict[str, int]:
    counts = {Outcome.OK.value: pc.sum(there).as_py() or 0}
    for outcome in _LOSSES:
        without = pc.and_(pc.equal(found["outcome"], outcome.value), pc.invert(there))
        counts[outcome.value] = pc.sum(without).as_py() or 0
    return counts


def _settled(tried: dict[str, int], rows: pa.Table) -> dict[str, int]:
    """Of the clips that were tried in vain, those that nobody will try again."""
    again = {outcome.value: pc.sum(pc.equal(rows["known_outcome"], outcome.value)).as_py() or 0 for outcome in _LOSSES}
    return {name: tried[name] - count for name, count in again.items() if tried[name] > count}


def _built(root: str) -> int:
    newest = snapshot.latest(root)
    return sum(split.num_records for split in newest.splits.values()) if newest else 0
