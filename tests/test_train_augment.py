"""Each operation eagerly and inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf
from loading import both_ways, jpeg

from mbt.train import augment


def seed(number: int) -> tf.Tensor:
    return augment.fold(augment.run_seed(0), number)


def test_seeds_differ_by_every_number():
    seeds = {
        tuple(both_ways(lambda a, b: augment.fold(augment.run_seed(0), a, b), np.int64(a), np.int64(b)))
        for a in range(3)
        for b in range(3)
    }
    assert len(seeds) == 9


@pytest.mark.parametrize(("seconds", "stride"), [(4, 12.5), (8, 25.0), (2, 6.25), (6, 18.75)])
def test_frames_at_the_papers_strides(seconds, stride):
    offsets = augment.frame_offsets(25 * seconds, 8)
    np.testing.assert_array_equal(offsets, [int(i * stride) for i in range(8)])
    assert offsets[-1] < 25 * seconds


def test_frame_offsets_survive_rounding():
    np.testing.assert_array_equal(augment.frame_offsets(25 * 1.16, 29), np.arange(29))  # 1.16 * 25 is 28.999...


def test_random_boxes_lie_inside_and_have_the_asked_area():
    areas = []
    for number in range(50):
        box = both_ways(
            lambda s: augment.random_box(tf.constant([120, 160]), (0.3, 0.6), (0.75, 1.33), s), seed(number)
        )
        top, left, height, width = box
        assert min(top, left) >= 0
        assert top + height <= 120
        assert left + width <= 160
        areas.append(height * width / (120 * 160))
    assert 0.28 < min(areas) < 0.4
    assert 0.5 < max(areas) < 0.62


def test_a_box_of_the_whole_frame():
    box = augment.random_box(tf.constant([120, 160]), (1.0, 1.0), (4 / 3, 4 / 3), seed(0))
    np.testing.assert_array_equal(box, [0, 0, 120, 160])


def test_center_box():
    box = both_ways(lambda size: augment.center_box(size, 0.5), np.array([120, 160], np.int32))
    np.testing.assert_array_equal(box, [30, 50, 60, 60])


def test_frames_are_cropped_and_scaled():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (48, 64, 3))
    jpegs = np.array([jpeg(ramp), jpeg(255 - ramp)], object)
    frames = both_ways(lambda j: augment.decode_frames(j, tf.constant([8, 16, 32, 32]), 2, 16), jpegs)
    assert frames.shape == (2, 16, 16, 3)
    assert frames.dtype == np.uint8
    expected = ramp[8:40, 16:48].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(frames[0], expected, atol=3)
    np.testing.assert_allclose(frames[1], 255 - expected, atol=3)


def test_flips_mirror_a_whole_clip_half_of_the_time():
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    flipped = 0
    for number in range(60):
        result = both_ways(augment.random_flip, frames, seed(number))
        mirrored = (result == frames[:, :, ::-1]).all()
        assert mirrored or (result == frames).all()
        flipped += mirrored
    assert 15 < flipped < 45
