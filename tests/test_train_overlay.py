"""Attention Rollout as a picture."""

import numpy as np
import pytest
from PIL import Image

from mbt.train import overlay
from mbt.train.overlay import Look


def by_hand(grid: np.ndarray, size: int) -> np.ndarray:
    """Bilinear between the middles of cells, held at the edges; for a square grid and picture."""
    cell = size / len(grid)
    at = np.clip((np.arange(size) + 0.5) / cell - 0.5, 0, len(grid) - 1)
    low = np.minimum(at.astype(int), len(grid) - 2)
    part = (at - low)[:, None]
    rows = grid[low] * (1 - part) + grid[low + 1] * part
    return (rows.T[low] * (1 - part) + rows.T[low + 1] * part).T


def look(shares: dict, box: tuple, frame: np.ndarray | None = None, sound: np.ndarray | None = None) -> Look:
    pictures = {name: picture for name, picture in (("rgb", frame), ("spectrogram", sound)) if picture is not None}
    return Look(name="run", pictures=pictures, boxes=dict.fromkeys(pictures, box), shares=shares)


def test_heat_is_summed_over_frames_smooth_and_only_where_the_patches_are():
    shares = np.zeros((3, 4, 4))
    shares[0, 1, 2], shares[2, 1, 2], shares[1, 3, 0] = 0.2, 0.3, 0.1
    heat = look({"rgb": shares}, (10, 20, 40, 40), np.zeros((60, 90, 3), np.uint8)).heat("rgb")
    expected = by_hand(shares.sum(axis=0), 40)
    low, high = np.median(expected), np.percentile(expected, 99)
    inside = heat[10:50, 20:60]
    np.testing.assert_allclose(inside, np.clip((expected - low) / (high - low), 0, 1), atol=1e-6)
    assert np.unravel_index(expected.argmax(), expected.shape) in [(14, 24), (14, 25), (15, 24), (15, 25)]
    assert heat.sum() == inside.sum() and inside.max() == 1


def test_one_patch_does_not_hide_the_others():
    shares = np.random.default_rng(0).uniform(0.9, 1.1, (14, 14))
    shares[5, 5] = 100
    heat = overlay.on_pixels(shares, (224, 224), (0, 0, 224, 224))
    assert np.mean(heat > 0.002) > 0.1 and heat.max() == 1  # 0.02 up to the greatest


def test_a_map_that_is_flat_colours_nothing():
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    heat = overlay.on_pixels(np.ones((2, 2)), (8, 8), (0, 0, 8, 8))
    np.testing.assert_array_equal(overlay.coloured(picture, heat), picture)


def test_a_spectrogram_has_time_to_the_right_and_low_bins_below():
    rows = np.zeros((6, 4), np.float32)
    rows[5, 0] = 1
    picture = overlay.gray(rows)
    assert picture.shape == (4, 6, 3)
    np.testing.assert_array_equal(np.argwhere(picture[..., 0]), [[3, 5]])


@pytest.mark.parametrize("senses", [("rgb", "spectrogram"), ("rgb",), ("spectrogram",)])
def test_runs_stand_beside_the_original(tmp_path, senses):
    draw = np.random.default_rng(0)
    pictures = {"rgb": draw.integers(0, 255, (96, 128, 3), np.uint8), "spectrogram": draw.normal(size=(200, 128))}
    maps = {"rgb": draw.uniform(size=(2, 3, 3)) / 36, "spectrogram": draw.uniform(size=(12, 8)) / 192}
    boxes = {"rgb": (6, 22, 84, 84), "spectrogram": (0, 0, 192, 128)}

    def of(name: str, *used: str) -> Look:
        parts = ({key: values[key] for key in used} for values in (pictures, boxes, maps))
        return Look(**dict(zip(("pictures", "boxes", "shares"), parts, strict=True)), name=name)

    path = tmp_path / "rollout.png"
    overlay.draw([of("both", *senses), of("one", senses[0])], path)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape[:2] == (480 * len(senses), 3 * 600)
    cells = [np.array_split(row, 3, axis=1) for row in np.array_split(picture, len(senses), axis=0)]
    for number, (original, *runs) in enumerate(cells):
        assert original.std() > 5 and runs[0].std() > 5
        assert (runs[1].std() > 5) == (number == 0)  # the other run has the first sense alone
