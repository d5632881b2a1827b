"""Attention Rollout as a picture."""

import numpy as np
from flax import nnx
from PIL import Image

from mbt.model.config import MBTConfig, Modality, Size
from mbt.model.mbt import MBT
from mbt.model.rollout import rollout
from mbt.train.overlay import draw, spread, strip


def test_shares_are_spread_over_their_patches():
    shares = np.arange(4.0).reshape(1, 2, 2)
    spread_shares = spread(shares, (2, 4, 5))
    assert spread_shares.shape == (2, 4, 5)
    np.testing.assert_array_equal(
        spread_shares[1], [[0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [2, 2, 3, 3, 0], [2, 2, 3, 3, 0]]
    )


def test_frames_stand_side_by_side_and_redden_where_attention_goes():
    frames = np.full((2, 4, 4, 3), 200, np.uint8)
    shares = np.zeros((2, 2, 2))
    shares[1, 0, 1] = 0.1
    picture = strip(frames, shares)
    assert picture.shape == (4, 8, 3)
    red = picture[..., 0].astype(int) - picture[..., 1]
    assert (red[:2, 6:] > 100).all()
    assert red.sum() == red[:2, 6:].sum()


def test_a_spectrogram_has_time_to_the_right_and_low_bins_below():
    rows = np.zeros((6, 4, 1), np.float32)
    rows[5, 0] = 1
    picture = strip(rows, np.zeros((3, 2)))
    assert picture.shape == (4, 6, 3)
    np.testing.assert_array_equal(np.argwhere(picture[..., 0]), [[3, 5]])


def test_a_models_rollout_becomes_a_picture(tmp_path):
    rgb = Modality(name="rgb", shape=(2, 32, 32), channels=3, patch=(16, 16))
    sound = Modality(name="spectrogram", shape=(64, 32), channels=1, patch=(16, 16))
    size = Size(width=16, depth=2, heads=2, mlp_dim=16)
    config = MBTConfig(modalities=(rgb, sound), size=size, num_classes=3, fusion_layer=0)
    inputs = {
        m.name: np.random.default_rng(0).uniform(0, 255, (1, *m.shape, m.channels)).astype(np.float32)
        for m in config.modalities
    }
    path = tmp_path / "rollout.png"
    maps = rollout(MBT(config, rngs=nnx.Rngs(0)), {m: x / 127.5 - 1 for m, x in inputs.items()})
    draw({m: x[0] for m, x in inputs.items()}, {m: np.asarray(x[0]) for m, x in maps["rgb"].items()}, path)
    assert np.asarray(Image.open(path).convert("RGB")).std() > 5
