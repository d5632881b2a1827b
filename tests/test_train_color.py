"""Colour jitter and what of augmentation runs on the device."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt.train.color import LUMA, color_jitter, draw_affine
from mbt.train.config import default_config
from mbt.train.device_augment import augment_on_device, device_columns

CLIPS = 64
FRAMES = np.random.default_rng(0).integers(0, 256, (CLIPS, 2, 6, 5, 3), np.uint8)
SEEDS = np.random.default_rng(1).integers(0, 2**32, (CLIPS, 2), np.uint32)


@pytest.fixture(scope="module")
def jitter():
    return jax.jit(color_jitter)


def test_nothing_changes_at_probability_zero(jitter):
    np.testing.assert_allclose(jitter(FRAMES, SEEDS, 0.0, 0.0), FRAMES, atol=1e-4)


def test_dropped_colours_leave_the_luma(jitter):
    grey = np.asarray(jitter(FRAMES, SEEDS, 0.0, 1.0))
    np.testing.assert_allclose(grey, np.repeat((FRAMES @ LUMA)[..., None], 3, axis=-1), atol=1e-3)


def test_clips_change_as_often_as_asked(jitter):
    changed = np.abs(np.asarray(jitter(FRAMES, SEEDS, 0.7, 0.0)) - FRAMES).max(axis=(1, 2, 3, 4)) > 1e-3
    assert 0.5 < changed.mean() < 0.9
    grey = np.ptp(np.asarray(jitter(FRAMES, SEEDS, 0.7, 0.3)), axis=-1).max(axis=(1, 2, 3)) < 1e-3
    assert 0.1 < grey.mean() < 0.5


def test_a_clip_depends_on_its_own_seed_and_pixels_alone(jitter):
    whole = np.asarray(jitter(FRAMES, SEEDS, 0.7, 0.3))
    np.testing.assert_allclose(whole[::-1], jitter(FRAMES[::-1].copy(), SEEDS[::-1].copy(), 0.7, 0.3), atol=1e-3)
    np.testing.assert_allclose(color_jitter(FRAMES[5:6], SEEDS[5:6], 0.7, 0.3)[0], whole[5], atol=1e-3)
    assert whole.min() >= 0
    assert whole.max() <= 255


def test_one_change_for_all_frames_of_a_clip(jitter):
    still = np.repeat(FRAMES[:, :1], 2, axis=1)
    result = np.asarray(jitter(still, SEEDS, 1.0, 0.0))
    np.testing.assert_array_equal(result[:, 0], result[:, 1])


def test_saturation_and_hue_keep_the_luma_and_turn_the_hue():
    turned = 0
    for seed in SEEDS[:30]:
        matrix, offset = (np.asarray(part, np.float64) for part in draw_affine(seed, jnp.full(3, 100.0), 1.0, 0.0))
        contrast = matrix[0].sum()  # what grey is multiplied by
        assert 0.6 <= contrast <= 1.4
        np.testing.assert_allclose(matrix.sum(axis=1), contrast, rtol=1e-4)
        np.testing.assert_allclose(np.ptp(offset), 0, atol=1e-4)
        # Contrast turns about the clip's grey level, which brightness has moved: 100 -> 100 + b.
        assert abs(contrast * 100 + offset[0] - 100) <= 32.01
        np.testing.assert_allclose(LUMA @ matrix, contrast * LUMA, atol=2e-3)
        before, after = (colorsys.rgb_to_hsv(*color)[0] for color in ([0.6, 0.4, 0.4], matrix @ [0.6, 0.4, 0.4]))
        turned += abs((after - before + 0.5) % 1 - 0.5) > 0.05
    assert turned > 10


def config_with(**data):
    config = default_config()
    config.data.update(data)
    return config


def test_the_device_changes_a_batch_only_where_the_config_asks():
    batch = {"rgb": jnp.asarray(FRAMES), "seeds": jnp.asarray(SEEDS), "labels": jnp.zeros((CLIPS, 1))}
    assert augment_on_device(config_with(), batch) is batch
    assert device_columns(config_with()) == ()
    sound = config_with(color_jitter=0.8)
    sound.modalities = ("spectrogram",)
    assert device_columns(sound) == ()
    config = config_with(color_jitter=0.8, color_drop=0.1)
    assert device_columns(config) == ("seeds",)
    result = jax.jit(lambda b: augment_on_device(config, b))(batch)
    np.testing.assert_allclose(result["rgb"], color_jitter(FRAMES, SEEDS, 0.8, 0.1), atol=1e-3)
    assert result.keys() == batch.keys()
