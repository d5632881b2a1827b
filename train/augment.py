"""Crops and flips of frames: plain functions, the same eagerly and inside `tf.data`.

Every draw is stateless: a function of its seed, and the seed one of (run, epoch, record).
"""

import math

import numpy as np
import tensorflow as tf


def run_seed(seed: int) -> tf.Tensor:
    """A run's seed as tf.random takes it: (2,) int64."""
    return tf.constant([seed, 0], tf.int64)


def fold(seed: tf.Tensor, *numbers: tf.Tensor | int) -> tf.Tensor:
    """A (2,) int64 seed made of a seed and any numbers, such as epoch and record."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))
    return seed


def frame_offsets(window: float, frames: int) -> np.ndarray:
    """Frames of a window at equal strides, (frames,): i-th is floor(i * window / frames).

    Args:
      window: length of the window in source frames, 25 t.
      frames: F.
    """
    # Rounding first: 25 t may come out a hair under a whole number.
    return np.floor(np.round(np.arange(frames) * window / frames, 6)).astype(np.int64)


def random_box(size: tf.Tensor, area: tuple[float, float], aspect: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """A random crop: (4,) int32 of top, left, height, width in pixels.

    Args:
      size: (2,) height and width of the frame.
      area: least and greatest share of the frame; drawn uniformly.
      aspect: least and greatest width / height; drawn uniformly in its logarithm.
      seed: (2,).
    """
    draws = tf.random.stateless_uniform([4], seed)
    frame = tf.cast(size, tf.float32)
    pixels = (area[0] + draws[0] * (area[1] - area[0])) * frame[0] * frame[1]
    ratio = tf.exp(math.log(aspect[0]) + draws[1] * math.log(aspect[1] / aspect[0]))
    box = tf.stack([tf.sqrt(pixels / ratio), tf.sqrt(pixels * ratio)])
    box = tf.clip_by_value(tf.round(box), 1.0, frame)
    corner = tf.floor(draws[2:] * (frame - box + 1))
    return tf.cast(tf.concat([tf.minimum(corner, frame - box), box], axis=0), tf.int32)


def center_box(size: tf.Tensor, share: float) -> tf.Tensor:
    """A square in the centre, of `share` times the shorter side: (4,) int32 of top, left, height, width in pixels."""
    size = tf.cast(size, tf.int32)
    side = tf.cast(tf.round(share * tf.cast(tf.reduce_min(size), tf.float32)), tf.int32)
    side = tf.maximum(side, 1)
    return tf.stack([(size[0] - side) // 2, (size[1] - side) // 2, side, side])


def decode_frames(jpegs: tf.Tensor, box: tf.Tensor, frames: int, side: int) -> tf.Tensor:
    """Decodes the box of every frame and scales it bilinearly.

    Args:
      jpegs: (frames,) strings.
      box: (4,) as above.
      frames: F.
      side: of the result, pixels.

    Returns:
      (frames, side, side, 3) uint8.
    """
    return scale(decode_box(jpegs, box, frames), side)


def decode_box(jpegs: tf.Tensor, box: tf.Tensor, frames: int) -> tf.Tensor:
    """The box of every frame, (frames, height, width, 3) uint8; only its rows and columns are decoded."""
    decode = tf.image.decode_and_crop_jpeg
    return tf.stack([decode(jpegs[i], box, channels=3, dct_method="INTEGER_ACCURATE") for i in range(frames)])


def scale(frames: tf.Tensor, side: int) -> tf.Tensor:
    """Bilinear, (F, h, w, 3) to (F, side, side, 3) uint8."""
    return tf.cast(tf.round(tf.image.resize(frames, [side, side])), tf.uint8)


def random_flip(frames: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors all frames of a clip, or none, with equal chance. (F, H, W, 3) to the same."""
    # A gather takes 2 ms where TensorFlow's reversal of such small rows takes 15.
    columns = tf.range(frames.shape[2] - 1, -1, -1)
    draw = tf.random.stateless_uniform([], seed)
    return tf.cond(draw < 0.5, lambda: tf.gather(frames, columns, axis=2), lambda: frames)
