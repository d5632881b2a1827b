"""`mbt-data list` and `mbt-data show`: which snapshots there are, and all that is known of one."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mbt.pipeline import catalogue, tally
from mbt.pipeline.terminal import between, by_count, columns, length, percent, shown, size
from mbt.schemas.manifest import Manifest

_EXTREMES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What `mbt-data show` was told: the dataset's root, and the name of a snapshot."""

    root: str
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One snapshot in the list.

    Attributes:
      snapshot: its name.
      created: UTC time, ISO 8601.
      parent: name of the one before, or None.
      clips: annotated.
      records: clips that became records.
      bytes: of its shards.
      shared_bytes: of the shards that its parent has too; None where there is no parent any more.
    """

    snapshot: str
    created: str
    parent: str | None
    clips: int
    records: int
    bytes: int
    shared_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """All snapshots, the oldest first."""

    lines: tuple[Line, ...]

    def to_json(self) -> dict:
        """For machines."""
        return {"snapshots": [dataclasses.asdict(line) for line in self.lines]}

    def to_text(self) -> str:
        """For a person."""
        header = ("snapshot", "created (UTC)", "parent", "clips", "records", "size", "shared with parent")
        return "\n".join(columns([header, *map(_cells, self.lines)], left=3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Clips and records of a class."""

    label: str
    clips: int
    records: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitShown:
    """All that is known of one split.

    Attributes:
      clips: annotated.
      records: clips that became records.
      shards: files.
      bytes: of them.
      seconds: length of all records.
      shortest_s: of the shortest record.
      longest_s: of the longest.
      lost: number of lost clips by "outcome/reason".
      treatments: records by how their media were treated beyond the usual.
      mel_mean: of all spectrogram values.
      mel_stddev: likewise.
      classes: that have annotated clips.
      empty_classes: of these, how many have no record.
      most: the classes with the most records.
      fewest: those with the fewest.
    """

    clips: int
    records: int
    shards: int
    bytes: int
    seconds: float
    shortest_s: float
    longest_s: float
    lost: dict[str, int]
    treatments: dict[str, int]
    mel_mean: float
    mel_stddev: float
    classes: int
    empty_classes: int
    most: tuple[ClassCount, ...]
    fewest: tuple[ClassCount, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """All that is known of one snapshot."""

    line: Line
    manifest: Manifest
    clips_path: str
    splits: dict[str, SplitShown]

    def to_json(self) -> dict:
        """For machines."""
        manifest = self.manifest
        return dataclasses.asdict(self.line) | {
            "dataset": manifest.dataset,
            "labels": len(manifest.labels),
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
            "unassigned": manifest.unassigned,
            "annotations_sha256": manifest.annotations_sha256,
            "clips_sha256": manifest.clips_sha256,
            "clips_path": self.clips_path,
            "tool_versions": manifest.tool_versions,
        }

    def to_text(self) -> str:
        """For a person."""
        return "\n".join(_shown_lines(self))


def list_snapshots(root: str) -> Listing:
    """All snapshots of a dataset.

    Raises:
      CatalogueError: there is none.
    """
    known = catalogue.snapshots(root)
    by_name = {manifest.snapshot: manifest for manifest in known}
    return Listing(lines=tuple(_line(manifest, by_name.get(manifest.parent or "")) for manifest in known))


def show(options: ShowOptions) -> Shown:
    """One snapshot.

    Raises:
      CatalogueError: it is not there, or its clip table is damaged.
    """
    known = catalogue.snapshots(options.root)
    manifest = catalogue.find(known, options.name)
    parent = next((other for other in known if other.snapshot == manifest.parent), None)
    rows = catalogue.clip_batches(options.root, manifest, tally.COLUMNS)
    counts = tally.count(rows, manifest.splits, manifest.labels)
    return Shown(
        line=_line(manifest, parent),
        manifest=manifest,
        clips_path=catalogue.clips_path(options.root, manifest),
        splits={name: _split_shown(manifest, name, counts[name]) for name in manifest.splits},
    )


def _shard_sizes(manifest: Manifest) -> dict[str, int]:
    """Paths of a snapshot's shards, with their sizes in bytes."""
    return {shard.path: shard.bytes for split in manifest.splits.values() for shard in split.shards}


def _line(manifest: Manifest, parent: Manifest | None) -> Line:
    sizes = _shard_sizes(manifest)
    shared = _shard_sizes(parent).keys() & sizes.keys() if parent else set()
    return Line(
        snapshot=manifest.snapshot,
        created=manifest.created,
        parent=manifest.parent,
        clips=manifest.num_clips,
        records=manifest.num_records,
        bytes=manifest.bytes,
        shared_bytes=sum(sizes[path] for path in shared) if parent else None,
    )


def _cells(line: Line) -> tuple[str, ...]:
    shared = "-" if line.shared_bytes is None else percent(line.shared_bytes, line.bytes)
    created = line.created[:19].replace("T", " ")
    return line.snapshot, created, line.parent or "-", str(line.clips), str(line.records), size(line.bytes), shared


def _split_shown(manifest: Manifest, name: str, counts: tally.SplitTally) -> SplitShown:
    split = manifest.splits[name]
    annotated = np.flatnonzero(counts.clips)
    ranked = annotated[np.argsort(-counts.records[annotated], kind="stable")]
    return SplitShown(
        clips=split.num_clips,
        records=split.num_records,
        shards=len(split.shards),
        bytes=split.bytes,
        seconds=split.seconds,
        shortest_s=split.shortest_s,
        longest_s=split.longest_s,
        lost=split.lost,
        treatments=split.treatments,
        mel_mean=split.mel_mean,
        mel_stddev=split.mel_stddev,
        classes=len(annotated),
        empty_classes=int((counts.records[annotated] == 0).sum()),
        most=_class_counts(manifest, counts, ranked[:_EXTREMES]),
        fewest=_class_counts(manifest, counts, ranked[::-1][:_EXTREMES]),
    )


def _class_counts(manifest: Manifest, counts: tally.SplitTally, codes: np.ndarray) -> tuple[ClassCount, ...]:
    return tuple(
        ClassCount(label=manifest.labels[code], clips=int(counts.clips[code]), records=int(counts.records[code]))
        for code in codes
    )


def _shown_lines(view: Shown) -> Iterator[str]:
    manifest, line = view.manifest, view.line
    yield f"snapshot   {manifest.snapshot} of {manifest.dataset}"
    yield f"created    {line.created}"
    if line.parent:
        shared = "no longer there" if line.shared_bytes is None else f"{percent(line.shared_bytes, line.bytes)} shared"
        yield f"parent     {line.parent} ({shared})"
    yield f"clips      {line.clips}, of which {line.records} are records: {percent(line.records, line.clips)}"
    yield f"size       {size(line.bytes)}"
    yield f"labels     {len(manifest.labels)}"
    yield f"clip table {view.clips_path}"
    for name, split in view.splits.items():
        yield from _split_lines(name, split)
    if manifest.unassigned:
        yield "rows whose split could not be read"
        yield from _reason_lines(manifest.unassigned)
    yield f"made with  {', '.join(f'{tool} {version}' for tool, version in manifest.tool_versions.items())}"


def _split_lines(name: str, split: SplitShown) -> Iterator[str]:
    yield (
        f"{name}: {split.clips} clips, {split.records} records ({percent(split.records, split.clips)}), "
        f"{length(split.seconds)} ({between(split.shortest_s, split.longest_s)} each), "
        f"{split.shards} shards, {size(split.bytes)}"
    )
    yield from _reason_lines(split.lost)
    yield from (f"  {count} clips {shown(word)}" for word, count in by_count(split.treatments))
    yield f"  spectrogram mean {split.mel_mean:.4f}, standard deviation {split.mel_stddev:.4f}"
    yield f"  {split.classes} classes, {split.empty_classes} of them without a record"
    for title, classes in (("most", split.most), ("fewest", split.fewest)):
        texts = (f"{shown(each.label)} {each.records} of {each.clips}" for each in classes)
        yield f"  {title:<6}  {', '.join(texts)}"


def _reason_lines(lost: dict[str, int]) -> Iterator[str]:
    yield from (f"  {count:>10}  {shown(reason)}" for reason, count in by_count(lost))
