"""SpecAugment's stripes."""

import numpy as np
import pytest
import tensorflow as tf
from loading import both_ways
from ml_collections import ConfigDict

from mbt.train.augment import fold, run_seed
from mbt.train.spec_augment import mask

ROWS, BINS, FILL = 40, 16, -7.0
MEL = np.random.default_rng(0).random((ROWS, BINS)).astype(np.float32)


def options_of(**options) -> ConfigDict:
    defaults = {"time_masks": 0, "time_rows": 12, "frequency_masks": 0, "frequency_bins": 5}
    return ConfigDict(defaults | options)


def masked(count: int, **options) -> list[np.ndarray]:
    """Which values are masked by each of so many seeds; all others are checked to be as they were."""
    numbers = tf.data.Dataset.range(count)
    results = numbers.map(lambda number: mask(MEL, options_of(**options), FILL, fold(run_seed(0), number)))
    results = list(results.as_numpy_iterator())
    for result in results:
        np.testing.assert_array_equal(result[result != FILL], MEL[result != FILL])
    return [result == FILL for result in results]


def test_eagerly_as_in_tf_data():
    options = options_of(time_masks=2, frequency_masks=1)
    both_ways(lambda mel, number: mask(mel, options, FILL, fold(run_seed(0), number)), MEL, np.int64(3))


@pytest.mark.parametrize(("kind", "axis", "widest"), [("time_masks", 1, 12), ("frequency_masks", 0, 5)])
def test_one_stripe_of_any_width_up_to_the_greatest_anywhere(kind, axis, widest):
    widths, seen = set(), np.zeros(MEL.shape[1 - axis], bool)
    for hidden in masked(150, **{kind: 1}):
        stripe = hidden.any(axis=axis)
        np.testing.assert_array_equal(hidden, np.expand_dims(stripe, axis).repeat(hidden.shape[axis], axis))
        assert np.count_nonzero(np.diff(stripe.astype(int), prepend=0, append=0)) in (0, 2)  # in one piece
        widths.add(int(stripe.sum()))
        seen |= stripe
    assert widths == set(range(widest + 1))
    assert seen.all()


def test_several_stripes_and_both_kinds():
    begins = [np.diff(hidden[:, 0].astype(int), prepend=0) == 1 for hidden in masked(20, time_masks=3)]
    assert max(np.count_nonzero(places) for places in begins) == 3
    _, both = masked(2, time_masks=1, frequency_masks=1, time_rows=10**6)
    rows, bins = both.all(axis=1), both.all(axis=0)
    assert rows.any()
    assert bins.any()
    np.testing.assert_array_equal(both, rows[:, None] | bins[None])


def test_none_without_masks():
    assert not masked(1)[0].any()


def test_the_frozen_mean_becomes_zero():
    mel = tf.constant(MEL)
    options = ConfigDict({"time_masks": 1, "time_rows": ROWS, "frequency_masks": 0, "frequency_bins": 0})
    mean = float(np.float32(1.102))
    scaled = (mask(mel, options, mean, fold(run_seed(0), 3)).numpy() - np.float32(mean)) / np.float32(2.762)
    assert (scaled == 0).any()
