"""Which record stands at which place of a run: stateless, so that the position is the step.

Slot s is the s-th example of the whole run, over all its batches and hosts; epoch s // N. Functions of tensors, the
same eagerly and inside `tf.data`.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from mbt.train.augment import fold, run_seed
from mbt.train.snapshot import Records

# What a seed is for, among `augment`'s.
_ORDER, _CLASS = 0, 1


def batch_slots(step: tf.Tensor, batch_size: int, host: int, hosts: int) -> tf.Tensor:
    """The slots of a host's rows of a step, (batch_size / hosts,) int64: each host has neighbouring rows of a batch."""
    rows = batch_size // hosts
    return tf.cast(step, tf.int64) * batch_size + host * rows + tf.range(rows, dtype=tf.int64)


def uniform(slots: tf.Tensor, num_records: int, seed: int) -> tf.Tensor:
    """Records of slots, (B,) int64: each epoch takes every record once, in an order of its own."""

    def record(slot):  # one by one: for a batch of seeds, index_shuffle of TensorFlow 2.21 fails on their shape
        order = fold(run_seed(seed), _ORDER, slot // num_records)
        return tf.random.experimental.index_shuffle(slot % num_records, order, num_records - 1)

    return tf.map_fn(record, slots)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassLists:
    """The records of each class that has any.

    Attributes:
      records: (M,) int64, class after class; a record with several labels stands in each of its classes.
      firsts: (C,) int64, where in `records` each class begins.
      counts: (C,) int64, records of each class.
    """

    records: np.ndarray
    firsts: np.ndarray
    counts: np.ndarray


def class_lists(records: Records) -> ClassLists:
    """Sorts the records of a split by class. A record without labels is in none, so it is never drawn."""
    numbers, labels = records.label_pairs()
    order = np.argsort(labels, kind="stable")
    _, firsts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return ClassLists(records=numbers[order], firsts=firsts.astype(np.int64), counts=counts.astype(np.int64))


def class_balanced(slots: tf.Tensor, lists: ClassLists, seed: int) -> tf.Tensor:
    """Records of slots, (B,) int64: for each slot a class, each as likely, then one of its records, each as likely."""
    firsts, counts, records = (tf.constant(part) for part in (lists.firsts, lists.counts, lists.records))

    def record(slot):
        key = fold(run_seed(seed), _CLASS, slot)
        which = tf.random.stateless_uniform([], fold(key, 0), maxval=len(lists.counts), dtype=tf.int64)
        place = tf.random.stateless_uniform([], fold(key, 1), maxval=counts[which], dtype=tf.int64)
        return records[firsts[which] + place]

    return tf.map_fn(record, slots)
