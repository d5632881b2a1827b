"""The pre-LN transformer layer.

B batch, T tokens, D width, N heads, H width of a head.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.config import MBTConfig

LAYER_NORM_EPSILON = 1e-6


def layer_norm(config: MBTConfig, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LN over the width, with float32 statistics."""
    return nnx.LayerNorm(config.size.width, epsilon=LAYER_NORM_EPSILON, dtype=jnp.dtype(config.dtype), rngs=rngs)


class Attention(nnx.Module):
    """MSA: multi-head self-attention."""

    def __init__(self, config: MBTConfig, *, rngs: nnx.Rngs):
        width, heads = config.size.width, config.size.heads
        inner = (heads, width // heads)
        options: dict[str, Any] = {
            "dtype": jnp.dtype(config.dtype),
            "kernel_init": nnx.initializers.xavier_uniform(),
            "rngs": rngs,
        }
        self.query = nnx.LinearGeneral(width, inner, **options)
        self.key = nnx.LinearGeneral(width, inner, **options)
        self.value = nnx.LinearGeneral(width, inner, **options)
        self.out = nnx.LinearGeneral(inner, width, axis=(-2, -1), **options)
        self.implementation = config.attention

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, T, D) to (B, T, D)."""
        q_BTNH, k_BTNH, v_BTNH = self.query(x), self.key(x), self.value(x)
        y_BTNH = jax.nn.dot_product_attention(q_BTNH, k_BTNH, v_BTNH, implementation=self.implementation)
        return self.out(y_BTNH)


class MLP(nnx.Module):
    """Two linear maps with a GELU (tanh form, as the ViT weights expect) between them."""

    def __init__(self, config: MBTConfig, *, rngs: nnx.Rngs):
        options: dict[str, Any] = {
            "dtype": jnp.dtype(config.dtype),
            "kernel_init": nnx.initializers.xavier_uniform(),
            "bias_init": nnx.initializers.normal(1e-6),
            "rngs": rngs,
        }
        self.expand = nnx.Linear(config.size.width, config.size.mlp_dim, **options)
        self.contract = nnx.Linear(config.size.mlp_dim, config.size.width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, T, D) to (B, T, D)."""
        return self.contract(jax.nn.gelu(self.expand(x), approximate=True))


def drop_branch(branch: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Stochastic depth: zeroes the branch of each example with probability `rate`.

    What is kept is not rescaled by 1 / (1 - rate). Without a key nothing is dropped.
    """
    if key is None or rate == 0:
        return branch
    keep_B11 = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(keep_B11, branch, 0)


class Block(nnx.Module):
    """One layer (Eq. 2, 3): y = MSA(LN(z)) + z; z' = MLP(LN(y)) + y."""

    def __init__(self, config: MBTConfig, layer: int, *, rngs: nnx.Rngs):
        self.attention_norm = layer_norm(config, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = layer_norm(config, rngs=rngs)
        self.mlp = MLP(config, rngs=rngs)
        self.drop_rate = config.drop_rate(layer)

    def __call__(self, z: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps (B, T, D) to (B, T, D).

        Args:
          z: tokens.
          key: turns stochastic depth on, drawn for each example and each of the two branches.
        """
        attention_key, mlp_key = (None, None) if key is None else jax.random.split(key)
        y_BTD = z + drop_branch(self.attention(self.attention_norm(z)), self.drop_rate, attention_key)
        return y_BTD + drop_branch(self.mlp(self.mlp_norm(y_BTD)), self.drop_rate, mlp_key)
