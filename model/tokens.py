"""From inputs to tokens.

B batch, N patches, T tokens, P values in a patch, D width, C channels.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.config import MBTConfig, Modality


def patchify(x: jax.Array, modality: Modality) -> jax.Array:
    """Cuts an input into patches, in row-major order of the patch grid.

    Args:
      x: (B, *modality.shape, C).
      modality: of the input.

    Returns:
      (B, N, P), where a patch's values are in the order (*patch sides, C), as in a convolution kernel.
    """
    grid, sides = modality.grid, modality.patch_sides
    whole = tuple(slice(count * side) for count, side in zip(grid, sides, strict=True))
    split = tuple(n for pair in zip(grid, sides, strict=True) for n in pair)
    axes = len(grid)
    x = x[(slice(None), *whole)].reshape(x.shape[0], *split, modality.channels)
    x = x.transpose(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return x.reshape(x.shape[0], modality.num_patches, -1)


class Tokens(nnx.Module):
    """Tokens of one modality (Eq. 1): [z_cls, E x_1, ..., E x_N] + p; under GAP without z_cls."""

    def __init__(self, modality: Modality, config: MBTConfig, *, rngs: nnx.Rngs):
        width, has_cls = config.size.width, config.pooling == "cls"
        sides = modality.patch_sides[-len(modality.patch) :]
        values = math.prod(sides) * modality.channels
        kernel = nnx.initializers.lecun_normal()(rngs.params(), (values, width))
        positions = nnx.initializers.normal(0.02)(rngs.params(), (1, has_cls + modality.num_patches, width))
        self.modality = modality
        self.dtype = jnp.dtype(config.dtype)
        self.kernel = nnx.Param(kernel.reshape(*sides, modality.channels, width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.cls = nnx.Param(jnp.zeros((1, 1, width))) if has_cls else None
        self.positions = nnx.Param(positions)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, *shape, C) to (B, T, D), T = 1 + N with a CLS token and N without.

        Raises:
          ValueError: the input has another shape.
        """
        needed = (*self.modality.shape, self.modality.channels)
        if x.shape[1:] != needed:
            raise ValueError(f"{self.modality.name}: an example has shape {x.shape[1:]}; the model takes {needed}")
        x_BNP = patchify(x.astype(self.dtype), self.modality)
        kernel_PD = self.kernel[...].reshape(x_BNP.shape[-1], -1).astype(self.dtype)
        x_BTD = x_BNP @ kernel_PD + self.bias.astype(self.dtype)
        if self.cls is not None:
            cls_B1D = jnp.broadcast_to(self.cls.astype(self.dtype), (x.shape[0], 1, x_BTD.shape[-1]))
            x_BTD = jnp.concatenate([cls_B1D, x_BTD], axis=1)
        return x_BTD + self.positions.astype(self.dtype)
