"""Attention Rollout drawn over a clip, as in the paper's Fig. 6: the original, and beside it where an output came from.

H height and W width of a frame as the record has it, R rows and M mel bins of the spectrogram.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mbt.train.modalities import RGB, SPECTROGRAM

Box = tuple[int, int, int, int]  # top, left, height, width in pixels

# A map is drawn from its median, where nothing is coloured, to this percentile: one patch must not hide all others.
_BRIGHTEST = 99
_COLORS = "turbo"
_OPACITY = 0.6  # where the most attention goes
ORIGINAL = "original"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a run made of a window of a clip.

    Attributes:
      name: of the run.
      pictures: what there was to see and to hear, by modality: a frame, (H, W, 3) uint8, and a spectrogram, (R, M).
      boxes: by modality, the part of the picture that the patches cover.
      shares: by modality, of the patches in one output, as `mbt.model.rollout.rollout` gives them.
    """

    name: str
    pictures: Mapping[str, np.ndarray]
    boxes: Mapping[str, Box]
    shares: Mapping[str, np.ndarray]

    def heat(self, modality: str) -> np.ndarray:
        """On every pixel of a picture from 0 to 1; of frames it is the sum."""
        shares = self.shares[modality]
        by_patch = shares.reshape(-1, *shares.shape[-2:]).sum(axis=0)
        return on_pixels(by_patch, self.pictures[modality].shape[:2], self.boxes[modality])


def draw(looks: Sequence[Look], path: pathlib.Path) -> None:
    """Writes a PNG: a row for each sense, in it the original and then a picture of each run.

    Args:
      looks: at the same clip.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    rows = [name for name in (RGB, SPECTROGRAM) if any(name in look.pictures for look in looks)]
    figure = Figure(figsize=(4 * (1 + len(looks)), 3.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 1 + len(looks), squeeze=False)
    for line, name in zip(grid, rows, strict=True):
        _show(line[0], _shown(next(look.pictures[name] for look in looks if name in look.pictures)), ORIGINAL)
        for axes, look in zip(line[1:], looks, strict=True):
            if name in look.pictures:
                heat = look.heat(name) if name == RGB else look.heat(name).T[::-1]
                title = f"{look.name}: {look.shares[name].sum():.0%} of the output"
                _show(axes, coloured(_shown(look.pictures[name]), heat), title)
            else:
                axes.axis("off")
    figure.savefig(path, dpi=150, format="png")


def _shown(picture: np.ndarray) -> np.ndarray:
    return gray(picture) if picture.ndim == 2 else picture


def _show(axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, aspect="equal" if picture.shape[0] > picture.shape[1] / 3 else "auto")
    axes.set(title=title, xticks=[], yticks=[])


def on_pixels(shares: np.ndarray, shape: tuple[int, ...], box: Box) -> np.ndarray:
    """Shares of patches as heat on pixels, (H, W) from 0 to 1, smooth.

    Args:
      shares: (rows, columns) of patches.
      shape: (H, W).
      box: what the patches cover; there is no heat outside.
    """
    top, left, height, width = box
    heat = np.zeros(shape)
    heat[top : top + height, left : left + width] = scaled(smooth(shares, (height, width)))
    return heat


def smooth(shares: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Values on a grid as values on pixels, between the middles of its cells bilinear."""
    image = Image.fromarray(shares.astype(np.float32), mode="F")
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def scaled(values: np.ndarray) -> np.ndarray:
    """From 0 at the median to 1 at the 99th percentile; a map that is the same everywhere is 0."""
    low, high = np.median(values), np.percentile(values, _BRIGHTEST)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def coloured(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture with heat over it: (h, w, 3) uint8 and (h, w) to (h, w, 3) uint8; where there is none, as it was."""
    from matplotlib import colormaps

    colors = colormaps[_COLORS](heat)[..., :3] * 255
    weight = _OPACITY * heat[..., None]
    return np.round(picture * (1 - weight) + colors * weight).astype(np.uint8)


def gray(spectrogram: np.ndarray) -> np.ndarray:
    """(R, M) to (M, R, 3) uint8: time to the right, low bins below, from the least value to the greatest."""
    values = spectrogram.T[::-1]
    span = max(float(np.ptp(values)), 1e-30)
    return np.repeat(np.round(255 * (values - values.min()) / span).astype(np.uint8)[..., None], 3, axis=-1)
