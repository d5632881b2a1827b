"""`dataset.json` and a snapshot's `manifest.json`: plain JSON, one dataclass each."""

import contextlib
import dataclasses
import hashlib
import json
import math
import posixpath
from collections.abc import Iterator
from typing import Any

from mbt.schemas import index as shard_index
from mbt.schemas import own_json, typed

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.json"
CLIPS_FILE = "clips.parquet"

JsonText = str | bytes  # by another name, since `Manifest.bytes` is a number


class FormatError(ValueError):
    """A JSON file of ours is damaged, or of another version."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """How the records and shards of some snapshots of a dataset are made. The defaults are what was before it was said.

    Attributes:
      encoder: every number that decides the bytes of a record.
      canary: digest of the built-in clip's record under this encoder.
      index_version: of the shards' indices.
      rules: version of the rules by which a clip is unusable.
    """

    encoder: dict[str, Any]
    canary: str
    index_version: int = shard_index.FIRST_VERSION
    rules: int = shard_index.FIRST_RULES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is fixed for the life of a dataset, and how its records are made now; `ROOT/dataset.json`.

    Attributes:
      name: of the dataset.
      num_shards: shard count per split.
      salt: of the hash that assigns clips to shards.
      labels: label names; the position is the index.
      encoder: as in `Encoding`, like the next three.
      canary: likewise.
      index_version: likewise.
      rules: likewise.
      former: how records were made before, oldest first; snapshots name one by its place.
      format_version: of this file.
    """

    name: str
    num_shards: dict[str, int]
    salt: str
    labels: tuple[str, ...]
    encoder: dict[str, Any]
    canary: str
    index_version: int = shard_index.FIRST_VERSION
    rules: int = shard_index.FIRST_RULES
    former: tuple[Encoding, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def encoding(self) -> Encoding:
        """How records are made now."""
        return Encoding(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Encoding)})

    def made_by(self, encoding: Encoding) -> "Dataset":
        """The dataset whose records are made so from now on."""
        if encoding == self.encoding:
            return self
        return dataclasses.replace(self, former=(*self.former, self.encoding), **vars(encoding))

    def as_of(self, manifest: "Manifest") -> "Dataset":
        """The dataset as it was when a snapshot was made.

        Raises:
          FormatError: the file does not know how that was.
        """
        if manifest.encoding == len(self.former):
            return self
        if manifest.encoding > len(self.former):
            raise FormatError(f"{DATASET_FILE} does not say how the records of snapshot {manifest.snapshot} were made")
        former, encoding = self.former[: manifest.encoding], self.former[manifest.encoding]
        return dataclasses.replace(self, former=former, **vars(encoding))

    @property
    def identity(self) -> str:
        """Digest of everything but the clips that decides the bytes of a record."""
        # The first version counted among what decides a record, and its digests stand in shards.
        first = [shard_index.FIRST_VERSION] if self.index_version == shard_index.FIRST_VERSION else []
        return _sha256([self.name, self.encoder, self.canary, *first])

    @property
    def shard_identity(self) -> str:
        """Digest of everything but the clips that decides the bytes of a shard and its index."""
        if self.index_version == shard_index.FIRST_VERSION:
            return self.identity
        return _sha256([self.identity, self.index_version, self.rules])

    def to_json(self) -> str:
        """As the text of its file."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: JsonText) -> "Dataset":
        """From the text of its file; raises `FormatError`."""
        fields = _fields(cls, text, DATASET_FILE)
        with _as_expected(DATASET_FILE):
            former = tuple(Encoding(**encoding) for encoding in fields.get("former", ()))
            found = cls(**fields | {"labels": _listed(fields["labels"]), "former": former})
            typed.check(found)
            return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of a snapshot; paths are relative to ROOT.

    Attributes:
      path: of the TFRecord file.
      index_path: of its index.
      num_records: records in it.
      bytes: size of the TFRecord file.
      crc32c: of the whole TFRecord file, 8 hexadecimal digits.
      index_crc32c: of the index file but for the checksum at its end, likewise.
      fingerprint: digest of every input of every record.
    """

    path: str
    index_path: str
    num_records: int
    bytes: int
    crc32c: str
    index_crc32c: str
    fingerprint: str

    def __post_init__(self):
        for path in (self.path, self.index_path):
            _check_below_root(path)
        _check_counts(num_records=self.num_records, bytes=self.bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split of a snapshot.

    Attributes:
      shards: all of them, in order, empty ones too.
      num_clips: annotated clips.
      num_records: clips that became records.
      lost: number of lost clips by "outcome/reason".
      mel_mean: mean of all valid spectrogram values.
      mel_stddev: their standard deviation.
      seconds: length of all records.
      shortest_s: of the shortest record.
      longest_s: of the longest.
      class_counts: records by label, of the labels that have any, in the order of the label map.
      treatments: records by how their media were treated beyond the usual, such as "tone_mapped"; of what there is.
    """

    shards: tuple[Shard, ...]
    num_clips: int
    num_records: int
    lost: dict[str, int]
    mel_mean: float
    mel_stddev: float
    seconds: float = 0.0
    shortest_s: float = 0.0
    longest_s: float = 0.0
    class_counts: dict[str, int] = dataclasses.field(default_factory=dict)
    treatments: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardChange:
    """One shard of a snapshot that an amendment replaced.

    Attributes:
      old_path: of the TFRecord file before.
      old_crc32c: of the whole file.
      new_path: of the one that stands in its place.
      new_crc32c: of the whole file.
    """

    old_path: str
    old_crc32c: str
    new_path: str
    new_crc32c: str

    def __post_init__(self):
        for path in (self.old_path, self.new_path):
            _check_below_root(path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amendment:
    """What `purge` changed in a snapshot after it was published.

    Attributes:
      time: UTC, ISO 8601.
      reason: as given.
      num_clips: that were removed.
      shards: that were replaced.
      old_clips_sha256: digest of `clips.parquet` before.
      new_clips_sha256: likewise after.
    """

    time: str
    reason: str
    num_clips: int
    shards: tuple[ShardChange, ...]
    old_clips_sha256: str
    new_clips_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json` of a snapshot, written last: a snapshot without it does not exist.

    Attributes:
      dataset: name of the dataset.
      snapshot: name of the snapshot.
      parent: name of the snapshot before, or None.
      created: UTC time, ISO 8601.
      labels: label names; the position is the index.
      splits: by name.
      annotations_sha256: digest of the annotation file.
      tool_versions: versions of what made it.
      unassigned: number of rows whose split could not be read, by "outcome/reason".
      clips_sha256: digest of `clips.parquet`.
      amended: what was removed later, oldest first; empty in a snapshot as it was published.
      encoding: how its records were made: the place in the dataset's `former`, or behind them for how it is made now.
      format_version: of this file.
    """

    dataset: str
    snapshot: str
    parent: str | None
    created: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    annotations_sha256: str
    tool_versions: dict[str, str]
    unassigned: dict[str, int] = dataclasses.field(default_factory=dict)
    clips_sha256: str = ""
    amended: tuple[Amendment, ...] = ()
    encoding: int = 0
    format_version: int = FORMAT_VERSION

    @property
    def num_clips(self) -> int:
        """Annotated clips of all splits."""
        return sum(split.num_clips for split in self.splits.values())

    @property
    def num_records(self) -> int:
        """Records of all splits."""
        return sum(split.num_records for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Size of the shards of all splits."""
        return sum(split.bytes for split in self.splits.values())

    def to_json(self) -> str:
        """As the text of its file."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: JsonText, snapshot: str | None = None) -> "Manifest":
        """From the text of its file.

        Args:
          text: of the file.
          snapshot: the name of its folder, which the manifest is to say too: paths are made of it.

        Raises:
          FormatError: it is damaged, of another version or snapshot, or names a file that is not below ROOT.
        """
        fields = _fields(cls, text, MANIFEST_FILE)
        if snapshot is not None and fields["snapshot"] != snapshot:
            raise FormatError(f"{MANIFEST_FILE} is of another snapshot, {fields['snapshot']!r:.80}, than its folder")
        with _as_expected(MANIFEST_FILE):
            for name in (fields["snapshot"], *fields["splits"]):
                _check_name(name)
            splits = {name: _split(value) for name, value in fields["splits"].items()}
            amended = tuple(_amendment(value) for value in fields.get("amended", ()))
            found = cls(**fields | {"labels": _listed(fields["labels"]), "splits": splits, "amended": amended})
            typed.check(found)
            _check_counts(encoding=found.encoding, **found.unassigned)
            for split in splits.values():
                _check_counts(num_clips=split.num_clips, num_records=split.num_records)
                _check_counts(**split.lost | split.class_counts | split.treatments)
            return found


def mean_and_stddev(total: float, total_of_squares: float, count: int) -> tuple[float, float]:
    """Mean and standard deviation from sums; (0, 1) of nothing."""
    if count == 0:
        return 0.0, 1.0
    mean = total / count
    return mean, math.sqrt(max(0.0, total_of_squares / count - mean * mean)) or 1.0


def _check_below_root(path: str) -> None:
    """Refuses what leads out of ROOT, or anywhere by a detour."""
    parts = path.split("/")
    if posixpath.normpath(path) != path or ".." in parts or parts[0] in ("", ".") or ":" in parts[0] or "\0" in path:
        raise ValueError(f"the path {path!r:.80} is not below ROOT")


def _check_name(name: str) -> None:
    """Refuses what would be no single part of a path."""
    if "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"the name {name!r:.80} is no part of a path")


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"{name} is {count!r:.80}")


def _listed(values: Any) -> tuple:
    if not isinstance(values, list):  # of a text too a tuple can be made
        raise TypeError(f"{values!r:.80} is no list")
    return tuple(values)


def _sha256(parts: list) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _split(value: dict[str, Any]) -> Split:
    return Split(**value | {"shards": tuple(Shard(**shard) for shard in value["shards"])})


def _amendment(value: dict[str, Any]) -> Amendment:
    return Amendment(**value | {"shards": tuple(ShardChange(**change) for change in value["shards"])})


@contextlib.contextmanager
def _as_expected(file: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{file} is not as it was written: {error}") from error


def _fields(cls, text: JsonText, file: str) -> dict[str, Any]:
    try:
        fields = own_json.parse(text)
    except ValueError as error:
        raise FormatError(f"{file} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("format_version") != FORMAT_VERSION:
        raise FormatError(f"{file} is not of format version {FORMAT_VERSION}; use the mbt-flax that wrote it")
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = required - fields.keys()
    if missing:
        raise FormatError(f"{file} lacks {', '.join(sorted(missing))}")
    return fields
