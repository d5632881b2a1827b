"""ViT weights in the `.npz` form of https://github.com/google-research/vision_transformer, for every modality."""

import math
import os

import numpy as np

from mbt.model.config import Modality
from mbt.model.mbt import MBT
from mbt.model.weights import (
    Arrays,
    Path,
    WeightsError,
    as_float32,
    block_path,
    cause,
    dotted,
    fit,
    require,
    resize_grid,
    shapes_of,
    update,
)

POSITIONS = "Transformer/posembed_input/pos_embedding"
# Parameters that have no like in a ViT, or whose meaning is another data set's.
KEPT = ("bottlenecks", "head", "pre_logits")


def read_vit(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a ViT.

    Raises:
      WeightsError: the file is something else.
    """
    try:
        # NumPy leaves a file open that it cannot read, unless it is given one.
        with open(path, "rb") as data, np.load(data, allow_pickle=False) as file:
            arrays = {name: as_float32(name, array) for name, array in file.items()}
    except OSError:
        raise
    except Exception as error:  # a damaged file makes NumPy and zlib raise many kinds
        raise WeightsError(f"{path}: not an .npz of arrays: {error}") from error
    require(path, arrays, ("embedding/kernel", POSITIONS, "Transformer/encoder_norm/scale"), "a ViT")
    return arrays


def load_vit(model: MBT, arrays: Arrays) -> None:
    """Starts every modality from one ViT: layers, patch projection, CLS, positions and the last LayerNorm.

    Position grids are resized bilinearly with aligned corners, then repeated over the axes before the last two
    (frames). A 2D patch kernel goes to the central frame of tubelets. Head, pre-logits layer and bottlenecks keep
    their values.

    Args:
      model: changed in place.
      arrays: from `read_vit`.

    Raises:
      WeightsError: a parameter is missing, or has another shape.
    """
    depth = model.config.size.depth
    layers = {name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")}
    if len(layers) > depth:
        raise WeightsError(f"the file has {len(layers)} layers, more than the model's {depth}: {cause('layers')}")
    shapes = {path: shape for path, shape in shapes_of(model).items() if path[0] not in KEPT}
    names = {path: _name_of(path, arrays) for path in shapes}
    values = {path: fit(path, arrays[names[path]], shape) for path, shape in shapes.items()}
    for modality in model.config.modalities:
        path = ("tokens", modality.name, "positions")
        values[path] = fit_positions(arrays, modality, has_cls=model.config.pooling == "cls")
    update(model, values, names)


def fit_positions(arrays: Arrays, modality: Modality, *, has_cls: bool) -> np.ndarray:
    """A ViT's positions for an input: (1, T, D).

    Raises:
      WeightsError: the ViT's frames were not square, or the input has no rows and columns.
    """
    shape, first = arrays[POSITIONS].shape, 1 if "cls" in arrays else 0
    side = math.isqrt(max(0, shape[1] - first)) if len(shape) == 3 else 0
    if not side or shape != (1, first + side * side, shape[2]):
        raise WeightsError(f"{POSITIONS} of shape {shape} has no square grid of patches")
    if len(modality.grid) == 1:
        raise WeightsError(f"{modality.name} has a row of patches, {POSITIONS} of shape {shape} is a grid of them")
    positions_TD = arrays[POSITIONS][0]
    rows, columns = modality.grid[-2:]
    grid = resize_grid(positions_TD[first:].reshape(side, side, -1), rows, columns).reshape(rows * columns, -1)
    tiled = np.tile(grid, (modality.num_patches // len(grid), 1))
    return np.concatenate([positions_TD[:1], tiled] if has_cls else [tiled])[None]


def _name_of(path: Path, arrays: Arrays) -> str:
    """The ViT's name of a parameter of ours."""
    if path[0] == "layers":
        return _block_name(path, arrays)
    if path[0] == "norm":
        name = f"Transformer/encoder_norm/{path[1]}"
    else:
        name = {"cls": "cls", "positions": POSITIONS}.get(path[2], f"embedding/{path[2]}")
    if name not in arrays:
        raise WeightsError(f"the file has no {name}, which {dotted(path)} needs: {cause(name)}")
    return name


def _block_name(path: Path, arrays: Arrays) -> str:
    block = f"Transformer/encoderblock_{path[1]}/"
    for name in arrays:
        if name.startswith(block) and block_path(name.split("/")[2:]) == path[3:]:
            return name
    raise WeightsError(f"the file has nothing in {block} for {dotted(path)}: {cause(block)}")
