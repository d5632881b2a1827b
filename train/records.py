"""From a snapshot to batches, with tf.data.

The position is the step: slot s = step * batch + row takes epoch s // N and the (s % N)-th record of that epoch's
permutation, which is computed, never stored. So a run resumes anywhere at no cost, and every record is taken once
an epoch.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from mbt.schemas.clip import MEL_BINS
from mbt.train import augment
from mbt.train.config import frame_stride, mel_rows, window_frames
from mbt.train.errors import RunError
from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.reader import Reader, Window
from mbt.train.snapshot import Records

Batch = dict[str, np.ndarray]

# What a seed is for: no two uses share a draw.
_ORDER, _CLIP, _START, _CROP, _FLIP = range(5)

# TensorFlow only feeds: the accelerator is JAX's alone.
tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")


def make_reader(records: Records, config: ConfigDict) -> Reader:
    """A reader of what the config's modalities need."""
    frames = config.data.frames if RGB in config.modalities else 0
    window = Window(
        frame_offsets=augment.frame_offsets(frame_stride(config) * frames, frames),
        mel_rows=mel_rows(config) if SPECTROGRAM in config.modalities else 0,
        mel_fill=config.data.mel_mean,
        num_classes=config.model.num_classes,
        one_label=config.loss.name == "ce",
    )
    return Reader(records, window, config.data.readers)


def slots(step: tf.Tensor, batch_size: int, num_records: int, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Records and epochs of a step's batch, each (batch_size,) int64."""
    slot = step * batch_size + tf.range(batch_size, dtype=tf.int64)

    def record(slot):  # one by one: for a batch of seeds, index_shuffle of TensorFlow 2.21 fails on their shape
        order = augment.fold(augment.run_seed(seed), _ORDER, slot // num_records)
        return tf.random.experimental.index_shuffle(slot % num_records, order, num_records - 1)

    return tf.map_fn(record, slot), slot // num_records


def train_batches(reader: Reader, config: ConfigDict, first_step: int = 0) -> Iterator[Batch]:
    """Training batches from `first_step` to the last step of the config.

    Each has `rgb` (B, F, H, W, 3) uint8 and `spectrogram` (B, R, 128, 1) float32, as far as the config has them,
    `labels` (B, K) float32 and `records` (B,) int64.
    """

    def rows(step):
        records, epochs = slots(step, config.train.batch_size, len(reader.records), config.seed)
        frames = _num_frames(reader, records)

        def draw(row):
            epoch, record, length = row
            seed = augment.fold(augment.run_seed(config.seed), _CLIP, epoch, record)
            return seed, augment.random_start(length, window_frames(config), augment.fold(seed, _START))

        seeds, starts = tf.map_fn(draw, (epochs, records, frames), fn_output_signature=(tf.int64, tf.int64))
        return {"records": records, "seeds": seeds, "starts": starts}

    steps = tf.data.Dataset.range(first_step, config.train.steps)
    return _batches(steps.map(rows), reader, config, config.train.batch_size, training=True)


def eval_batches(reader: Reader, config: ConfigDict, views: int) -> Iterator[Batch]:
    """All records once, in order; `views` neighbouring rows for each.

    As `train_batches`, with batch_size * views rows, and `weights` (rows,) float32: 0 for the rows that fill the
    last batch.
    """
    batch_size, total = config.train.eval_batch_size, len(reader.records)

    def rows(batch):
        slot = batch * batch_size + tf.range(batch_size, dtype=tf.int64)
        records = tf.where(slot < total, slot, 0)
        window = window_frames(config)
        starts = tf.map_fn(lambda n: augment.view_starts(n, window, views), _num_frames(reader, records))
        columns = {"records": records, "weights": tf.cast(slot < total, tf.float32)}
        return {key: tf.repeat(value, views) for key, value in columns.items()} | {"starts": tf.reshape(starts, [-1])}

    batches = tf.data.Dataset.range(-(-total // batch_size))
    return _batches(batches.map(rows), reader, config, batch_size * views, training=False)


def _num_frames(reader: Reader, records: tf.Tensor) -> tf.Tensor:
    frames = tf.numpy_function(reader.num_frames, [records], tf.int64, stateful=False)
    return tf.ensure_shape(frames, records.shape)


def _batches(dataset, reader: Reader, config: ConfigDict, size: int, *, training: bool) -> Iterator[Batch]:
    def read(batch):
        types = [tf.string if dtype is object else tf.as_dtype(dtype) for dtype in reader.columns.values()]
        columns = tf.numpy_function(reader.read, [batch["records"], batch["starts"]], types, stateful=False)
        return batch | dict(zip(reader.columns, columns, strict=True))

    dataset = dataset.map(read, num_parallel_calls=2).unbatch()
    dataset = dataset.map(lambda row: _example(row, config, training), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(size, drop_remainder=True).prefetch(2)
    return _iterate(dataset, reader)


def _example(row: dict[str, tf.Tensor], config: ConfigDict, training: bool) -> dict[str, tf.Tensor]:
    """One row as the model takes it: frames decoded, cropped and flipped."""
    labels = tf.ensure_shape(row["labels"], [config.model.num_classes])
    example = {"labels": labels, "records": row["records"]}
    if RGB in config.modalities:
        example[RGB] = _frames(row, config.data, training)
    if SPECTROGRAM in config.modalities:
        example[SPECTROGRAM] = tf.ensure_shape(row["mel"], [mel_rows(config), MEL_BINS])[..., None]
    if not training:
        example["weights"] = row["weights"]
    return example


def _frames(row: dict[str, tf.Tensor], data: ConfigDict, training: bool) -> tf.Tensor:
    if not training:
        return augment.decode_frames(
            row["jpegs"], augment.center_box(row["sizes"], data.eval_crop), data.frames, data.crop
        )
    crop_seed, flip_seed = (augment.fold(row["seeds"], use) for use in (_CROP, _FLIP))
    box = augment.random_box(row["sizes"], data.crop_area, data.crop_aspect, crop_seed)
    frames = augment.decode_frames(row["jpegs"], box, data.frames, data.crop)
    return augment.random_flip(frames, flip_seed) if data.flip else frames


def _iterate(dataset, reader: Reader) -> Iterator[Batch]:
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise reader.failure or RunError(f"reading failed: {error.message.splitlines()[0]}") from error
