"""What the page says, computed: every number and chart that the template puts in its place."""

import dataclasses
import datetime
from collections.abc import Sequence

import numpy as np

from mbt.pipeline.catalogue import CatalogueError
from mbt.pipeline.report import charts
from mbt.pipeline.tally import DURATION_EDGES_S, SIZE_EDGES_BYTES, SplitTally
from mbt.pipeline.terminal import by_count, percent
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Manifest

# More rows than these would make the page large and slow; what is left out is said.
MOST_CLASSES = 5000
MOST_REASONS = 40
_LOSSES_SHOWN = 20
_MOST_LETTERS = 80  # of a name; longer ones are cut, and say so by their end
_SNAPSHOTS_IN_TABLE = 30

MEANING: dict[str, str] = {
    Outcome.GONE: "the source no longer exists",
    Outcome.RESTRICTED: "it exists, but not for us",
    Outcome.BLOCKED: "we were refused or throttled",
    Outcome.TRANSIENT: "an error that may pass",
    Outcome.UNUSABLE: "the file cannot be a clip",
    Outcome.INVALID: "the annotated row itself is wrong",
    Outcome.NOT_TRIED: "not reached",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reason:
    """Why clips are missing; `counts` are in the order of the splits, `width` is in percent of the largest."""

    outcome: str
    reason: str
    meaning: str
    counts: tuple[int, ...]
    total: int
    width: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassView:
    """A class: annotated clips, records, and records in the order of the splits."""

    label: str
    clips: int
    records: int
    by_split: tuple[int, ...]

    @property
    def lost(self) -> int:
        """Clips that are no records."""
        return self.clips - self.records

    @property
    def there(self) -> float:
        """Share of the clips that are records, in percent."""
        return 100 * self.records / self.clips if self.clips else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """A snapshot in the table of all; `shares` are in the order of the splits."""

    snapshot: str
    created: str
    shares: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page that the manifest does not say, but the clips."""

    manifest: Manifest
    created: str
    availability: charts.Chart
    history: tuple[History, ...]
    older_snapshots: int
    reasons: tuple[Reason, ...]
    other_reasons: int
    classes: tuple[ClassView, ...]
    other_classes: int
    balance: charts.Chart
    largest_class: int
    median_class: float
    smallest_class: int
    empty_classes: int
    losses: tuple[ClassView, ...]
    durations: charts.Chart
    sizes: charts.Chart


def page(manifest: Manifest, known: Sequence[Manifest], counts: dict[str, SplitTally]) -> Page:
    """The page of a snapshot.

    Args:
      manifest: of the snapshot.
      known: all snapshots of the dataset, the oldest first.
      counts: of its clip table, by split.
    """
    classes = _classes(manifest, counts)
    sizes = np.array([each.records for each in classes] or [0])
    reasons = _reasons(manifest)
    before = known[: [other.snapshot for other in known].index(manifest.snapshot) + 1]
    return Page(
        manifest=manifest,
        created=f"{_time(manifest):%Y-%m-%d %H:%M} UTC",
        availability=_availability(manifest, before),
        history=tuple(_history(manifest, other) for other in before[: -_SNAPSHOTS_IN_TABLE - 1 : -1]),
        older_snapshots=max(0, len(before) - _SNAPSHOTS_IN_TABLE),
        reasons=reasons[:MOST_REASONS],
        other_reasons=sum(reason.total for reason in reasons[MOST_REASONS:]),
        classes=classes[:MOST_CLASSES],
        other_classes=max(0, len(classes) - MOST_CLASSES),
        balance=charts.ranking("Records of each class, the largest class first", sizes),
        largest_class=int(sizes.max()),
        median_class=float(np.median(sizes)),
        smallest_class=int(sizes.min()),
        empty_classes=int((sizes == 0).sum()) if classes else 0,
        losses=_losses(classes),
        durations=_durations(counts),
        sizes=_sizes(counts),
    )


def cut(text: str) -> str:
    """A name from the annotations at a length that lets the page stay small, whatever somebody wrote there."""
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _availability(manifest: Manifest, known: Sequence[Manifest]) -> charts.Chart:
    shares = {name: [_share(other, name) for other in known] for name in manifest.splits}
    return charts.over_time("Share of the annotated clips that are records", [_time(each) for each in known], shares)


def _share(manifest: Manifest, name: str) -> float | None:
    split = manifest.splits.get(name)
    return 100 * split.num_records / split.num_clips if split and split.num_clips else None


def _history(manifest: Manifest, other: Manifest) -> History:
    splits = (other.splits.get(name) for name in manifest.splits)
    return History(
        snapshot=other.snapshot,
        created=f"{_time(other):%Y-%m-%d %H:%M}",
        shares=tuple(percent(split.num_records, split.num_clips) if split else "-" for split in splits),
    )


def _reasons(manifest: Manifest) -> tuple[Reason, ...]:
    totals: dict[str, int] = {}
    for split in manifest.splits.values():
        for name, number in split.lost.items():
            totals[name] = totals.get(name, 0) + number
    most = max(totals.values(), default=1)
    return tuple(_reason(manifest, name, total, 100 * total / most) for name, total in by_count(totals))


def _reason(manifest: Manifest, name: str, total: int, width: float) -> Reason:
    outcome, _, reason = name.partition("/")
    return Reason(
        outcome=outcome,
        reason=reason.replace("_", " "),
        meaning=MEANING.get(outcome, ""),
        counts=tuple(split.lost.get(name, 0) for split in manifest.splits.values()),
        total=total,
        width=width,
    )


def _classes(manifest: Manifest, counts: dict[str, SplitTally]) -> tuple[ClassView, ...]:
    """All classes with annotated clips, the most records first."""
    clips = sum((each.clips for each in counts.values()), np.zeros(len(manifest.labels), np.int64))
    records = np.array([each.records for each in counts.values()]).reshape(len(counts), -1)
    total = records.sum(axis=0)
    ranked = np.lexsort((np.arange(len(total)), -clips, -total))
    return tuple(
        ClassView(
            label=manifest.labels[code],
            clips=int(clips[code]),
            records=int(total[code]),
            by_split=tuple(records[:, code].tolist()),
        )
        for code in ranked.tolist()
        if clips[code]
    )


def _losses(classes: Sequence[ClassView]) -> tuple[ClassView, ...]:
    ranked = sorted((each for each in classes if each.lost), key=lambda each: (-each.lost, each.there, each.label))
    return tuple(ranked[:_LOSSES_SHOWN])


def _durations(counts: dict[str, SplitTally]) -> charts.Chart:
    edges = ["longer" if np.isinf(edge) else f"{edge:g}" for edge in DURATION_EDGES_S]
    bins = {name: each.durations for name, each in counts.items()}
    return charts.histogram("Lengths of the records, as they were annotated", bins, edges, "seconds")


def _sizes(counts: dict[str, SplitTally]) -> charts.Chart:
    edges = ["more" if np.isinf(edge) else _binary_size(edge) for edge in SIZE_EDGES_BYTES]
    return charts.histogram("Sizes of the records", {name: each.sizes for name, each in counts.items()}, edges, "bytes")


def _binary_size(count: float) -> str:
    return f"{count / (1 << 20):.3g}M" if count >= 1 << 20 else f"{count / 1024:.3g}k" if count else "0"


def _time(manifest: Manifest) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(manifest.created)
    except ValueError as error:
        raise CatalogueError(f"snapshot {manifest.snapshot}: created {manifest.created!r} is not a time") from error
