"""Some clips of a split: those of a list, `split,id` in CSV, as `mbt-data diff --common=FILE` writes it; or a share."""

import csv
import dataclasses
import hashlib
import io
import pathlib

import numpy as np

from mbt.schemas.manifest import Split
from mbt.train.errors import UsageError
from mbt.train.snapshot import Records

COLUMNS = ["split", "id"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipList:
    """The clips of one split in a list.

    Attributes:
      path: of the file.
      sha256: of the whole file, hexadecimal.
      split: whose clips these are.
      ids: of them.
    """

    path: pathlib.Path
    sha256: str
    split: str
    ids: frozenset[str]


def read_list(path: pathlib.Path, split: str) -> ClipList:
    """Reads the clips of a split; blank lines and a spreadsheet's byte order mark do not matter.

    Raises:
      UsageError: the file cannot be read, is no such list, or names no clip of the split.
    """
    try:
        data = path.read_bytes()
        header, *rows = filter(None, csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
        ids = frozenset(clip_id for name, clip_id in rows if name == split)
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"--clips={path}: not a CSV of {','.join(COLUMNS)}: {error}") from error
    if header != COLUMNS:
        raise UsageError(f"--clips={path}: its first line is not {','.join(COLUMNS)}")
    if not ids:
        raise UsageError(f"--clips={path}: names no clip of split {split}; another is chosen with --split")
    return ClipList(path=path, sha256=hashlib.sha256(data).hexdigest(), split=split, ids=ids)


class ChosenRecords(Records):
    """The records of a split that are in a list, in the order of the shards, numbered from 0.

    Attributes:
      missing: ids of the list that are no records of the split, sorted.
    """

    def __init__(self, root: str, split: Split, ids: frozenset[str]):
        super().__init__(root, split)
        there = super().ids()
        self._numbers = np.array([number for number, clip_id in enumerate(there) if clip_id in ids], np.int64)
        self.missing = sorted(ids.difference(there))

    def __len__(self) -> int:
        return len(self._numbers)

    def ids(self) -> list[str]:
        """The clip id of every record."""
        there = super().ids()
        return [there[number] for number in self._numbers]

    def label_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Every label of every record, as `Records.label_pairs`, of the records that are in the list."""
        numbers, labels = super().label_pairs()
        chosen = np.isin(numbers, self._numbers)
        return np.searchsorted(self._numbers, numbers[chosen]), labels[chosen]

    def locate(self, record: int):
        """Path of the shard, its index, and the row of a record in it."""
        return super().locate(int(self._numbers[record]))


def open_share(root: str, split: Split, share: float) -> ChosenRecords:
    """The records of a share of a split's clips.

    Which they are depends on their ids alone: a smaller share is a part of a larger one, whatever the seed and
    however the clips lie in shards.

    Raises:
      UsageError: the split is so small that none is left.
    """
    chosen = frozenset(clip_id for clip_id in Records(root, split).ids() if _place(clip_id) < share)
    if not chosen:
        raise UsageError(f"config.data.share={share}: leaves none of the split's {split.num_records} clips")
    return ChosenRecords(root, split, chosen)


def _place(clip_id: str) -> float:
    """A number in [0, 1) for an id, spread evenly."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:6]) / 2**48
