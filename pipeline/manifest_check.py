"""Whether a manifest agrees with the dataset, with its clip table, and with its shards."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import snapshot, storage
from mbt.pipeline.shard_check import Problem
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import CLIPS_FILE, DATASET_FILE, MANIFEST_FILE, Dataset, Manifest, Split
from mbt.schemas.statistics import Statistics


def check(
    root: str, dataset: Dataset, manifest: Manifest, table: pa.Table | None, damaged: set[str]
) -> Iterator[Problem]:
    """All that does not agree.

    Args:
      root: of the dataset.
      dataset: what is fixed for all its snapshots.
      manifest: of a snapshot.
      table: its clip table, where that can be read.
      damaged: paths of shards of which nothing is known.
    """
    named = (manifest.snapshot,)
    path = f"{snapshot.FOLDER}/{manifest.snapshot}/{MANIFEST_FILE}"
    for detail in _against_dataset(dataset, manifest):
        yield Problem(file=DATASET_FILE, detail=detail, snapshots=named)
    for name, split in manifest.splits.items():
        if table is not None and not _has_counts(split, table.filter(pc.equal(table["split"], name))):
            detail = f"its counts of the split {name} are not those of {CLIPS_FILE}"
            yield Problem(file=path, detail=detail, snapshots=named)
        whole = all(shard.path not in damaged for shard in split.shards)
        if whole and not _has_statistics(root, split, manifest.labels):
            detail = f"its statistics of the split {name} are not those of the shards"
            yield Problem(file=path, detail=detail, snapshots=named)


def _against_dataset(dataset: Dataset, manifest: Manifest) -> Iterator[str]:
    """What would give a label or a shard another meaning in the next snapshot."""
    if dataset.labels[: len(manifest.labels)] != manifest.labels:
        yield "its labels do not begin with the manifest's"
    if any(len(split.shards) != dataset.num_shards.get(name) for name, split in manifest.splits.items()):
        yield "its numbers of shards are not the manifest's"


def _has_counts(split: Split, rows: pa.Table) -> bool:
    outcomes = rows.group_by(["outcome", "reason"]).aggregate([([], "count_all")]).to_pylist()
    lost = {f"{row['outcome']}/{row['reason']}": row["count_all"] for row in outcomes}
    num_records = lost.pop(f"{Outcome.OK}/", 0)
    said = (split.num_clips, split.num_records, split.lost, split.treatments)
    there = (len(rows), num_records, lost, snapshot.treatments(rows))
    return said == there and num_records == sum(shard.num_records for shard in split.shards)


def _has_statistics(root: str, split: Split, labels: tuple[str, ...]) -> bool:
    statistics = Statistics()
    for shard in split.shards:
        index = shard_index.load(storage.read(storage.join(root, shard.index_path)))
        statistics.add(Statistics.of(index))
    if any(label >= len(labels) for label in statistics.labels):
        return False
    return all(getattr(split, name) == value for name, value in statistics.of_split(labels).items())
