"""Attention Rollout drawn over what a clip's model saw, as the paper's Fig. 6: frames, and the spectrogram below.

F frames, H height and W width of a frame, R rows and M mel bins of the spectrogram.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

# The share of its own colour that a pixel keeps where the most attention goes.
KEPT_LEAST = 0.35


def draw(inputs: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes a PNG.

    Args:
      inputs: of one clip, by modality: (F, H, W, 3) from 0 to 255, or (R, M, 1).
      maps: of one output of `mbt.model.rollout.rollout`, by modality: shares on the patch grid of that clip.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    strips = {name: strip(inputs[name], maps[name]) for name in inputs}
    figure = Figure(figsize=(12, 2.5 * len(strips)), layout="constrained")
    for axes, (name, picture) in zip(figure.subplots(len(strips), squeeze=False)[:, 0], strips.items(), strict=True):
        axes.imshow(picture)
        axes.set(title=f"{name}: {maps[name].sum():.0%} of the output", xticks=[], yticks=[])
    figure.savefig(path, dpi=150, format="png")


def strip(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """One input with its shares in red: frames side by side, a spectrogram with time to the right. (h, w, 3) uint8."""
    shares = spread(shares, values.shape[:-1])
    if values.shape[-1] == 1:
        shown, shares = _gray(values[..., 0].T[::-1]), shares.T[::-1]
    else:
        shown, shares = np.concatenate([*values], axis=1), np.concatenate([*shares], axis=1)
    weight = (1 - KEPT_LEAST) * (shares / max(shares.max(), 1e-30))[..., None]
    return np.round(shown * (1 - weight) + np.array([255, 0, 0]) * weight).astype(np.uint8)


def spread(shares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Shares on a patch grid as values on every pixel; what fills no patch gets 0."""
    for axis, size in enumerate(shape):
        side = size // shares.shape[axis]
        shares = np.repeat(shares, side, axis)
        rest = [(0, 0)] * shares.ndim
        rest[axis] = (0, size - shares.shape[axis])
        shares = np.pad(shares, rest)
    return shares


def _gray(values: np.ndarray) -> np.ndarray:
    """(h, w) to (h, w, 3), from the least value at 0 to the greatest at 255."""
    span = max(float(np.ptp(values)), 1e-30)
    return np.repeat(255 * (values - values.min())[..., None] / span, 3, axis=-1)
