"""A decoded clip to a record: `tf.train.SequenceExample` bytes, and where each piece lies in them."""

import dataclasses
from collections.abc import Iterable, Sequence

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError

from mbt.pipeline.decode import Decoded
from mbt.pipeline.logmel import LOG_FLOOR, log_mel
from mbt.schemas.clip import FRAME_RATE_HZ, MEL_BINS, MEL_ROWS_PER_SECOND, MICROSECONDS, SAMPLE_RATE_HZ, num_mel_rows
from mbt.schemas.example import SequenceExample, serialize
from mbt.schemas.index import PIECE

_PREFIX_BYTES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What a record says of its clip beside the media; the fields are those of the record's context."""

    id: str
    dataset_name: str
    media_id: str
    data_path: str
    start_us: int
    label_indices: Sequence[int]
    label_strings: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """An encoded record.

    Attributes:
      payload: the serialized SequenceExample.
      pieces: (frames + seconds,) of dtype `PIECE`; offsets count from the payload's first byte.
      num_frames: how many of the pieces are frames; they come first.
      num_mel_rows: valid spectrogram rows.
      height: pixels.
      width: pixels.
      mel_sum: over all valid spectrogram values.
      mel_sum_of_squares: likewise.
      treatments: see `Decoded`; they do not stand in the payload.
    """

    payload: bytes
    pieces: np.ndarray
    num_frames: int
    num_mel_rows: int
    height: int
    width: int
    mel_sum: float
    mel_sum_of_squares: float
    treatments: tuple[str, ...] = ()


def encode(context: Context, decoded: Decoded) -> Record:
    """The record of a decoded clip, under the keys of `mbt.schemas.example.KEYS`."""
    mel = log_mel(decoded.pcm, num_mel_rows(decoded.duration_us))
    record = _assembled(context, decoded.frames, mel, (decoded.height, decoded.width), decoded.duration_us)
    return dataclasses.replace(record, treatments=decoded.treatments)


def relabelled(context: Context, old: Record) -> Record:
    """What `encode` gives for the clip of `old` under another context, without decoding it again."""
    values = [old.payload[offset : offset + length] for offset, length, _ in old.pieces.tolist()]
    mel = np.frombuffer(b"".join(values[old.num_frames :]), "<f4").reshape(-1, MEL_BINS)[: old.num_mel_rows]
    times = SequenceExample.FromString(old.payload).context.feature
    start_us, end_us = (times[f"clip/{end}/timestamp"].int64_list.value[0] for end in ("start", "end"))
    record = _assembled(context, values[: old.num_frames], mel, (old.height, old.width), end_us - start_us)
    return dataclasses.replace(record, treatments=old.treatments)


def _assembled(
    context: Context, frames: Sequence[bytes], mel: np.ndarray, size: tuple[int, int], duration_us: int
) -> Record:
    steps = [step.tobytes() for step in mel_steps(mel)]
    example = SequenceExample()
    _fill_context(example.context.feature, context, size, len(mel), duration_us)
    lists = example.feature_lists.feature_list
    _append_bytes(lists["image/encoded"], frames)
    first_us, period_us = context.start_us, MICROSECONDS // FRAME_RATE_HZ
    for index in range(len(frames)):
        lists["image/timestamp"].feature.add().int64_list.value.append(first_us + index * period_us)
    for step in steps:
        # From packed bytes: appending 12,800 Python floats a second costs more than the FFT.
        floats = b"\x0a" + _varint(len(step)) + step
        lists["melspec/feature/floats"].feature.add().float_list.ParseFromString(floats)
    return _record(serialize(example), frames, steps, mel, size)


def parse(payload: bytes) -> SequenceExample:
    """The message in a record's payload.

    Raises:
      ValueError: it is none.
    """
    try:
        return SequenceExample.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a SequenceExample: {error}") from error


def of_example(payload: bytes, example: SequenceExample) -> Record:
    """The record that `encode` gave, from its payload and the same parsed.

    Raises:
      ValueError: it is no record of ours.
    """
    context, lists = example.context.feature, example.feature_lists.feature_list
    try:
        frames = [step.bytes_list.value[0] for step in lists["image/encoded"].feature]
        steps = [np.array(step.float_list.value, "<f4").tobytes() for step in lists["melspec/feature/floats"].feature]
        num_rows, height, width = (
            context[key].int64_list.value[0] for key in ("melspec/feature/num_samples", "image/height", "image/width")
        )
    except IndexError as error:
        raise ValueError("a SequenceExample without frames, spectrogram or sizes") from error
    mel = np.frombuffer(b"".join(steps), "<f4").reshape(-1, MEL_BINS)[:num_rows]
    return _record(payload, frames, steps, mel, (height, width))


def _record(
    payload: bytes, frames: Sequence[bytes], steps: Sequence[bytes], mel: np.ndarray, size: tuple[int, int]
) -> Record:
    wide = mel.astype(np.float64)
    return Record(
        payload=payload,
        pieces=_locate(payload, [*frames, *steps]),
        num_frames=len(frames),
        num_mel_rows=len(mel),
        height=size[0],
        width=size[1],
        mel_sum=float(wide.sum()),
        mel_sum_of_squares=float((wide * wide).sum()),
    )


def mel_steps(mel: np.ndarray) -> np.ndarray:
    """(rows, 128) float32 to (started seconds, 100, 128), the last one padded with the log floor."""
    num_steps = -(-len(mel) // MEL_ROWS_PER_SECOND)
    steps = np.full((num_steps * MEL_ROWS_PER_SECOND, MEL_BINS), LOG_FLOOR, "<f4")
    steps[: len(mel)] = mel
    return steps.reshape(num_steps, MEL_ROWS_PER_SECOND, MEL_BINS)


def _fill_context(feature, context: Context, size: tuple[int, int], num_rows: int, duration_us: int) -> None:
    strings = [label.encode() for label in context.label_strings]
    for key, value in (
        ("example/id", [context.id.encode()]),
        ("example/dataset_name", [context.dataset_name.encode()]),
        ("clip/media_id", [context.media_id.encode()]),
        ("clip/data_path", [context.data_path.encode()]),
        ("clip/label/string", strings),
        ("clip/label/text", strings),
        ("image/format", [b"JPEG"]),
    ):
        feature[key].bytes_list.value.extend(value)
    for key, numbers in (
        ("clip/start/timestamp", [context.start_us]),
        ("clip/end/timestamp", [context.start_us + duration_us]),
        ("clip/label/index", context.label_indices),
        ("image/height", [size[0]]),
        ("image/width", [size[1]]),
        ("image/channels", [3]),
        ("melspec/feature/dimensions", [MEL_ROWS_PER_SECOND, MEL_BINS]),
        ("melspec/feature/num_samples", [num_rows]),
    ):
        feature[key].int64_list.value.extend(numbers)
    for key, rate in (
        ("image/frame_rate", FRAME_RATE_HZ),
        ("melspec/feature/rate", MEL_ROWS_PER_SECOND),
        ("melspec/feature/audio_sample_rate", SAMPLE_RATE_HZ),
    ):
        feature[key].float_list.value.append(rate)


def _append_bytes(feature_list, values: Iterable[bytes]) -> None:
    for value in values:
        feature_list.feature.add().bytes_list.value.append(value)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _locate(payload: bytes, values: Sequence[bytes]) -> np.ndarray:
    """Where each value lies; they stand in the payload in this order, a few bytes of framing between them."""
    pieces = np.empty(len(values), PIECE)
    position = 0
    for row, value in enumerate(values):
        # A few bytes of framing away; searching for the whole value would first analyse it at length.
        position = payload.index(value[:_PREFIX_BYTES], position)
        assert payload.startswith(value, position)
        pieces[row] = position, len(value), google_crc32c.value(value)
        position += len(value)
    return pieces
