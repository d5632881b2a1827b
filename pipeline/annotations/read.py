"""The user's selection to clip rows: limits, classes, and how much damage is admitted."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

from mbt.pipeline.annotations import (
    as500k,
    audioset,
    epic_kitchens,
    kinetics,
    label_map,
    moments,
    plain_csv,
    vggsound,
    video_paths,
)
from mbt.pipeline.annotations.clip_lists import Lists
from mbt.pipeline.annotations.rows import AnnotationsError, Row, at
from mbt.pipeline.annotations.selection import Selection

__all__ = ["DATASETS", "Annotations", "Selection", "read"]

_MODULES: dict[str, Callable[[Selection], Lists]] = {
    "csv": plain_csv.find,
    "audioset": audioset.find,
    "as500k": as500k.find,
    "vggsound": vggsound.find,
    "kinetics": kinetics.find,
    "epic_kitchens": epic_kitchens.find,
    "moments": moments.find,
}
DATASETS: tuple[str, ...] = tuple(_MODULES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotations:
    """Annotations whose files have been looked into.

    Attributes:
      labels: the label map in index order, or None: the labels in use, sorted.
      notes: sentences for the user.
      read_rows: starts reading the rows.
    """

    labels: tuple[str, ...] | None
    notes: tuple[str, ...]
    read_rows: Callable[[], Iterator[Row]]

    def rows(self) -> Iterator[Row]:
        """The rows, file by file, in the order of their lines; may be called again.

        Raises:
          AnnotationsError: more rows are damaged than is admitted, or a file is cut off.
        """
        return self.read_rows()


def read(selection: Selection) -> Annotations:
    """Finds out what the files are, from their names and first lines, and reads label maps.

    Raises:
      AnnotationsError: a file is missing or of another kind, or the dataset, a class or an option is not known.
    """
    if selection.dataset not in _MODULES:
        raise AnnotationsError(f"there is no dataset {selection.dataset!a}; known are {', '.join(DATASETS)}")
    if selection.videos is not None and selection.dataset != "epic_kitchens":
        raise AnnotationsError("--videos is for epic_kitchens only")
    video_paths.check_media_root(selection.media_root)
    found = _MODULES[selection.dataset](selection)
    wanted = label_map.wanted(selection.classes, found)
    return Annotations(
        labels=found.labels, notes=found.notes, read_rows=functools.partial(_rows, selection, found, wanted)
    )


def _rows(selection: Selection, found: Lists, wanted: frozenset[str]) -> Iterator[Row]:
    """The rows that are wanted; the first `limit` of each file."""
    damage = _Damage(_max_bad_rows(selection))
    for each in found.lists:
        taken = (row for row in damage.admitted(each.file.path, each.rows()) if _has(row, wanted))
        yield from itertools.islice(taken, selection.limit)


def _has(row: Row, wanted: frozenset[str]) -> bool:
    """Whether the row has a wanted label, or may have had one before it was damaged."""
    return not wanted or bool(row.reason) or not wanted.isdisjoint(row.clip.labels)


def _max_bad_rows(selection: Selection) -> int | None:
    if selection.max_bad_rows is None and selection.dataset != "csv":
        return 0
    return selection.max_bad_rows


class _Damage:
    """Counts damaged rows over all files, and ends the reading where there are too many."""

    def __init__(self, max_bad_rows: int | None):
        self._max = max_bad_rows
        self._seen = 0

    def admitted(self, path: str, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, up to one damaged row too many."""
        for row in rows:
            if row.reason:
                self._seen += 1
                if self._max is not None and self._seen > self._max:
                    raise AnnotationsError(self._message(path, row))
            yield row

    def _message(self, path: str, row: Row) -> str:
        place = at(path, row)
        if self._max:
            return f"{place}. That is damaged row {self._seen}, more than --max_bad_rows={self._max} admits"
        return f"{place}. Download the official file again, or admit N damaged rows with --max_bad_rows=N"
