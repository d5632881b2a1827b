"""The order of a run: what is drawn, and that only the seed and the slot decide."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import both_ways, fake_clip

from mbt.schemas.fakes import write_snapshot
from mbt.train import sampling
from mbt.train.clips import ChosenRecords
from mbt.train.snapshot import Records


def uniform(slots, num_records, seed=5):
    return compiled(lambda s: sampling.uniform(s, num_records, seed), slots)


def compiled(function, slots):
    """As in `tf.data`: slot after slot, eager operations take a millisecond each."""
    return tf.function(function)(tf.constant(slots, tf.int64)).numpy()


def test_eagerly_as_in_tf_data():
    slots = np.arange(20, dtype=np.int64)
    both_ways(lambda s: sampling.uniform(s, 7, 5), slots)
    both_ways(lambda s: sampling.class_balanced(s, LISTS, 5), slots)


@pytest.mark.parametrize("total", [1, 2, 7, 100, 1001])
def test_every_record_once_an_epoch_and_every_epoch_anew(total):
    by_epoch = uniform(np.arange(3 * total), total).reshape(3, total)
    for order in by_epoch:
        np.testing.assert_array_equal(np.sort(order), np.arange(total))
    assert total < 7 or len({tuple(order) for order in by_epoch}) == 3


def test_the_seed_decides_the_order():
    assert not np.array_equal(uniform(np.arange(50), 50, seed=0), uniform(np.arange(50), 50, seed=1))


@tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)])
def shuffled(slots, total):
    """Compiled once for all examples."""
    return sampling.uniform(slots, total, 3)


@settings(max_examples=25, deadline=None)
@given(
    total=st.integers(1, 60),
    rows=st.integers(1, 5),
    hosts=st.integers(1, 4),
)
def test_no_clip_twice_nor_left_out_at_any_number_of_hosts(total, rows, hosts):
    batch = rows * hosts
    steps = -(-2 * total // batch)  # two epochs, and what is left of the last batch
    slots = [
        np.concatenate([sampling.batch_slots(tf.constant(step), batch, host, hosts) for step in range(steps)])
        for host in range(hosts)
    ]
    together = np.concatenate(slots)
    np.testing.assert_array_equal(np.sort(together), np.arange(steps * batch))
    records = shuffled(together, total).numpy()
    for epoch in range(2):
        np.testing.assert_array_equal(np.sort(records[together // total == epoch]), np.arange(total))


LISTS = sampling.ClassLists(
    records=np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), firsts=np.array([0, 6, 9]), counts=np.array([6, 3, 1])
)


def test_classes_are_drawn_as_often_as_each_other():
    records = compiled(lambda s: sampling.class_balanced(s, LISTS, 0), np.arange(3000))
    counts = np.bincount(records, minlength=9)
    np.testing.assert_allclose(counts[:6], 3000 / 18, rtol=0.3)  # a third of the slots for six clips
    np.testing.assert_allclose(counts[6:8], 3000 / 9, rtol=0.3)
    np.testing.assert_allclose(counts[8], 3000 / 9 + 3000 / 3, rtol=0.1)  # in two classes


def test_a_slots_draw_needs_no_other():
    together = sampling.class_balanced(tf.range(20, dtype=tf.int64), LISTS, 3).numpy()
    alone = [sampling.class_balanced(tf.constant([slot], tf.int64), LISTS, 3).numpy()[0] for slot in range(20)]
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(together, sampling.class_balanced(tf.range(20, dtype=tf.int64), LISTS, 4))


def test_lists_hold_each_record_under_all_its_classes(tmp_path):
    labels = [(0, 3), (3,), (), (1,), (0,)]
    clips = [fake_clip(number, frames=2, labels=labels[number]) for number in range(5)]
    split = write_snapshot(tmp_path, {"train": clips}, tuple("abcd")).splits["train"]
    lists = sampling.class_lists(Records(str(tmp_path), split))
    in_shards = [labels[clip] for clip in (0, 2, 4, 1, 3)]  # two shards, which take clips in turn
    for first, count, label in zip(lists.firsts, lists.counts, (0, 1, 3), strict=True):
        members = [number for number, of_clip in enumerate(in_shards) if label in of_clip]
        np.testing.assert_array_equal(lists.records[first : first + count], members)


def test_lists_of_chosen_records_have_their_numbers(tmp_path):
    clips = [fake_clip(number, frames=2, labels=(number % 3,)) for number in range(6)]
    split = write_snapshot(tmp_path, {"train": clips}, tuple("abc")).splits["train"]
    records = ChosenRecords(str(tmp_path), split, frozenset({"clip-1", "clip-4", "clip-5"}))
    numbers, labels = records.label_pairs()
    assert [records.ids()[number] for number in numbers] == ["clip-4", "clip-1", "clip-5"]
    assert labels.tolist() == [1, 1, 2]
