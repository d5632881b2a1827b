"""A snapshot as the trainer sees it: checked, and addressed by record number."""

import bisect
import concurrent.futures
import functools
import itertools
import os
import posixpath
import resource
import sys
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from mbt.schemas import index as index_lib
from mbt.schemas import lineage
from mbt.schemas.manifest import MANIFEST_FILE, Manifest, Split
from mbt.train import storage
from mbt.train.errors import RunError, UsageError

SNAPSHOTS = "snapshots"
# Indices of a split that are mapped at a time, where as many files may be open. Linux grants a process 65,530 maps, and
# AudioSet has 65,536 shards.
MAPPED = 16_384
_OPENED = "/proc/self/fd"
AHEAD = 1024  # indices that are loaded before they are asked for


def load_manifest(root: str, name: str) -> Manifest:
    """Reads the manifest of a snapshot.

    Args:
      root: folder of the dataset, local or on gs://.
      name: of the snapshot, or "latest" for the newest, see `lineage.in_order`.

    Raises:
      UsageError: there is no such snapshot, it is damaged, or its place cannot be read.
    """
    if not storage.is_known(root):
        raise UsageError(f"config.data.root={root}: must be a folder, or gs://BUCKET/FOLDER")
    manifests = _manifests(root)
    if not manifests:
        raise UsageError(f"config.data.root={root}: no snapshot there; make one with `mbt-data build --output={root}`")
    if name == "latest":
        return lineage.in_order(_read_manifest(path, name) for name, path in manifests.items())[-1]
    if name not in manifests:
        raise UsageError(
            f"config.data.snapshot={name}: not in {storage.join(root, SNAPSHOTS)}, which has {', '.join(manifests)}"
        )
    return _read_manifest(manifests[name], name)


def find_split(manifest: Manifest, key: str, name: str) -> Split:
    """A split that has records.

    Args:
      manifest: of the snapshot.
      key: what asked for it, for the message.
      name: of the split.

    Raises:
      UsageError: there is none.
    """
    if name not in manifest.splits:
        raise UsageError(f"{key}={name}: snapshot {manifest.snapshot} has the splits {', '.join(manifest.splits)}")
    if manifest.splits[name].num_records == 0:
        raise UsageError(f"{key}={name}: the split has no records in snapshot {manifest.snapshot}")
    return manifest.splits[name]


class Records:
    """The records of a split, numbered from 0 in the order of the shards.

    Attributes:
      readers: how many of them to read at a time.
    """

    def __init__(self, root: str, split: Split):
        self.readers = storage.readers(root)
        self._root = root
        self._shards = [shard for shard in split.shards if shard.num_records]
        self._ends = list(itertools.accumulate(shard.num_records for shard in self._shards))
        self._kept = min(MAPPED, _open_files() // 4)  # each is an open file; there are two splits, and what is ahead
        self._load = functools.lru_cache(self._kept)(self._load_index)

    def __len__(self) -> int:
        return self._ends[-1]

    def check_files(self) -> None:
        """Raises UsageError where a shard or index is missing or of another size."""
        sizes: dict[str, int] = {}
        for folder in {posixpath.dirname(shard.path) for shard in self._shards}:
            sizes |= _sizes(self._root, folder)
        for shard in self._shards:
            if sizes.get(shard.path) != shard.bytes or shard.index_path not in sizes:
                path = storage.join(self._root, shard.path)
                raise UsageError(f"shard {path} is missing or not whole; run `mbt-data build` again")

    def locate(self, record: int) -> tuple[str, index_lib.Index, int]:
        """Path of the shard, its index, and the row of a record in it."""
        shard = bisect.bisect_right(self._ends, record)
        first = self._ends[shard] - self._shards[shard].num_records
        return storage.join(self._root, self._shards[shard].path), self._load(shard), record - first

    def ids(self) -> list[str]:
        """The clip id of every record."""
        return [clip_id for index in self._indices() for clip_id in index.ids]

    def label_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Every label of every record: (M,) numbers of the records, ascending, and (M,) labels; both int64."""
        counts, labels = [], []
        for index in self._indices():
            counts.append(index.records["num_labels"].copy())  # a view would keep the map
            labels.append(index.labels.astype(np.int64))
        of_all = np.concatenate(counts)
        return np.repeat(np.arange(len(of_all)), of_all), np.concatenate(labels)

    def _indices(self) -> Iterator[index_lib.Index]:
        """Every shard's, in order, some of them loaded ahead; who keeps one keeps its file mapped."""
        with concurrent.futures.ThreadPoolExecutor(self.readers) as pool:
            ahead = min(AHEAD, self._kept)
            for first in range(0, len(self._shards), ahead):
                yield from pool.map(self._load, range(first, min(first + ahead, len(self._shards))))

    def _load_index(self, shard: int) -> index_lib.Index:
        path = storage.join(self._root, self._shards[shard].index_path)
        try:
            index = index_lib.load(storage.mapped(path))
        except (FileNotFoundError, ValueError) as error:  # CorruptIndexError, or an empty file, which cannot be mapped
            raise RunError(f"index {path}: {error}; run `mbt-data build` again") from error
        except OSError as error:
            raise RunError(f"index {path} cannot be read: {error.strerror}") from error
        if len(index.records) != self._shards[shard].num_records:
            raise RunError(f"index {path} has {len(index.records)} records, the manifest says otherwise")
        return index


def open_records(config: ConfigDict, manifest: Manifest, key: str, name: str) -> Records:
    """The records of a split, their files there and their labels within the model's classes.

    Args:
      config: resolved.
      manifest: of the snapshot.
      key: what asked for the split, for the message.
      name: of the split.

    Raises:
      UsageError: there is no such split, a file is missing, the model has too few classes, or a softmax is asked of
        clips that have not exactly one label.
    """
    records = Records(config.data.root, find_split(manifest, key, name))
    records.check_files()
    if len(manifest.labels) > config.model.num_classes:
        raise UsageError(
            f"snapshot {manifest.snapshot} has {len(manifest.labels)} labels, "
            f"config.model.num_classes is {config.model.num_classes}"
        )
    if config.loss.name == "ce":
        _check_one_label(records, name, tuple(config.model.head_sizes) or (config.model.num_classes,))
    return records


def _check_one_label(records: Records, split: str, heads: tuple[int, ...]) -> None:
    """Refuses a split of which a clip has not exactly one label of each head."""
    numbers, labels = records.label_pairs()
    ends = np.cumsum(heads)
    for head, (first, end) in enumerate(zip(ends - heads, ends, strict=True)):
        counts = np.bincount(numbers[(labels >= first) & (labels < end)], minlength=len(records))
        wrong = np.flatnonzero(counts != 1)
        if len(wrong):
            of_head = f" of head {head}" if len(heads) > 1 else ""
            raise UsageError(
                f"split {split}: {len(wrong)} of {len(records)} clips have not one label{of_head}, such as "
                f"{records.ids()[wrong[0]]!r} with {counts[wrong[0]]}; config.loss.name=ce needs one, use bce: "
                "--config.loss.name=bce"
            )


def _manifests(root: str) -> dict[str, str]:
    """Paths of the manifests of the snapshots by their names."""
    names = [name.split("/") for name in _sizes(root, SNAPSHOTS)]
    whole = [parts[1] for parts in names if parts[2:] == [MANIFEST_FILE]]
    return {name: storage.join(root, f"{SNAPSHOTS}/{name}/{MANIFEST_FILE}") for name in whole}


def _open_files() -> int:
    """How many more files this process may open, as far as the system tells how many are."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    opened = len(os.listdir(_OPENED)) if os.path.isdir(_OPENED) else 0
    return max(4, files - opened)


def _sizes(root: str, folder: str) -> dict[str, int]:
    try:
        return storage.sizes(root, folder)
    except OSError as error:
        raise UsageError(f"config.data.root={root}: cannot be read: {error.strerror}") from error


def _read_manifest(path: str, name: str) -> Manifest:
    try:
        return Manifest.from_json(storage.read(path), name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
