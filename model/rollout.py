"""Attention Rollout (Abnar and Zuidema, 2020): how much of each output goes back to each patch.

A token's row says where it comes from: shares of the first layer's tokens that sum to 1. Every layer mixes rows as
its attention, averaged over heads, mixes tokens, and keeps half for the residual path: row' = (row + A rows) / 2.
Rows go through the strategies of `fusion.py` as tokens do, so through the bottlenecks too.

B batch, T_m tokens of modality m, F bottleneck tokens, S all of these.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbt.model.fusion import Stream, fuse
from mbt.model.mbt import ALL, MBT


def rollout(model: MBT, inputs: dict[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
    """Shares of each patch in each output.

    Args:
      model: of any strategy.
      inputs: by modality, each (B, *shape, channels).

    Returns:
      By output (the modality of a CLS token, or "all" under GAP) and by modality seen: (B, *grid) float32. What an
      output's maps lack to 1 went to CLS and bottleneck tokens.
    """
    rows, config = rollout_rows(model, inputs), model.config
    lengths = [model.tokens[m].positions.shape[1] for m in config.names]
    maps: dict[str, dict[str, jax.Array]] = {output: {} for output in rows}
    for index, modality in enumerate(config.modalities):
        end = sum(lengths[: index + 1])
        for output, row_BS in rows.items():
            patches_BN = row_BS[:, end - modality.num_patches : end]
            maps[output][modality.name] = patches_BN.reshape(-1, *modality.grid)
    return maps


def rollout_rows(model: MBT, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """By output: its row, (B, S), over the tokens of all modalities in their order, then the bottlenecks."""
    tokens = model.embed(inputs)
    rows = _identity(tokens)
    for layer in range(model.config.size.depth):
        attention: list[jax.Array] = []
        tokens = fuse(model.config, layer, _recording(model, layer, attention), tokens)
        # Blocks are called in the same order again, so the first weights belong to the first call.
        rows = fuse(model.config, layer, _mixing(attention), rows)
    if model.config.pooling == "gap":
        return {ALL: jnp.concatenate([*rows.z.values()], axis=1).mean(axis=1)}
    return {m: rows_BTS[:, 0] for m, rows_BTS in rows.z.items()}


def _identity(tokens: Stream) -> Stream:
    """Every token comes from itself: (B, T_m, S) by modality, (B, F, S)."""
    parts = [*tokens.z.values()] + ([] if tokens.fsn is None else [tokens.fsn])
    batch, lengths = parts[0].shape[0], [part.shape[1] for part in parts]
    eye_BSS = jnp.broadcast_to(jnp.eye(sum(lengths)), (batch, sum(lengths), sum(lengths)))
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths) - 1)]
    rows = jnp.split(eye_BSS, ends, axis=1)
    return Stream(dict(zip(tokens.z, rows, strict=False)), None if tokens.fsn is None else rows[-1])


def _recording(model: MBT, layer: int, attention: list[jax.Array]) -> Callable:
    """The layer itself; appends its attention, (B, T, T + context), averaged over heads."""

    def apply(m: str, z: jax.Array, context: jax.Array | None) -> jax.Array:
        z, weights_BNTS = model.block(layer, m).with_weights(z, context)
        attention.append(weights_BNTS.mean(axis=1))
        return z

    return apply


def _mixing(attention: list[jax.Array]) -> Callable:
    """What the layer does to rows."""

    def apply(m: str, rows: jax.Array, context: jax.Array | None) -> jax.Array:
        seen = rows if context is None else jnp.concatenate([rows, context], axis=1)
        return (rows + attention.pop(0) @ seen) / 2

    return apply
