"""Multi-head attention, and the choice of who computes it.

B batch, T queries, S keys and values, D width, N heads, H width of a head.
"""

import functools
import logging
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.config import AttentionName, MBTConfig

Implementation = Literal["xla", "cudnn"]

logger = logging.getLogger(__name__)


@functools.cache
def choose_implementation(attention: AttentionName, dtype: str) -> Implementation:
    """What `jax.nn.dot_product_attention` is asked for, "xla" or "cudnn"; logged once.

    JAX never takes cuDNN by itself, so "auto" does: for bfloat16, on an NVIDIA GPU.
    """
    device = jax.devices()[0].device_kind
    if attention == "auto":
        chosen: Implementation = "cudnn" if dtype == "bfloat16" and device.startswith("NVIDIA") else "xla"
    else:
        chosen = attention
    logger.info("attention by %s: %s on %s", chosen, dtype, device)
    return chosen


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: Implementation) -> jax.Array:
    """softmax(Q K^T / sqrt(H)) V with a float32 softmax.

    Args:
      q: (B, T, N, H).
      k: (B, S, N, H).
      v: (B, S, N, H).
      implementation: "xla" or "cudnn".

    Returns:
      (B, T, N, H).
    """
    if implementation == "cudnn":
        return attend_evenly(q, k, v, implementation)
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


def attend_evenly(q: jax.Array, k: jax.Array, v: jax.Array, implementation: Implementation) -> jax.Array:
    """`attend` with odd lengths filled up to even ones.

    What is filled up is masked by a length for each example, which takes no mask or bias of (T, S) in memory.
    """
    batch, queries, keys = q.shape[0], q.shape[1], k.shape[1]
    if queries % 2 == keys % 2 == 0:
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation)
    lengths = jnp.full(batch, keys, jnp.int32)
    q, k, v = (_fill_up(x) for x in (q, k, v))
    y_BTNH = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths, implementation=implementation)
    return y_BTNH[:, :queries]


def _fill_up(x: jax.Array) -> jax.Array:
    """Adds a token of zeros to an odd number of them: (B, T, N, H)."""
    odd = x.shape[1] % 2
    return jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) if odd else x


def attention_weights(q: jax.Array, k: jax.Array) -> jax.Array:
    """softmax(Q K^T / sqrt(H)): (B, T, N, H) and (B, S, N, H) to (B, N, T, S) float32."""
    logits_BNTS = jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(logits_BNTS / q.shape[-1] ** 0.5, axis=-1)


class Attention(nnx.Module):
    """Multi-head attention of some tokens to others, or to themselves."""

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
        self.implementation = choose_implementation(config.attention, config.dtype)

    def __call__(self, queries: jax.Array, context: jax.Array) -> jax.Array:
        """Queries (B, T, D) attend to a context (B, S, D), which holds them where they attend to themselves.

        Returns:
          (B, T, D).
        """
        q_BTNH, k_BSNH, v_BSNH = self.query(queries), self.key(context), self.value(context)
        return self.out(attend(q_BTNH, k_BSNH, v_BSNH, self.implementation))

    def with_weights(self, queries: jax.Array, context: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same result, and the weights: (B, T, D) and (B, N, T, S) float32, which `__call__` never keeps."""
        weights_BNTS = attention_weights(self.query(queries), self.key(context))
        v_BSNH = self.value(context)
        y_BTNH = jnp.einsum("bnts,bsnh->btnh", weights_BNTS.astype(v_BSNH.dtype), v_BSNH)
        return self.out(y_BTNH), weights_BNTS
