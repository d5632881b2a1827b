"""Checkpoints of Scenic's MBT: the Flax msgpack file of a training state.

The parameters lie under `optimizer/target`, or under `params` since Scenic went over to optax. Names of RGB carry no
suffix there, those of another modality its name.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import serialization, traverse_util

from mbt.model.config import Fusion, MBTConfig, Modality, Size
from mbt.model.mbt import MBT, SHARED
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
    shapes_of,
    update,
)

RGB = "rgb"
# Shapes of one example without channels in the released models: 32 frames, 8 seconds.
RELEASED_SHAPES = {RGB: (32, 224, 224), "spectrogram": (800, 128)}
# Number of the layer, and the modality that it is of.
BLOCK = re.compile(r"Transformer/encoderblock_(\d+)(?:_([^/]+))?/")


def read_scenic(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the parameters of a checkpoint (`checkpoint_NUMBER`); the optimizer's state is left.

    Raises:
      WeightsError: the file is something else.
      OSError: it cannot be read.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        params = _parameters(serialization.msgpack_restore(data))
        flat = traverse_util.flatten_dict(params.get("params", params), sep="/")
        arrays = {name: as_float32(name, array) for name, array in flat.items()}
    except Exception as error:  # msgpack raises many kinds for a file that is something else
        raise WeightsError(f"{path}: not a Flax checkpoint: {type(error).__name__}: {error}") from error
    require(path, arrays, ("Transformer/encoder_norm/scale", "output_projection/kernel"), "an MBT of Scenic")
    return arrays


def _parameters(state: Any) -> dict[str, Any]:
    """Of a training state, in either form."""
    for path in (("optimizer", "target"), ("params",)):
        found = state
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    raise KeyError("neither optimizer/target nor params")


def scenic_config(
    arrays: Arrays,
    *,
    fusion_layer: int,
    shapes: Mapping[str, tuple[int, ...]] = RELEASED_SHAPES,
    fusion: Fusion | None = None,
) -> MBTConfig:
    """The model that Scenic's parameters belong to, as far as their shapes tell.

    With a token head the reference has one bottleneck more than its config says; B here is what the array holds.

    Args:
      arrays: from `read_scenic`.
      fusion_layer: L_f, which no shape tells.
      shapes: of one example without channels, by modality.
      fusion: strategy; by default bottleneck where there are bottlenecks, self-attention where all modalities share
        their layers, else cross-attention.

    Raises:
      WeightsError: an array is missing, or shapes contradict each other, or L_f is beyond the last layer.
    """
    names = _modality_names(arrays)
    shared = len(names) > 1 and not any(re.match(r"Transformer/encoderblock_\d+_", name) for name in arrays)
    guess: Fusion = "bottleneck" if "bottleneck" in arrays else "self_attention" if shared else "cross_attention"
    try:
        return MBTConfig(
            modalities=tuple(_modality(arrays, name, shapes) for name in names),
            size=_size(arrays),
            num_classes=_shape(arrays, "output_projection/kernel", 2)[1],
            fusion=fusion or guess,
            fusion_layer=fusion_layer,
            num_bottlenecks=_shape(arrays, "bottleneck", 3)[1] if "bottleneck" in arrays else 0,
            share_before=shared,
            share_after=shared,
            pooling="cls" if "cls" in arrays else "gap",
            pre_logits=_shape(arrays, "pre_logits/kernel", 2)[1] if "pre_logits/kernel" in arrays else 0,
        )
    except KeyError as error:
        raise WeightsError(f"the file has no {error.args[0]}: it is cut short, or no MBT of Scenic") from error
    except WeightsError:
        raise
    except ValueError as error:  # a model that cannot be
        raise WeightsError(f"the model of the file: {error}") from error


def _modality_names(arrays: Arrays) -> list[str]:
    """RGB first, the others by name; their order changes no number."""
    found = [re.fullmatch(r"embedding(?:_(.+))?/kernel", name) for name in arrays]
    return sorted((match[1] or RGB for match in found if match), key=lambda name: (name != RGB, name))


def _modality(arrays: Arrays, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Modality:
    """An input, whose number of patches must be that of the positions."""
    if name not in shapes:
        raise WeightsError(f"the file has an input {name}: give the shape of its examples")
    suffix = "" if name == RGB else f"_{name}"
    *patch, channels, _ = _shape(arrays, f"embedding{suffix}/kernel", 4, 5)
    modality = Modality(name=name, shape=tuple(shapes[name]), channels=channels, patch=tuple(patch))
    positions = f"Transformer/posembed_input{suffix}/pos_embedding"
    needed = modality.num_patches + ("cls" in arrays)
    if _shape(arrays, positions, 3)[1] != needed:
        raise WeightsError(
            f"{positions} has shape {arrays[positions].shape}; {name} of {modality.shape} in patches of "
            f"{modality.patch} needs {needed} of them: {cause(positions)}"
        )
    return modality


def _size(arrays: Arrays) -> Size:
    blocks = [match for match in map(BLOCK.match, arrays) if match]
    layers = {int(block[1]) for block in blocks}
    absent = min(set(range(len(layers) + 1)) - layers)
    if absent < len(layers) or not layers:
        block = f"Transformer/encoderblock_{absent}"
        raise WeightsError(f"the file has no {block}: it is cut short, or no MBT of Scenic")
    width, heads, _ = _shape(arrays, f"{blocks[0][0]}MultiHeadDotProductAttention_0/query/kernel", 3)
    _, mlp_dim = _shape(arrays, f"{blocks[0][0]}MlpBlock_0/Dense_0/kernel", 2)
    return Size(width=width, heads=heads, mlp_dim=mlp_dim, depth=len(layers))


def _shape(arrays: Arrays, name: str, *axes: int) -> tuple[int, ...]:
    """Of an array that must have so many axes."""
    shape = arrays[name].shape
    if len(shape) not in axes:
        raise WeightsError(f"{name} has shape {shape}, an MBT of Scenic has {axes[0]} axes there: {cause(name)}")
    return shape


def load_scenic(model: MBT, arrays: Arrays) -> None:
    """Puts all of Scenic's parameters into a model of the same form.

    A patch kernel of other channels is spread (`weights.spread_channels`), so a model may have a spectrogram of one
    channel where the reference repeated it three times. Bottlenecks that a model has no use for are left.

    Args:
      model: changed in place.
      arrays: from `read_scenic`.

    Raises:
      WeightsError: a parameter is missing on one side, or has another shape.
    """
    config, shapes = model.config, shapes_of(model)
    used = [name for name in arrays if name != "bottleneck" or config.has_bottlenecks]
    names = {_path_of(name, config): name for name in used}
    if missing := sorted(map(dotted, shapes.keys() - names.keys())):
        raise WeightsError(f"the file has nothing for {missing[0]} ({len(missing)} missing): {cause(missing[0])}")
    # Of two that mean the same place (RGB's layers and a spectrogram's, for a model that only hears) one is left over.
    if left := sorted(name for name in used if (path := _path_of(name, config)) not in shapes or names[path] != name):
        raise WeightsError(f"the model has no place for {left[0]} ({len(left)} left over): {cause(left[0])}")
    update(model, {path: fit(path, arrays[name], shapes[path]) for path, name in names.items()}, names)


TOP = {"encoder_norm": "norm", "output_projection": "head", "bottleneck": "bottlenecks"}


def _path_of(name: str, config: MBTConfig) -> Path:
    """Where a parameter of Scenic's lives here."""
    first, *rest = name.removeprefix("Transformer/").split("/")
    plain = RGB if RGB in config.names else config.names[0]  # whose names carry no suffix
    if block := BLOCK.match(name):
        layer, m = int(block[1]), block[2] or plain
        return ("layers", layer, SHARED if config.shares(layer) else m, *block_path(rest))
    for prefix, inside in (("embedding", rest), ("posembed_input", ["positions"]), ("cls", ["cls"])):
        if first.startswith(prefix):
            return ("tokens", first.removeprefix(prefix).strip("_") or plain, *inside)
    return (TOP.get(first, first), *rest)
