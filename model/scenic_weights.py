"""Checkpoints of Scenic's MBT: the Flax msgpack file of a training state.

The parameters lie under `optimizer/target`, or under `params` since Scenic went over to optax. Names of RGB carry no
suffix there, those of another modality its name.
"""

import os
import pathlib
import re
from collections.abc import Mapping

import numpy as np
from flax import serialization, traverse_util

from mbt.model.config import Fusion, MBTConfig, Modality, Size
from mbt.model.mbt import MBT, SHARED
from mbt.model.weights import Arrays, Path, WeightsError, block_path, cause, dotted, fit, require, shapes_of, update

RGB = "rgb"
# Shapes of one example without channels in the released models: 32 frames, 8 seconds.
RELEASED_SHAPES = {RGB: (32, 224, 224), "spectrogram": (800, 128)}


def read_scenic(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the parameters of a checkpoint (`checkpoint_NUMBER`); the optimizer's state is left.

    Raises:
      WeightsError: the file is something else.
      OSError: it cannot be read.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        state = serialization.msgpack_restore(data)
        params = state["params"] if "params" in state else state["optimizer"]["target"]
        arrays = traverse_util.flatten_dict(params.get("params", params), sep="/")
    except Exception as error:  # msgpack raises many kinds for a file that is something else
        raise WeightsError(f"{path}: not a Flax checkpoint: {type(error).__name__}: {error}") from error
    require(path, arrays, ("Transformer/encoder_norm/scale", "output_projection/kernel"), "an MBT of Scenic")
    return arrays


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
      WeightsError: an array is missing, or shapes contradict each other.
    """
    names = _modality_names(arrays)
    shared = len(names) > 1 and not any(re.match(r"Transformer/encoderblock_\d+_", name) for name in arrays)
    guess: Fusion = "bottleneck" if "bottleneck" in arrays else "self_attention" if shared else "cross_attention"
    try:
        return MBTConfig(
            modalities=tuple(_modality(arrays, name, shapes) for name in names),
            size=_size(arrays),
            num_classes=arrays["output_projection/kernel"].shape[1],
            fusion=fusion or guess,
            fusion_layer=fusion_layer,
            num_bottlenecks=arrays["bottleneck"].shape[1] if "bottleneck" in arrays else 0,
            share_before=shared,
            share_after=shared,
            pooling="cls" if "cls" in arrays else "gap",
            pre_logits=arrays["pre_logits/kernel"].shape[1] if "pre_logits/kernel" in arrays else 0,
        )
    except KeyError as error:
        raise WeightsError(f"the file has no {error.args[0]}: it is cut short, or no MBT of Scenic") from error


def _modality_names(arrays: Arrays) -> list[str]:
    """RGB first, the others by name; their order changes no number."""
    found = [re.fullmatch(r"embedding(?:_(.+))?/kernel", name) for name in arrays]
    return sorted((match[1] or RGB for match in found if match), key=lambda name: (name != RGB, name))


def _modality(arrays: Arrays, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Modality:
    """An input, whose number of patches must be that of the positions."""
    if name not in shapes:
        raise WeightsError(f"the file has an input {name}: give the shape of its examples")
    suffix = "" if name == RGB else f"_{name}"
    *patch, channels, _ = arrays[f"embedding{suffix}/kernel"].shape
    modality = Modality(name=name, shape=tuple(shapes[name]), channels=channels, patch=tuple(patch))
    positions = f"Transformer/posembed_input{suffix}/pos_embedding"
    needed = modality.num_patches + ("cls" in arrays)
    if arrays[positions].shape[1] != needed:
        raise WeightsError(
            f"{positions} has shape {arrays[positions].shape}; {name} of {modality.shape} in patches of "
            f"{modality.patch} needs {needed} of them: {cause(positions)}"
        )
    return modality


def _size(arrays: Arrays) -> Size:
    blocks = [match for match in (re.match(r"Transformer/encoderblock_(\d+)[^/]*/", name) for name in arrays) if match]
    if not blocks:
        raise WeightsError("the file has no Transformer/encoderblock_0: it is cut short, or no MBT of Scenic")
    width, heads, _ = arrays[f"{blocks[0][0]}MultiHeadDotProductAttention_0/query/kernel"].shape
    mlp_dim = arrays[f"{blocks[0][0]}MlpBlock_0/Dense_0/kernel"].shape[1]
    return Size(width=width, heads=heads, mlp_dim=mlp_dim, depth=1 + max(int(block[1]) for block in blocks))


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
    if first.startswith("encoderblock_"):
        number, _, m = first.removeprefix("encoderblock_").partition("_")
        return ("layers", int(number), SHARED if config.shares(int(number)) else m or plain, *block_path(rest))
    for prefix, inside in (("embedding", rest), ("posembed_input", ["positions"]), ("cls", ["cls"])):
        if first.startswith(prefix):
            return ("tokens", first.removeprefix(prefix).strip("_") or plain, *inside)
    return (TOP.get(first, first), *rest)
