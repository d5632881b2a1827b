"""SpecAugment (Park et al., 2019, without time warping): stripes of a spectrogram are masked.

A plain function of tensors, the same eagerly and inside `tf.data`. R rows, M mel bins.
"""

import tensorflow as tf
from ml_collections import ConfigDict

from mbt.train.augment import fold


def mask(mel: tf.Tensor, options: ConfigDict, fill: float, seed: tf.Tensor) -> tf.Tensor:
    """Masks stripes of rows (time) and of bins (frequency).

    A stripe's width is uniform from 0 to its greatest, its place uniform where it fits.

    Args:
      mel: (R, M) float32.
      options: `config.data.spec_augment`.
      fill: value of what is masked: the frozen mean, which normalisation turns to 0.
      seed: (2,) int64.
    """
    rows = _stripes(mel.shape[0], options.time_masks, options.time_rows, seed, 0)
    bins = _stripes(mel.shape[1], options.frequency_masks, options.frequency_bins, seed, 1)
    return tf.where(rows[:, None] | bins[None, :], tf.constant(fill, mel.dtype), mel)


def _stripes(length: int, count: int, widest: int, seed: tf.Tensor, axis: int) -> tf.Tensor:
    """What lies in any stripe, (length,) bool."""
    draws = tf.random.stateless_uniform([2, count, 1], fold(seed, axis))
    widths = tf.floor(draws[0] * (min(widest, length) + 1))
    firsts = tf.floor(draws[1] * (length - widths + 1))
    places = tf.range(length, dtype=tf.float32)[None]
    return tf.reduce_any((places >= firsts) & (places < firsts + widths), axis=0)
