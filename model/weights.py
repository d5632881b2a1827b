"""Putting published arrays into our parameters: shapes made to fit where that has a meaning, refused where not."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mbt.model.mbt import MBT

# Published arrays by their flat names, "/" between the parts.
Arrays = Mapping[str, np.ndarray]
# Of a parameter of ours, e.g. ("layers", 3, "rgb", "mlp", "expand", "kernel").
Path = tuple[Any, ...]


class WeightsError(ValueError):
    """A file of weights does not fit the model; the message names the parameter, both shapes and the likely cause."""


def require(path, arrays: Arrays, names: Iterable[str], what: str) -> None:
    """Refuses a file that lacks what every file of its kind has."""
    for name in names:
        if name not in arrays:
            some = ", ".join(sorted(arrays)[:3])
            raise WeightsError(f"{path}: has no {name}, so it is not {what}; it begins with {some}")


def as_float32(name: str, array: Any) -> np.ndarray:
    """An array of a file, whose numbers may have been saved with fewer bits.

    Raises:
      TypeError: it is no array of floating-point numbers.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is no array")
    if array.dtype == np.dtype("V2"):  # what NumPy makes of bfloat16 in a file
        array = array.view(jnp.bfloat16)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has values of type {array.dtype}")
    return array.astype(np.float32, copy=False)


def shapes_of(model: MBT) -> dict[Path, tuple[int, ...]]:
    """Of all parameters."""
    return {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def update(model: MBT, values: Mapping[Path, np.ndarray], names: Mapping[Path, str]) -> None:
    """Sets parameters, all or none.

    Args:
      model: changed in place.
      values: by path.
      names: that the values have in their file.

    Raises:
      WeightsError: a shape differs.
    """
    params = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    for path, value in values.items():
        if value.shape != params[path].shape:
            raise WeightsError(
                f"{names[path]} has shape {value.shape}, {dotted(path)} has {params[path].shape}: {cause(names[path])}"
            )
    for path, value in values.items():
        params[path][...] = jnp.asarray(value, params[path].dtype)


def fit(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array as it is; a patch kernel in the form of its input, where tubelets or channels differ."""
    if path[0] != "tokens" or path[2] != "kernel" or array.shape == shape:
        return array
    if array.ndim == 4 and len(shape) == 5:
        array = central_frame(array, shape[0])
    same_patch = array.shape[:-2] == shape[:-2] and array.shape[-1] == shape[-1]
    return spread_channels(array, shape[-2]) if same_patch else array


def central_frame(kernel: np.ndarray, frames: int) -> np.ndarray:
    """A 2D patch kernel (h, w, C, D) as one of tubelets, (frames, h, w, C, D), that sees only their central frame."""
    tubelet = np.zeros((frames, *kernel.shape), kernel.dtype)
    tubelet[frames // 2] = kernel
    return tubelet


def spread_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A patch kernel (..., C, D) for another number of channels, with the same answer to gray.

    For one channel that is the sum over the old ones: what a spectrogram repeated in all of them gave.
    """
    if kernel.shape[-2] == channels:
        return kernel
    return np.repeat(kernel.sum(axis=-2, keepdims=True) / channels, channels, axis=-2)


def resize_grid(grid: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear with aligned corners, as `scipy.ndimage.zoom(order=1)`: (h, w, D) to (rows, columns, D) float32."""
    return _resize_axis(_resize_axis(grid.astype(np.float64), rows, 0), columns, 1).astype(np.float32)


def _resize_axis(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    last = values.shape[axis] - 1
    at = np.linspace(0, last, size)
    low = np.floor(at).astype(int)
    share = (at - low).reshape(-1, *[1] * (values.ndim - axis - 1))
    return values.take(low, axis) * (1 - share) + values.take(np.minimum(low + 1, last), axis) * share


# The likely cause of a mismatch, by a part of the name; the first that fits.
CAUSES = {
    "posembed": "the number of patches, the pooling or the width differs; check the input, the patch and the size",
    "positions": "the model has an input that the file lacks",
    "embedding": "the patch, the width or the inputs differ",
    "cls": "one has CLS tokens and the other has none (pooling cls or gap)",
    "bottleneck": "the number of bottlenecks or the fusion differs; the reference has one more with a token head",
    "output_projection": "the number of classes differs",
    "head": "the number of classes differs",
    "pre_logits": "the width of the pre-logits layer differs",
    "norm": "the width differs; check the model's size",
    "block": "the model's size differs, or which layers share weights",
    "layers": "the model's size differs, or which layers share weights",
}


def cause(name: str) -> str:
    """The likely cause of a mismatch."""
    return next((text for part, text in CAUSES.items() if part in name), "the file belongs to another model")


def dotted(path: Path) -> str:
    """A path as text."""
    return ".".join(map(str, path))


KINDS = {"MultiHeadDotProductAttention": "attention", "MlpBlock": "mlp"}
DENSE = {"Dense_0": "expand", "Dense_1": "contract"}


def block_path(parts: list[str]) -> Path:
    """Inside a layer, the path of what Flax's names say, e.g. ["MlpBlock_0", "Dense_0", "kernel"].

    Numbers run for each kind, or (before Flax Linen) over all parts of the layer: LayerNorm_0,
    MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3. Either way LayerNorm_0 is the attention's.
    """
    kind, _, number = parts[0].rpartition("_")
    norm = "attention_norm" if number == "0" else "mlp_norm"
    first = norm if kind == "LayerNorm" else KINDS.get(kind, parts[0])
    return (first, *(DENSE.get(part, part) for part in parts[1:]))
