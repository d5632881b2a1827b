"""Small snapshots made of given frames and spectrograms, for tests."""

import dataclasses
import pathlib

import google_crc32c
import numpy as np

from mbt.schemas import index as index_lib
from mbt.schemas import tfrecord
from mbt.schemas.clip import MEL_BINS, MEL_ROWS_PER_SECOND
from mbt.schemas.example import SequenceExample, serialize
from mbt.schemas.manifest import DATASET_FILE, MANIFEST_FILE, Dataset, Manifest, Shard, Split, mean_and_stddev


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeClip:
    """A clip with its bytes.

    Attributes:
      id: of the clip.
      jpegs: its frames, 25 a second.
      size: height and width of a frame.
      mel: (rows, 128) float32, 100 rows a second.
      labels: label indices, ascending.
    """

    id: str
    jpegs: list[bytes]
    size: tuple[int, int]
    mel: np.ndarray
    labels: tuple[int, ...]


def write_snapshot(
    root: pathlib.Path,
    splits: dict[str, list[FakeClip]],
    labels: tuple[str, ...],
    *,
    name: str = "first",
    num_shards: int = 2,
) -> Manifest:
    """Writes `dataset.json`, shards with indices, and a snapshot; clips go to the shards in turn."""
    (root / "shards").mkdir(parents=True, exist_ok=True)
    written = {split: _write_split(root, split, clips, num_shards) for split, clips in splits.items()}
    dataset = Dataset(
        name="fake",
        num_shards=dict.fromkeys(splits, num_shards),
        salt="",
        labels=labels,
        encoder={},
        canary="",
    )
    manifest = Manifest(
        dataset="fake",
        snapshot=name,
        parent=None,
        created=f"2020-01-01T00:00:00+00:00-{name}",
        labels=labels,
        splits=written,
        annotations_sha256="",
        tool_versions={},
    )
    folder = root / "snapshots" / name
    folder.mkdir(parents=True)
    (root / DATASET_FILE).write_text(dataset.to_json())
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return manifest


def _write_split(root: pathlib.Path, split: str, clips: list[FakeClip], num_shards: int) -> Split:
    shards = tuple(_write_shard(root, f"{split}-{i:05}", clips[i::num_shards]) for i in range(num_shards))
    values = np.concatenate([clip.mel.ravel() for clip in clips] or [np.zeros(0)]).astype(np.float64)
    mean, stddev = mean_and_stddev(values.sum(), np.square(values).sum(), len(values))
    return Split(shards=shards, num_clips=len(clips), num_records=len(clips), lost={}, mel_mean=mean, mel_stddev=stddev)


def _write_shard(root: pathlib.Path, name: str, clips: list[FakeClip]) -> Shard:
    data = bytearray()
    records: list[tuple] = []
    pieces: list[tuple] = []
    labels: list[int] = []
    for clip in clips:
        payload = serialize(_example(clip))
        header, footer = tfrecord.frame(payload)
        offset = len(data) + len(header)
        steps = _steps(clip.mel)
        row = (offset, len(payload), len(pieces), len(labels), len(clip.labels), len(clip.jpegs), len(steps))
        sums = (clip.mel.sum(dtype=np.float64), np.square(clip.mel, dtype=np.float64).sum())
        records.append((*row, len(clip.mel), *clip.size, *sums, b"", b""))
        for part in [*clip.jpegs, *steps]:
            pieces.append((offset + payload.index(part), len(part), google_crc32c.value(part)))
        labels += clip.labels
        data += header + payload + footer
    index = index_lib.dump(
        index_lib.Index(
            records=np.array(records, index_lib.RECORD),
            pieces=np.array(pieces, index_lib.PIECE),
            labels=np.array(labels, np.int32),
            ids=tuple(clip.id for clip in clips),
            absent=(),
        )
    )
    path, index_path = f"shards/{name}.tfrecord", f"shards/{name}.index"
    (root / path).write_bytes(data)
    (root / index_path).write_bytes(index)
    return Shard(
        path=path,
        index_path=index_path,
        num_records=len(clips),
        bytes=len(data),
        crc32c=f"{google_crc32c.value(bytes(data)):08x}",
        index_crc32c=f"{index_lib.file_crc32c(index):08x}",
        fingerprint="",
    )


def _steps(mel: np.ndarray) -> list[bytes]:
    """A spectrogram in seconds, the last one filled up."""
    seconds = -(-len(mel) // MEL_ROWS_PER_SECOND)
    padded = np.full((seconds * MEL_ROWS_PER_SECOND, MEL_BINS), -9.21, "<f4")
    padded[: len(mel)] = mel
    return [step.tobytes() for step in np.split(padded, seconds)]


def _example(clip: FakeClip) -> SequenceExample:
    example = SequenceExample()
    example.context.feature["example/id"].bytes_list.value.append(clip.id.encode())
    example.context.feature["clip/label/index"].int64_list.value.extend(clip.labels)
    frames = example.feature_lists.feature_list["image/encoded"]
    for jpeg in clip.jpegs:
        frames.feature.add().bytes_list.value.append(jpeg)
    mel = example.feature_lists.feature_list["melspec/feature/floats"]
    for step in _steps(clip.mel):
        mel.feature.add().float_list.value.extend(np.frombuffer(step, "<f4"))
    return example
