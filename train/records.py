"""From a snapshot to batches, with tf.data.

The position is the step: see `sampling`. So a run resumes anywhere at no cost, on any number of hosts, and under
uniform sampling every record is taken once an epoch.
"""

import functools
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from mbt.schemas.clip import MEL_BINS
from mbt.train import augment, sampling, spec_augment
from mbt.train.config import frame_stride, mel_rows, window_frames
from mbt.train.device_augment import SEEDS
from mbt.train.errors import RunError, UsageError
from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.reader import Reader, Targets
from mbt.train.snapshot import Records
from mbt.train.windows import Window, view_shares

Batch = dict[str, np.ndarray]

# What a seed is for: no two uses share a draw. The order of a run has 0 and 1 (`sampling`).
_CLIP, _START, _CROP, _FLIP, _COLOR, _MASK = range(2, 8)

# TensorFlow only feeds: the accelerator is JAX's alone.
tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")


def make_reader(records: Records, config: ConfigDict) -> Reader:
    """A reader of what the config's modalities need."""
    data, model = config.data, config.model
    frames = data.frames if RGB in config.modalities else 0
    window = Window(
        frame_offsets=augment.frame_offsets(frame_stride(config) * frames, frames),
        frames=window_frames(config) if frames else 0,
        mel_rows=mel_rows(config) if SPECTROGRAM in config.modalities else 0,
        alignment=data.alignment,
        loop=data.short == "loop",
        mel_fill=data.mel_mean,
    )
    heads = tuple(model.head_sizes) or (model.num_classes,)
    targets = Targets(num_classes=model.num_classes, one_of=heads if config.loss.name == "ce" else ())
    replace = data.on_bad_record == "replace"
    threads = data.readers or records.readers
    return Reader(records, window, targets, seed=config.seed, threads=threads, replace_damaged=replace)


def train_batches(
    reader: Reader, config: ConfigDict, first_step: int = 0, *, host: int = 0, hosts: int = 1
) -> Iterator[Batch]:
    """A host's rows of the training batches from `first_step` to the last step of the config.

    Each has, for B = batch_size / hosts rows, `rgb` (B, F, H, W, 3) uint8 and `spectrogram` (B, R, 128, 1) float32, as
    far as the config has them; `rgb_valid` and `spectrogram_valid` (B,) float32, the share of the window that the
    clip fills; `labels` (B, K) float32; `records` (B,) int64; and `seeds` (B, 2) uint32 for `augment_on_device`. Host
    h has the h-th part of every batch, and reads no other.

    Raises:
      UsageError: the batch cannot be shared out equally.
      RunError: while reading; see `Reader.read`.
    """
    plan = train_plan(reader, config, first_step, host=host, hosts=hosts)
    size, example = _share(config, "batch_size", hosts), functools.partial(_train_example, config=config)
    return _batches(plan, reader, size, example, random=True)


def train_plan(
    reader: Reader, config: ConfigDict, first_step: int = 0, *, host: int = 0, hosts: int = 1
) -> tf.data.Dataset:
    """What each of a host's batches is to hold: per row its record, epoch and slot, its seed, where its windows lie."""
    _share(config, "batch_size", hosts)
    records_of = _order(reader, config)

    def rows(step):
        slots = sampling.batch_slots(step, config.train.batch_size, host, hosts)
        records, epochs = records_of(slots), slots // len(reader.records)

        def draw(row):
            epoch, record, slot = row
            seed = augment.fold(augment.run_seed(config.seed), _CLIP, epoch, record)
            if config.data.sampling != "uniform":  # a record may come more than once an epoch
                seed = augment.fold(seed, slot)
            return seed, tf.random.stateless_uniform([2], augment.fold(seed, _START), dtype=tf.float64)

        seeds, positions = tf.map_fn(draw, (epochs, records, slots), fn_output_signature=(tf.int64, tf.float64))
        return {"asked": records, "epochs": epochs, "slots": slots, "keys": seeds, "positions": positions}

    return tf.data.Dataset.range(first_step, config.train.steps).map(rows)


def eval_batches(reader: Reader, config: ConfigDict, views: int, *, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
    """All records once, in order; `views` neighbouring rows for each.

    As `train_batches`, without `seeds`, with eval_batch_size * views / hosts rows, and `weights` (rows,) float32: 0 for
    the rows that fill the last batch, and for clips of which any view is damaged. All hosts have as many batches.

    Raises:
      UsageError: the batch cannot be shared out equally.
      RunError: while reading; see `Reader.read`.
    """
    size, total = _share(config, "eval_batch_size", hosts), len(reader.records)

    def rows(batch):
        slots = sampling.batch_slots(batch, config.train.eval_batch_size, host, hosts)
        columns = {"asked": tf.where(slots < total, slots, 0), "epochs": tf.zeros_like(slots), "slots": slots}
        columns["weights"] = tf.cast(slots < total, tf.float32)
        shares = tf.tile(tf.constant(view_shares(views))[:, None], [size, 2])
        return {key: tf.repeat(value, views) for key, value in columns.items()} | {"positions": shares}

    batches = tf.data.Dataset.range(-(-total // config.train.eval_batch_size))
    example = functools.partial(_eval_example, config=config)
    return _weighted(_batches(batches.map(rows), reader, size * views, example, random=False), views)


def _weighted(batches: Iterator[Batch], views: int) -> Iterator[Batch]:
    """Batches in which a clip of which any view is damaged weighs nothing."""
    for batch in batches:
        intact = batch.pop("intact").reshape(-1, views).min(axis=1)
        yield batch | {"weights": batch["weights"] * np.repeat(intact, views)}


def _share(config: ConfigDict, key: str, hosts: int) -> int:
    """A host's rows of a batch."""
    size = config.train[key]
    if size % hosts:
        raise UsageError(f"config.train.{key}={size}: must be a multiple of the {hosts} hosts")
    return size // hosts


def _order(reader: Reader, config: ConfigDict) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from slots to records."""
    if config.data.sampling == "uniform":
        return lambda slots: sampling.uniform(slots, len(reader.records), config.seed)
    lists = sampling.class_lists(reader.records)
    if not len(lists.records):
        raise UsageError("config.data.sampling=class_balanced: no clip of the split has a label; use uniform")
    return lambda slots: sampling.class_balanced(slots, lists, config.seed)


def _batches(dataset, reader: Reader, size: int, example: Callable[[dict], dict], *, random: bool) -> Iterator[Batch]:
    """Reads batch by batch, because its reads run concurrently; decodes row by row."""

    def read(batch):
        types = [tf.string if dtype is object else tf.as_dtype(dtype) for dtype in reader.columns.values()]
        asked = [batch[name] for name in ("asked", "positions", "epochs", "slots")]
        columns = tf.numpy_function(functools.partial(reader.read, random=random), asked, types, stateful=False)
        return batch | dict(zip(reader.columns, columns, strict=True))

    # Two batches, so that the slowest clip of one does not leave threads idle; more where they are small.
    reads = max(2, -(-reader.threads // size))
    dataset = dataset.map(read, num_parallel_calls=reads).unbatch()
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    # Else, with few cores, reads that wait for an object store hold all threads, and nothing is decoded meanwhile.
    options.threading.private_threadpool_size = _cores() + reads
    return _iterate(dataset.batch(size, drop_remainder=True).prefetch(2).with_options(options), reader)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _train_example(row: dict[str, tf.Tensor], config: ConfigDict) -> dict[str, tf.Tensor]:
    """One row as the model takes it, colours apart: frames cropped and mirrored at random, spectrogram masked."""
    seeds = {use: augment.fold(row["keys"], use) for use in (_CROP, _FLIP, _COLOR, _MASK)}
    data, example = config.data, _plain_columns(row, config)
    if RGB in config.modalities:
        box = augment.random_box(row["sizes"], data.crop_area, data.crop_aspect, seeds[_CROP])
        frames = augment.decode_frames(row["jpegs"], box, data.frames, data.crop)
        example[RGB] = augment.random_flip(frames, seeds[_FLIP]) if data.flip else frames
    if SPECTROGRAM in config.modalities:
        masks = data.spec_augment
        if masks.time_masks or masks.frequency_masks:
            mel = spec_augment.mask(example[SPECTROGRAM][..., 0], masks, data.mel_mean, seeds[_MASK])
            example[SPECTROGRAM] = mel[..., None]
    return example | {SEEDS: tf.bitcast(seeds[_COLOR], tf.uint32)[:, 0]}


def _eval_example(row: dict[str, tf.Tensor], config: ConfigDict) -> dict[str, tf.Tensor]:
    """One row as the model takes it: frames cropped in the centre."""
    data, example = config.data, _plain_columns(row, config)
    if RGB in config.modalities:
        box = augment.center_box(row["sizes"], data.eval_crop)
        example[RGB] = augment.decode_frames(row["jpegs"], box, data.frames, data.crop)
    return example | {"weights": row["weights"], "intact": row["intact"]}


def _plain_columns(row: dict[str, tf.Tensor], config: ConfigDict) -> dict[str, tf.Tensor]:
    """What passes unchanged."""
    example = {"labels": tf.ensure_shape(row["labels"], [config.model.num_classes])}
    example |= {name: tf.ensure_shape(row[name], []) for name in row if name == "records" or name.endswith("_valid")}
    if SPECTROGRAM in config.modalities:
        example[SPECTROGRAM] = tf.ensure_shape(row["mel"], [mel_rows(config), MEL_BINS])[..., None]
    return example


def _iterate(dataset, reader: Reader) -> Iterator[Batch]:
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise reader.failure or RunError(f"reading failed: {error.message.splitlines()[0]}") from error
