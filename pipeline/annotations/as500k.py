"""AS500k: a class-balanced half million of AudioSet for training, by a recipe of our own; docs/datasets.md states it.

AudioSet's balanced list is part of it; the rest is drawn from the unbalanced list, always for the class that has the
fewest clips so far.
"""

import dataclasses
import functools
import hashlib
import heapq
from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from mbt.pipeline.annotations import audioset
from mbt.pipeline.annotations.audioset import NUM_CLASSES, Classes
from mbt.pipeline.annotations.clip_lists import ClipList, Lists
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, Row
from mbt.pipeline.annotations.selection import Selection

NUM_CLIPS = 500_000
SPLIT = "train"


def find(selection: Selection) -> Lists:
    """AudioSet's balanced and unbalanced lists and, if there, `eval`.

    Raises:
      AnnotationsError: as for AudioSet; or one of the two lists is missing.
    """
    classes, segment_files = audioset.sort_files(selection.files)
    by_split: dict[str, list[NamedFile]] = {}
    for file in segment_files:
        by_split.setdefault(audioset.split_of(file), []).append(file)
    for split in ("balanced_train", "unbalanced_train"):
        if split not in by_split:
            raise AnnotationsError(f"as500k wants {split}_segments.csv too: it draws from both training lists")
    balanced, unbalanced = by_split.pop("balanced_train"), by_split.pop("unbalanced_train")
    rest = [(file, split) for split, others in by_split.items() for file in others]
    drawing = _Drawing(balanced, unbalanced, classes)
    return Lists(
        lists=(
            *(audioset.clip_list(file, SPLIT, classes) for file in balanced),
            *(drawing.clip_list(file) for file in unbalanced),
            *(audioset.clip_list(file, split, classes) for file, split in rest),
        ),
        labels=classes.names,
        aliases=audioset.aliases(classes),
    )


class _Drawing:
    """The draw, made when the first of its rows is asked for."""

    def __init__(self, balanced: Sequence[NamedFile], unbalanced: Sequence[NamedFile], classes: Classes):
        self._balanced = balanced
        self._unbalanced = unbalanced
        self._classes = classes

    def clip_list(self, file: NamedFile) -> ClipList:
        """The part of the draw that comes from one unbalanced list."""
        audioset.clip_list(file, SPLIT, self._classes)  # looks at its first lines
        return ClipList(file=file, rows=functools.partial(self._rows, file))

    def _rows(self, file: NamedFile) -> Iterator[Row]:
        yield from audioset.segments(file, SPLIT, self._classes, self._lines[file])

    @functools.cached_property
    def _lines(self) -> dict[NamedFile, bytearray]:
        """For each unbalanced list, by line number: 1 for what is drawn, and for damage, which is to be counted."""
        pool = Pool(self._classes.names)
        for file in self._balanced:
            pool.add(audioset.segments(file, SPLIT, self._classes))
        num_balanced = len(pool)
        added = {file: pool.add(audioset.segments(file, SPLIT, self._classes)) for file in self._unbalanced}
        drawn = draw(pool, num_balanced, NUM_CLIPS)
        lines, first = {}, num_balanced
        for file, read in added.items():
            lines[file] = read.chosen(drawn[first : first + len(read.lines)])
            first += len(read.lines)
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Read:
    """Line numbers of one file: of its clips, and of its damaged rows."""

    lines: array
    damaged: array

    def chosen(self, drawn: np.ndarray) -> bytearray:
        """By line number, 1 for drawn clips and damaged rows."""
        flags = np.zeros(max((*self.lines[-1:], *self.damaged[-1:]), default=0) + 1, np.uint8)
        flags[np.asarray(self.lines)[drawn]] = 1
        flags[np.asarray(self.damaged)] = 1
        return bytearray(flags.tobytes())


class Pool:
    """Clips to draw from, in 50 bytes or so each.

    Attributes:
      digests: SHA-256 of the clips' ids, one after the other.
      labels: label indices of all clips, one after the other.
      ends: for each clip, where its labels end in `labels`.
    """

    def __init__(self, names: Sequence[str]):
        self._indices = {name: index for index, name in enumerate(names)}
        self.digests = bytearray()
        self.labels = array("H")
        self.ends = array("L")

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, rows: Iterator[Row]) -> _Read:
        """Adds the valid rows of one file."""
        read = _Read(lines=array("L"), damaged=array("L"))
        for row in rows:
            if row.reason:
                read.damaged.append(row.line)
                continue
            read.lines.append(row.line)
            self.digests += hashlib.sha256(row.clip.id.encode()).digest()
            self.labels.extend([self._indices[label] for label in row.clip.labels])
            self.ends.append(len(self.labels))
        return read


def draw(pool: Pool, num_balanced: int, wanted: int) -> np.ndarray:
    """Draws clips, each time one of the class with the lowest count.

    Args:
      pool: the clips that are in already, then those to draw from.
      num_balanced: how many are in already.
      wanted: how many different clips there are to be in all.

    Returns:
      (len(pool),) bool, True for what was drawn.

    Raises:
      AnnotationsError: there are not as many.
    """
    order = _by_digest(pool.digests)
    first = _first_of_id(pool.digests, order)
    queue, begins = _queues(pool, order)
    counts = _counts(pool, first, num_balanced)
    closed, drawn = bytearray((~first).tobytes()), np.zeros(len(pool), bool)
    closed[:num_balanced] = b"\1" * num_balanced
    places, ends, labels = list(begins[:-1]), [0, *pool.ends], pool.labels
    missing = wanted - int(first[:num_balanced].sum())
    heap = [(count, label) for label, count in enumerate(counts)]
    heapq.heapify(heap)
    while missing > 0 and heap:
        count, label = heap[0]
        place, end = places[label], begins[label + 1]
        while place < end and closed[queue[place]]:
            place += 1
        places[label] = place
        if count != counts[label]:  # it has grown since with clips of other classes
            heapq.heapreplace(heap, (counts[label], label))
        elif place == end:
            heapq.heappop(heap)
        else:
            clip = queue[place]
            closed[clip] = drawn[clip] = True
            missing -= 1
            for each in labels[ends[clip] : ends[clip + 1]]:
                counts[each] += 1
    if missing > 0:
        raise AnnotationsError(
            f"as500k wants {wanted} clips, and the lists hold only {wanted - missing} different ones: is "
            "unbalanced_train_segments.csv complete?"
        )
    return drawn


def _by_digest(digests: bytearray) -> np.ndarray:
    """Indices of clips in the order of their digests; of equal ones in the order in which they came."""
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    return np.lexsort([words[:, word] for word in (3, 2, 1, 0)])


def _first_of_id(digests: bytearray, order: np.ndarray) -> np.ndarray:
    """(n,) bool, False for a clip whose id an earlier one has."""
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)[order]
    first = np.ones(len(order), bool)
    first[order[1:]] = (words[1:] != words[:-1]).any(axis=1)
    return first


def _queues(pool: Pool, order: np.ndarray) -> tuple[array, list[int]]:
    """For class after class, the clips that have it, in the order of their digests; and where each class begins."""
    lengths = np.diff(np.array([0, *pool.ends]))
    clips = np.repeat(np.arange(len(pool), dtype=np.uint32), lengths)
    ranks = np.empty(len(pool), np.uint32)
    ranks[order] = np.arange(len(pool), dtype=np.uint32)
    labels = np.asarray(pool.labels)
    by_label = np.lexsort((ranks[clips], labels))
    begins = np.searchsorted(labels[by_label], np.arange(NUM_CLASSES + 1))
    return array("I", clips[by_label].tobytes()), begins.tolist()


def _counts(pool: Pool, first: np.ndarray, num_balanced: int) -> list[int]:
    """For each class, how many of the clips that are in already have it."""
    counts = [0] * NUM_CLASSES
    for clip in np.flatnonzero(first[:num_balanced]).tolist():
        begin = pool.ends[clip - 1] if clip else 0
        for label in pool.labels[begin : pool.ends[clip]]:
            counts[label] += 1
    return counts
