"""A dataset whose records another encoder made: what it takes to make them again, said before anything is done."""

import dataclasses
import os
import sys

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import catalogue, known, ledger, media, snapshot
from mbt.pipeline import dataset as datasets
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.options import Options
from mbt.schemas.manifest import Dataset, Manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What is to be made again.

    Attributes:
      snapshot: name of the newest one, which another encoder made.
      differs: in what that and this one differ.
      num_clips: of its shards, that are still annotated.
      lacking: ids of those whose media are not there: released, deleted, lost.
      num_old_cuts: of those whose media older rules cut out of their sources.
    """

    snapshot: str
    differs: str
    num_clips: int
    lacking: tuple[str, ...]
    num_old_cuts: int

    def __str__(self) -> str:
        such = f", such as {self.lacking[0]!r}" if self.lacking else ""
        cuts = (
            f"; {self.num_old_cuts} have media that an older rule cut, which may be wrong: mbt-data fetch --recut "
            "fetches them again, if it is done before"
        )
        return (
            f"snapshot {self.snapshot} was made by another encoder ({self.differs}): {self.num_clips} clips are to be "
            f"re-encoded, and {len(self.lacking)} of them lack media{such}{cuts if self.num_old_cuts else ''}"
        )


def check(options: Options, valid: pa.Table, existing: Dataset | None, dataset: Dataset) -> None:
    """Says how many clips are re-encoded; what that would fetch or lose is done only where it was asked for.

    Raises:
      RefusedError: media are lacking, or it is a refresh, and nobody said `--reencode`.
    """
    found = survey(options.root, valid, existing, dataset)
    if found is None:
        return
    if options.reencode:
        print(f"mbt-data: {found}", file=sys.stderr)
    elif found.lacking:
        raise RefusedError(
            f"{found}. --reencode fetches these again, and loses those that are not to be had any more; "
            "the mbt-flax that made the snapshot goes on without"
        )
    elif options.recheck is not None:
        raise RefusedError(f"{found}. A refresh does that if it is told to: say --reencode")
    else:
        print(f"mbt-data: {found}", file=sys.stderr)


def survey(root: str, valid: pa.Table, existing: Dataset | None, dataset: Dataset) -> Survey | None:
    """What is to be made again of these clips; None where the encoder is that of the newest snapshot, or there is none.

    Args:
      root: of the dataset.
      valid: the clips.
      existing: the dataset that is there.
      dataset: what a build would make of it.
    """
    parent = snapshot.latest(root)
    if existing is None or parent is None or existing.as_of(parent).identity == dataset.identity:
        return None
    return _survey(root, valid, parent, existing.as_of(parent), dataset)


def _survey(root: str, valid: pa.Table, parent: Manifest, before: Dataset, after: Dataset) -> Survey:
    rows = catalogue.clip_table(root, parent, ["id", "inputs"])
    in_shards = rows.filter(pc.is_valid(rows["inputs"]))["id"].combine_chunks()
    clips = valid.filter(pc.is_in(valid["id"], value_set=in_shards))
    found, store = known.of(clips, ledger.state(root)), media.listing(root)
    return Survey(
        snapshot=parent.snapshot,
        differs=_difference(before, after),
        num_clips=len(clips),
        lacking=tuple(clips.filter(_lack_media(clips, found, store))["id"].to_pylist()),
        num_old_cuts=pc.sum(known.is_old_cut(found, store)).as_py() or 0,
    )


def _difference(before: Dataset, after: Dataset) -> str:
    """In what two encoders differ. ffmpeg stands first, and by its version: a forgotten `--ffmpeg` is enough."""
    names = sorted(datasets.changed(before, after), key=lambda name: (name != "ffmpeg", name))
    more = len(names) - 1
    if names[0] != "ffmpeg":
        return f"{names[0]} and {more} more differ" if more else f"{names[0]} differs"
    versions = f"ffmpeg {before.encoder['ffmpeg']}, and this is {after.encoder['ffmpeg']}"
    return f"{versions}; {more} more differ" if more else f"{versions}: --ffmpeg=PATH names the one to use"


def _lack_media(clips: pa.Table, found: pa.Table, store: dict[str, str]) -> pa.ChunkedArray:
    """Which clips' media are neither in the store nor, of a local source, in place."""
    stored = pa.array(list(store.values()), pa.string())
    remote = known.is_remote(clips)
    local = pc.unique(clips.filter(pc.invert(remote))["source"]).to_pylist()
    in_place = pa.array([path for path in local if os.path.isfile(path)], pa.string())
    there = pc.if_else(
        remote, pc.is_in(found["media"], value_set=stored), pc.is_in(clips["source"], value_set=in_place)
    )
    return pc.invert(there)
