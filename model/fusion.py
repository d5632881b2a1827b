"""How a layer treats several modalities: each on its own, or by one of the three strategies of section 3.2.

What flows through are tokens, or anything else that has one row for each token: these functions only cut, join and
average along the token axis, and leave the layer itself to `apply`.

B batch, T_m tokens of modality m, F bottleneck tokens, D width.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbt.model.config import MBTConfig

# apply(m, z, context): the layer of modality m, on tokens (B, T, D) that also attend to a context (B, S, D) or None.
Apply = Callable[[str, jax.Array, jax.Array | None], jax.Array]


class Stream(NamedTuple):
    """What one layer hands to the next.

    Attributes:
      z: tokens by modality, each (B, T_m, D).
      fsn: bottleneck tokens z_fsn, (B, F, D), or None.
    """

    z: dict[str, jax.Array]
    fsn: jax.Array | None


def fuse(config: MBTConfig, layer: int, apply: Apply, stream: Stream) -> Stream:
    """One layer of all modalities."""
    if not config.fuses(layer):
        return Stream(unimodal(apply, stream.z), stream.fsn)
    if config.fusion == "cross_attention":
        return Stream(cross_attention(apply, stream.z), None)
    if config.fusion == "self_attention":
        return Stream(self_attention(apply, stream.z), None)
    return (bottleneck_mean if config.bottleneck_update == "mean" else bottleneck_in_turn)(apply, stream)


def unimodal(apply: Apply, z: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Every modality on its own: z_m' = Transformer(z_m; theta_m)."""
    return {m: apply(m, z[m], None) for m in z}


def cross_attention(apply: Apply, z: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Every modality, with its own weights, attends to all (Eq. 5, 6)."""
    return {m: apply(m, z[m], jnp.concatenate([z[other] for other in z if other != m], axis=1)) for m in z}


def self_attention(apply: Apply, z: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """One set of weights over the concatenation [z_1 || z_2 || ...]. (The weights of all modalities are the same.)"""
    joined = apply(next(iter(z)), jnp.concatenate([*z.values()], axis=1), None)
    ends = [sum(part.shape[1] for part in [*z.values()][: i + 1]) for i in range(len(z) - 1)]
    return dict(zip(z, jnp.split(joined, ends, axis=1), strict=True))


def bottleneck_mean(apply: Apply, stream: Stream) -> Stream:
    """Exchange through the bottleneck tokens alone, updated by all modalities at once.

    [z_m' || z_fsn,m] = Transformer([z_m || z_fsn]; theta_m) for every modality m (Eq. 8), then
    z_fsn' = mean over m of z_fsn,m (Eq. 9).
    """
    parts = {m: _with_bottlenecks(apply, m, stream.z[m], stream.fsn) for m in stream.z}
    mean_BFD = jnp.stack([fsn for _, fsn in parts.values()]).mean(axis=0)
    return Stream({m: z for m, (z, _) in parts.items()}, mean_BFD)


def bottleneck_in_turn(apply: Apply, stream: Stream) -> Stream:
    """Likewise, but each modality gets the bottlenecks as the one before it left them."""
    z, fsn = {}, stream.fsn
    for m in stream.z:
        z[m], fsn = _with_bottlenecks(apply, m, stream.z[m], fsn)
    return Stream(z, fsn)


def _with_bottlenecks(apply: Apply, m: str, z: jax.Array, fsn: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    assert fsn is not None
    both = apply(m, jnp.concatenate([z, fsn], axis=1), None)
    return both[:, : z.shape[1]], both[:, z.shape[1] :]
