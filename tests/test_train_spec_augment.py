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


def masked(number: int, **options) -> np.ndarray:
    """Which values are masked; all others are checked to be as they were."""
    options = {"time_masks": 0, "time_rows": 12, "frequency_masks": 0, "frequency_bins": 5} | options
    result = both_ways(lambda mel: mask(mel, ConfigDict(options), FILL, fold(run_seed(0), number)), MEL)
    hidden = result == FILL
    np.testing.assert_array_equal(result[~hidden], MEL[~hidden])
    return hidden


@pytest.mark.parametrize(("kind", "axis", "widest"), [("time_masks", 1, 12), ("frequency_masks", 0, 5)])
def test_one_stripe_of_any_width_up_to_the_greatest_anywhere(kind, axis, widest):
    widths, seen = set(), np.zeros(MEL.shape[1 - axis], bool)
    for number in range(120):
        hidden = masked(number, **{kind: 1})
        stripe = hidden.any(axis=axis)
        np.testing.assert_array_equal(hidden, np.expand_dims(stripe, axis).repeat(hidden.shape[axis], axis))
        assert np.count_nonzero(np.diff(stripe.astype(int), prepend=0, append=0)) in (0, 2)  # in one piece
        widths.add(int(stripe.sum()))
        seen |= stripe
    assert widths == set(range(widest + 1))
    assert seen.all()


def test_several_stripes_and_both_kinds():
    count = max(np.count_nonzero(np.diff(masked(n, time_masks=3)[:, 0].astype(int)) == 1) for n in range(20))
    assert count == 3
    both = masked(1, time_masks=1, frequency_masks=1, time_rows=10**6)
    rows, bins = both.all(axis=1), both.all(axis=0)
    assert rows.any()
    assert bins.any()
    np.testing.assert_array_equal(both, rows[:, None] | bins[None])


def test_none_without_masks():
    assert not masked(0).any()


def test_the_frozen_mean_becomes_zero():
    mel = tf.constant(MEL)
    options = ConfigDict({"time_masks": 1, "time_rows": ROWS, "frequency_masks": 0, "frequency_bins": 0})
    mean = float(np.float32(1.102))
    scaled = (mask(mel, options, mean, fold(run_seed(0), 3)).numpy() - np.float32(mean)) / np.float32(2.762)
    assert (scaled == 0).any()
