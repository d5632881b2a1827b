"""Whether a shard is what was written: every byte of it, every JPEG, and what index and clip table say of it."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import google_crc32c
import numpy as np

from mbt.pipeline import jpegs, plan, storage
from mbt.pipeline.record import Record, of_example, parse
from mbt.pipeline.shard_file import read_framed, unframed
from mbt.schemas import index as shard_index
from mbt.schemas import regular
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import CLIPS_FILE, Dataset, Shard
from mbt.schemas.tfrecord import CorruptRecordError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Damage.

    Attributes:
      file: where; relative to ROOT.
      detail: what, in a sentence.
      clips: ids of the clips that it concerns; empty where it is not about clips.
      snapshots: names of the snapshots that it concerns.
    """

    file: str
    detail: str
    clips: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """A shard as snapshots list it.

    Attributes:
      shard: from the manifest.
      split: its split.
      number: of the shard.
      num_shards: of the split.
      rows: by snapshot, the rows of the clip table that belong to the shard, in its order; None without a table.
      dataset: as it was when these snapshots were made.
    """

    shard: Shard
    split: str
    number: int
    num_shards: int
    rows: dict[str, list[dict] | None]
    dataset: Dataset


@dataclasses.dataclass(frozen=True)
class Range:
    """Where a record lies: offset and length of its payload, and its position in the index, where there is one."""

    clip_id: str
    offset: int
    length: int
    place: int | None


def _of_index(index: shard_index.Index) -> list[Range]:
    places = index.records[["offset", "length"]].tolist()
    return [
        Range(clip, offset, length, place)
        for place, (clip, (offset, length)) in enumerate(zip(index.ids, places, strict=True))
    ]


def of_rows(rows: Sequence[dict]) -> list[Range]:
    """Where the records lie, as the clip table says: for a shard whose index is damaged."""
    return [Range(row["id"], row["offset"], row["length"], None) for row in rows if row["outcome"] == Outcome.OK]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checker:
    """Checks the shards of a dataset.

    Attributes:
      root: of the dataset.
      program: the ffmpeg that decodes the JPEGs.
      on_bytes: called with the size of each part that was read.
    """

    root: str
    program: str
    on_bytes: Callable[[int], object] = lambda count: None

    def check(self, listed: Listed) -> list[Problem]:
        """All that is wrong with a shard."""
        index, problems = self._index(listed)
        rows = next((rows for rows in listed.rows.values() if rows is not None), [])
        ranges = _of_index(index) if index is not None else of_rows(rows)
        problems += self._records(listed.shard, ranges, index)
        if index is not None:
            problems += _disagreements(listed, index)
        named = tuple(listed.rows)
        return [problem if problem.snapshots else dataclasses.replace(problem, snapshots=named) for problem in problems]

    def _index(self, listed: Listed) -> tuple[shard_index.Index | None, list[Problem]]:
        shard = listed.shard
        try:
            data = storage.read(storage.join(self.root, shard.index_path))
            index = shard_index.load(data)
        except regular.NotAFileError as error:
            return None, [Problem(file=shard.index_path, detail=f"it {error.strerror}")]
        except FileNotFoundError:
            return None, [Problem(file=shard.index_path, detail="the file is missing")]
        except shard_index.CorruptIndexError as error:
            return None, [Problem(file=shard.index_path, detail=str(error))]
        wrong = []
        if f"{shard_index.file_crc32c(data):08x}" != shard.index_crc32c:
            wrong.append("the checksum is not the manifest's")
        if len(index.records) != shard.num_records or index.shard_bytes != shard.bytes:
            wrong.append("it is about another shard file than the manifest's")
        if fingerprint(listed, index.inputs()) != shard.fingerprint:
            wrong.append("the inputs of its clips do not give the fingerprint in the manifest")
        return index, [Problem(file=shard.index_path, detail=detail) for detail in wrong]

    def _records(self, shard: Shard, ranges: list[Range], index: shard_index.Index | None) -> list[Problem]:
        """What is wrong in the TFRecord file: one problem for each kind of damage, with the clips that have it."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        checksum = google_crc32c.Checksum()
        try:
            with storage.open_file(storage.join(self.root, shard.path)) as file:
                for place in ranges:
                    framed = read_framed(file, place.offset, place.length)
                    checksum.update(framed)
                    self.on_bytes(len(framed))
                    for detail in _record(framed, place, index, self.program):
                        found[detail].append(place.clip_id)
                if not ranges:  # neither index nor clip table says where records are
                    checksum.update(file.read(shard.bytes))
                file.seek(shard.bytes)
                if file.read(1):
                    found["the file is longer than the manifest says"] = []
        except regular.NotAFileError as error:
            return [Problem(file=shard.path, detail=f"it {error.strerror}")]
        except FileNotFoundError:
            clips = tuple(place.clip_id for place in ranges)
            return [Problem(file=shard.path, detail="the file is missing", clips=clips)]
        if not found and f"{int.from_bytes(checksum.digest(), 'big'):08x}" != shard.crc32c:
            found["the checksum of the file is not the manifest's"] = []
        return [Problem(file=shard.path, detail=detail, clips=tuple(clips)) for detail, clips in found.items()]


def fingerprint(listed: Listed, inputs: dict[str, bytes]) -> str:
    """What the plan gives for a shard of clips with these inputs."""
    dataset = listed.dataset
    order = sorted(inputs, key=lambda clip: (plan.clip_key(dataset.salt, clip), clip))
    digests = (inputs[clip] for clip in order)
    return plan.fingerprint(dataset.shard_identity, listed.split, listed.number, listed.num_shards, digests)


def _record(framed: bytes, place: Range, index: shard_index.Index | None, program: str) -> Iterator[str]:
    """What is wrong with a record; nothing more once its bytes are not those that were written."""
    try:
        payload = unframed(framed, place.length)
        example = parse(payload)
        record = of_example(payload, example)
    except (CorruptRecordError, ValueError) as error:
        yield str(error)
        return
    clip_ids = example.context.feature["example/id"].bytes_list.value
    if list(clip_ids) != [place.clip_id.encode()]:
        yield "the record is of another clip"
    if index is not None and place.place is not None:
        yield from _against_index(record, example, index, place.place)
    frames = [step.bytes_list.value[0] for step in example.feature_lists.feature_list["image/encoded"].feature]
    if bad := jpegs.undecodable(frames, program):
        yield f"frames do not decode: {', '.join(map(str, bad))}"


def _against_index(record: Record, example, index: shard_index.Index, place: int) -> Iterator[str]:
    row = index.records[place]
    pieces = np.concatenate([index.frames(place), index.steps(place)])
    pieces["offset"] -= row["offset"]
    if not np.array_equal(pieces, record.pieces):
        yield "frames or spectrogram lie elsewhere than the index says, or differ from its checksums"
    said = [row[name].item() for name in ("num_frames", "num_mel_rows", "height", "width")]
    if said != [record.num_frames, record.num_mel_rows, record.height, record.width]:
        yield "frames, spectrogram rows or sizes are not those of the index"
    if not np.allclose([row["mel_sum"], row["mel_sum_of_squares"]], [record.mel_sum, record.mel_sum_of_squares]):
        yield "the sums of the spectrogram are not those of the index"
    if list(example.context.feature["clip/label/index"].int64_list.value) != index.record_labels(place).tolist():
        yield "the labels are not those of the index"


def _disagreements(listed: Listed, index: shard_index.Index) -> Iterator[Problem]:
    for snapshot, rows in listed.rows.items():
        if rows is not None and (detail := _disagreement(index, rows)):
            path = f"snapshots/{snapshot}/{CLIPS_FILE}"
            yield Problem(file=path, detail=f"{listed.shard.path}: {detail}", snapshots=(snapshot,))


def _disagreement(index: shard_index.Index, rows: Sequence[dict]) -> str:
    """How the clip table differs from the index, or nothing."""
    inputs = index.inputs()
    there = [row for row in rows if row["outcome"] == Outcome.OK]
    refused = [row for row in rows if row["outcome"] != Outcome.OK and row["inputs"]]
    absent = {row["id"]: (row["reason"], row.get("rule", shard_index.FIRST_RULES)) for row in refused}
    if [row["id"] for row in there] != list(index.ids):
        return "its records are not the clips that the table has there"
    if absent != {clip["id"]: (clip["reason"], clip["rule"]) for clip in index.absent}:
        return "the clips without a record are not those that the table has there"
    for place, row in enumerate(there):
        said = (row["record"], row["offset"], row["length"], row["inputs"])
        if said != (place, *index.records[place][["offset", "length"]].item(), inputs[row["id"]]):
            return f"clip {row['id']} lies elsewhere, or is made from other inputs, than the table says"
        if tuple(row.get("treatments") or ()) != index.treatments.get(row["id"], ()):
            return f"clip {row['id']} was treated otherwise than the table says"
    return ""
