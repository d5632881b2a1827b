"""How a layer treats several modalities: each on its own, or exchanging through bottlenecks.

B batch, T_m tokens of modality m, F bottleneck tokens, D width.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mbt.model.encoder import Block

Tokens = dict[str, jax.Array]
Keys = Mapping[str, jax.Array | None]


def unimodal_layer(blocks: Mapping[str, Block], z: Tokens, keys: Keys) -> Tokens:
    """Every modality through its own weights: z_m' = Transformer(z_m; theta_m), each (B, T_m, D)."""
    return {name: block(z[name], key=keys[name]) for name, block in blocks.items()}


def bottleneck_layer(blocks: Mapping[str, Block], z: Tokens, fsn: jax.Array, keys: Keys) -> tuple[Tokens, jax.Array]:
    """Exchange through the bottleneck tokens z_fsn (Eq. 7-9).

    [z_m' || z_fsn,m] = Transformer([z_m || z_fsn]; theta_m) for every modality m (Eq. 8), then
    z_fsn' = mean over m of z_fsn,m (Eq. 9). The modalities see each other only through z_fsn.

    Args:
      blocks: weights by modality.
      z: tokens by modality, each (B, T_m, D).
      fsn: bottleneck tokens, (B, F, D).
      keys: for stochastic depth, by modality.

    Returns:
      The new tokens by modality and the new bottleneck tokens, in the shapes given.
    """
    both = {name: jnp.concatenate([z[name], fsn], axis=1) for name in blocks}
    both = unimodal_layer(blocks, both, keys)
    lengths = {name: z[name].shape[1] for name in blocks}
    copies = [both[name][:, lengths[name] :] for name in blocks]
    return {name: both[name][:, : lengths[name]] for name in blocks}, jnp.stack(copies).mean(axis=0)
