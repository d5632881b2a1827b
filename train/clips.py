"""A list of clips to evaluate on: `split,id` in CSV, as `mbt-data diff --common=FILE` writes it."""

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

    def locate(self, record: int):
        """Path of the shard, its index, and the row of a record in it."""
        return super().locate(int(self._numbers[record]))
