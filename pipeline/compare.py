"""What changed between two snapshots: records gained, lost and relabelled, and why.

A side is held as a column of ids and a few numbers a clip; no row of it ever becomes a Python object.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mbt.pipeline import catalogue, storage
from mbt.pipeline import dataset as datasets
from mbt.pipeline.terminal import by_count, columns, percent, shown
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import FormatError, Manifest

NOT_ANNOTATED = "not annotated"
_COLUMNS = ("id", "split", "outcome", "reason", "start_us", "end_us", "labels")
_CLASSES_SHOWN = 10
_RECORD = -1  # instead of a reason
_LARGE = pa.large_string()  # ids of all rows together may exceed 2 GiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `mbt-data diff` was told.

    Attributes:
      root: of the dataset.
      before: name of a snapshot, or `latest`, `latest~1`, ...
      after: of another.
      common: where to write the clips common to both; None for nowhere.
    """

    root: str
    before: str
    after: str
    common: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassChange:
    """Records of a class in a split, before and after."""

    label: str
    before: int
    after: int

    @property
    def lost(self) -> int:
        """How many fewer there are."""
        return self.before - self.after


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitDiff:
    """What changed in one split.

    Attributes:
      before: records.
      after: records.
      gained: number of new records, by why they were none before.
      lost: number of records that are none any more, by why.
      relabelled: records in both whose labels differ.
      respanned: records in both that are another span of their source; they are not common.
      common: records in both, of the same span.
      classes: those whose count changed or that have records, the greatest loss first.
    """

    before: int
    after: int
    gained: dict[str, int]
    lost: dict[str, int]
    relabelled: int
    respanned: int
    common: int
    classes: tuple[ClassChange, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diff:
    """What changed between two snapshots.

    Attributes:
      before: the one.
      after: the other.
      splits: what changed, by split.
      reencoded: settings of the encoder that differ, where another one made the records of the other.
      common_path: where the clips common to both were written.
    """

    before: Manifest
    after: Manifest
    splits: dict[str, SplitDiff]
    reencoded: tuple[str, ...] = ()
    common_path: str | None = None

    def to_json(self) -> dict:
        """For machines; classes that did not change are left out."""
        return {
            "before": {"snapshot": self.before.snapshot, "created": self.before.created},
            "after": {"snapshot": self.after.snapshot, "created": self.after.created},
            "splits": {name: _split_json(split) for name, split in self.splits.items()},
            "reencoded": list(self.reencoded),
            "common": self.common_path,
        }

    def to_text(self) -> str:
        """For a person."""
        lines = [f"{self.before.snapshot} -> {self.after.snapshot}"]
        if self.reencoded:
            more = f" and {len(self.reencoded) - 1} more differ" if len(self.reencoded) > 1 else " differs"
            lines.append(f"re-encoded: another encoder made all records anew ({self.reencoded[0]}{more})")
        for name, split in self.splits.items():
            lines += _split_text(name, split)
        if self.common_path:
            count = sum(split.common for split in self.splits.values())
            lines.append(f"{count} clips common to both: {self.common_path}")
            lines.append(f"score a model on them: mbt-train evaluate --workdir=DIR --clips={self.common_path}")
        return "\n".join(lines)


def diff(options: Options) -> Diff:
    """Compares two snapshots.

    Raises:
      CatalogueError: one of them is not there.
    """
    known = catalogue.snapshots(options.root)
    before, after = (catalogue.find(known, name) for name in (options.before, options.after))
    names = _Names(before, after)
    one, other = (_Side(options.root, manifest, names) for manifest in (before, after))
    pairs = _Pairs(one, other)
    splits = {split: _split_diff(split, one, other, pairs, names) for split in names.splits}
    if options.common:
        storage.write(options.common, _as_csv(other, pairs.common, names))
    return Diff(
        before=before,
        after=after,
        splits=splits,
        reencoded=_reencoded(options.root, before, after),
        common_path=options.common,
    )


def _reencoded(root: str, before: Manifest, after: Manifest) -> tuple[str, ...]:
    """In which settings the encoders of two snapshots differ."""
    try:
        dataset = datasets.read(root)
        if dataset is None:
            return ()
        one, other = dataset.as_of(before), dataset.as_of(after)
    except (datasets.DatasetError, FormatError) as error:
        raise catalogue.CatalogueError(str(error)) from error
    return () if one.identity == other.identity else tuple(datasets.changed(one, other))


class _Names:
    """Numbers for the names that both sides use.

    Attributes:
      splits: of either side.
      labels: of either side.
      reasons: "outcome/reason" of either side; grows while the sides are read.
    """

    def __init__(self, before: Manifest, after: Manifest):
        self.splits = sorted(before.splits.keys() | after.splits.keys())
        self.labels = list(dict.fromkeys([*before.labels, *after.labels]))
        self.reasons = [NOT_ANNOTATED]
        self._reason_codes = {NOT_ANNOTATED: 0}

    def reason_codes(self, rows: pa.RecordBatch) -> np.ndarray:
        """(rows,) int32: `_RECORD`, or a position in `reasons`."""
        texts = pc.binary_join_element_wise(rows["outcome"], pc.fill_null(rows["reason"], ""), "/")
        encoded = texts.dictionary_encode()
        codes = [self._reason_code(text) for text in encoded.dictionary.to_pylist()]
        return np.array(codes, np.int32)[encoded.indices.to_numpy()]

    def _reason_code(self, text: str) -> int:
        if text.startswith(f"{Outcome.OK}/"):
            return _RECORD
        if text not in self._reason_codes:
            self._reason_codes[text] = len(self.reasons)
            self.reasons.append(text)
        return self._reason_codes[text]


class _Side:
    """A clip table as numbers. R rows.

    Attributes:
      ids: (R,) strings.
      split: (R,) int32, position in the names' splits, -1 for none.
      reason: (R,) int32, see `_Names.reason_codes`.
      span: (R, 2) int64, microseconds.
      label_ends: (R + 1,) int64, where each row's labels end in `labels`; row r's begin at entry r.
      labels: int32, positions in the names' labels, ascending within a row.
    """

    def __init__(self, root: str, manifest: Manifest, names: _Names):
        splits, labels = pa.array(names.splits, pa.string()), pa.array(names.labels, pa.string())
        parts: dict[str, list] = collections.defaultdict(list)
        for rows in catalogue.clip_batches(root, manifest, _COLUMNS):
            parts["ids"].append(rows["id"].cast(_LARGE))
            parts["split"].append(_codes(rows["split"], splits))
            parts["reason"].append(names.reason_codes(rows))
            parts["span"].append(np.stack([rows["start_us"].to_numpy(), rows["end_us"].to_numpy()], axis=1))
            lengths, codes = _label_codes(rows["labels"], labels)
            parts["lengths"].append(lengths)
            parts["labels"].append(codes)
        empty = np.zeros(0, np.int32)
        self.ids = pa.chunked_array(parts.pop("ids", []), _LARGE).combine_chunks()
        self.split, self.reason, self.labels = (
            np.concatenate([empty, *parts.pop(name, [])]) for name in ("split", "reason", "labels")
        )
        self.span = np.concatenate([np.zeros((0, 2), np.int64), *parts.pop("span", [])])
        self.label_ends = np.concatenate([[0], np.cumsum(np.concatenate([empty, *parts.pop("lengths", [])]))])

    @property
    def records(self) -> np.ndarray:
        """Rows that are records."""
        return np.flatnonzero((self.reason == _RECORD) & (self.split >= 0))

    def why_absent(self, ids: pa.Array) -> np.ndarray:
        """(ids,) int32: why clips that are no records here are none, as a position in the reasons."""
        rows = np.flatnonzero(self.reason != _RECORD)
        places = _codes(ids, self.ids.take(rows))
        return np.where(places >= 0, self.reason[rows][places] if len(rows) else 0, 0)

    def class_counts(self, split: int, num_labels: int) -> np.ndarray:
        """(labels,) records of each class in a split."""
        rows = self.records
        rows = rows[self.split[rows] == split]
        _, positions = _ragged(self.label_ends, rows)
        codes = self.labels[positions]
        return np.bincount(codes[codes >= 0], minlength=num_labels)


class _Pairs:
    """Which rows of two sides are one clip.

    Attributes:
      common: rows of the second side that are records in both, in one split and of one span.
      respanned: likewise, of another span.
      relabelled: likewise, of either span, with other labels.
      moved: (rows of the first, rows of the second side) of records that changed split.
      gained: rows of the second side that are no records in the first.
      lost: rows of the first side that are no records in the second.
      gained_reasons: (gained,) why they were none, as positions in the reasons.
      lost_reasons: (lost,) why they are none.
    """

    def __init__(self, one: _Side, other: _Side):
        first, second = one.records, other.records
        places = _codes(other.ids.take(second), one.ids.take(first))
        rows, partners = second[places >= 0], first[places[places >= 0]]
        stayed = one.split[partners] == other.split[rows]
        self.moved = partners[~stayed], rows[~stayed]
        rows, partners = rows[stayed], partners[stayed]
        same_span = (one.span[partners] == other.span[rows]).all(axis=1)
        self.common, self.respanned = rows[same_span], rows[~same_span]
        self.relabelled = rows[_labels_differ(one, partners, other, rows)]
        self.gained = second[places < 0]
        self.lost = np.delete(first, places[places >= 0])
        self.gained_reasons = one.why_absent(other.ids.take(self.gained))
        self.lost_reasons = other.why_absent(one.ids.take(self.lost))


def _codes(values: pa.Array, value_set: pa.Array) -> np.ndarray:
    """(values,) int32: where each stands in the set; -1 for nowhere."""
    return pc.fill_null(pc.index_in(values, value_set=value_set), -1).to_numpy()


def _label_codes(lists: pa.ListArray, labels: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) number of labels of each, and all their codes, ascending within a row."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    keys = np.repeat(np.arange(len(lists)), lengths) * (len(labels) + 1) + _codes(lists.flatten(), labels) + 1
    keys.sort()
    return lengths, (keys % (len(labels) + 1) - 1).astype(np.int32)


def _ragged(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the values of some rows: which of these rows each belongs to, and where it stands."""
    lengths = ends[rows + 1] - ends[rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    before = np.cumsum(lengths) - lengths
    return owner, np.arange(len(owner)) - before[owner] + ends[rows][owner]


def _labels_differ(one: _Side, rows: np.ndarray, other: _Side, partners: np.ndarray) -> np.ndarray:
    """(rows,) of bool: whether the sets of labels differ."""
    differ = np.diff(one.label_ends)[rows] != np.diff(other.label_ends)[partners]
    alike = np.flatnonzero(~differ)
    owner, here = _ragged(one.label_ends, rows[alike])
    _, there = _ragged(other.label_ends, partners[alike])
    differ[alike[owner[one.labels[here] != other.labels[there]]]] = True
    return differ


def _split_diff(name: str, one: _Side, other: _Side, pairs: _Pairs, names: _Names) -> SplitDiff:
    split = names.splits.index(name)
    gained = pairs.gained_reasons[other.split[pairs.gained] == split]
    lost = pairs.lost_reasons[one.split[pairs.lost] == split]
    from_row, to_row = pairs.moved
    here = other.split[to_row] == split
    away = one.split[from_row] == split
    before, after = (side.class_counts(split, len(names.labels)) for side in (one, other))
    return SplitDiff(
        before=int((one.split[one.records] == split).sum()),
        after=int((other.split[other.records] == split).sum()),
        gained=_counted(gained, names.reasons) | _counted(one.split[from_row[here]], names.splits, "was in "),
        lost=_counted(lost, names.reasons) | _counted(other.split[to_row[away]], names.splits, "now in "),
        relabelled=int((other.split[pairs.relabelled] == split).sum()),
        respanned=int((other.split[pairs.respanned] == split).sum()),
        common=int((other.split[pairs.common] == split).sum()),
        classes=tuple(_class_changes(before, after, names.labels)),
    )


def _counted(codes: np.ndarray, names: Sequence[str], prefix: str = "") -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names))
    return {f"{prefix}{names[code]}": int(counts[code]) for code in np.flatnonzero(counts).tolist()}


def _class_changes(before: np.ndarray, after: np.ndarray, labels: Sequence[str]) -> Iterator[ClassChange]:
    for code in np.lexsort((np.arange(len(labels)), after - before)).tolist():
        if before[code] or after[code]:
            yield ClassChange(label=labels[code], before=int(before[code]), after=int(after[code]))


def _as_csv(side: _Side, rows: np.ndarray, names: _Names) -> bytes:
    """The clips as a file of `split,id`, sorted, so that the same clips are the same bytes."""
    splits = pa.array(names.splits, pa.string()).take(side.split[rows])
    table = pa.table({"split": splits, "id": side.ids.take(rows)})
    sink = pa.BufferOutputStream()
    csv.write_csv(table.sort_by([("split", "ascending"), ("id", "ascending")]), sink)
    return sink.getvalue().to_pybytes()


def _split_json(split: SplitDiff) -> dict:
    changed = [change for change in split.classes if change.lost]
    return dataclasses.asdict(split) | {
        "gained": {"count": sum(split.gained.values()), "by_reason": split.gained},
        "lost": {"count": sum(split.lost.values()), "by_reason": split.lost},
        "classes": [dataclasses.asdict(change) for change in changed],
    }


def _split_text(name: str, split: SplitDiff) -> Iterator[str]:
    gained, lost = sum(split.gained.values()), sum(split.lost.values())
    yield (
        f"{name}: {split.before} -> {split.after} records; {gained} gained, {lost} lost, "
        f"{split.relabelled} relabelled, {split.respanned} of another span, {split.common} common"
    )
    for title, counts in (("gained, and why they were missing", split.gained), ("lost, and why", split.lost)):
        if counts:
            yield f"  {title}"
            yield from (f"  {count:>10}  {shown(reason)}" for reason, count in by_count(counts))
    yield from _class_text(split.classes)


def _class_text(classes: Sequence[ClassChange]) -> Iterator[str]:
    fewer = [change for change in classes if change.lost > 0]
    more = sum(change.lost < 0 for change in classes)
    gone = sum(change.after == 0 for change in fewer)
    if fewer:
        yield "  classes that lost most"
        rows = [
            (shown(each.label), str(each.before), "->", str(each.after), f"-{percent(each.lost, each.before)}")
            for each in fewer[:_CLASSES_SHOWN]
        ]
        yield from (f"    {line}" for line in columns(rows))
    if fewer or more:
        yield f"  of {len(classes)} classes {len(fewer)} have fewer records ({gone} none any more), {more} have more"
