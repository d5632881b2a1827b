"""The pre-LN transformer layer.

B batch, T tokens, S tokens of the context, D width, N heads.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.attention import Attention
from mbt.model.config import MBTConfig

LAYER_NORM_EPSILON = 1e-6


def layer_norm(width: int, dtype: str, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LN over the width, with float32 statistics."""
    return nnx.LayerNorm(width, epsilon=LAYER_NORM_EPSILON, dtype=jnp.dtype(dtype), rngs=rngs)


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


def fold(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys (B,) of one use of many, numbered."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def drop_branch(branch: jax.Array, rate: float, keys: jax.Array | None, *, rescale: bool = False) -> jax.Array:
    """Stochastic depth: zeroes the branch of each example with probability `rate`.

    Args:
      branch: (B, T, D).
      rate: of dropping.
      keys: (B,), so that what an example draws does not depend on its neighbours; None drops nothing.
      rescale: divides what is kept by 1 - rate; the reference does not.
    """
    if keys is None or rate == 0:
        return branch
    keep_B11 = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, (1, 1)))(keys)
    return jnp.where(keep_B11, branch / (1 - rate) if rescale else branch, 0)


class Block(nnx.Module):
    """One layer (Eq. 2, 3): y = MSA(LN(z)) + z; z' = MLP(LN(y)) + y.

    With a context it is that of cross-attention (Eq. 5, 6): y = MCA(LN(z); LN([z || context])) + z. Queries, output
    and MLP are computed for z alone.
    """

    def __init__(self, config: MBTConfig, layer: int, *, rngs: nnx.Rngs):
        width = config.size.width
        self.attention_norm = layer_norm(width, config.dtype, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = layer_norm(width, config.dtype, rngs=rngs)
        self.mlp = MLP(config, rngs=rngs)
        self.drop_rate = config.drop_rate(layer)
        self.rescale = config.rescale_kept

    def __call__(self, z: jax.Array, context: jax.Array | None = None, keys: jax.Array | None = None) -> jax.Array:
        """Maps (B, T, D) to (B, T, D).

        Args:
          z: tokens.
          context: (B, S, D), what they attend to beside themselves.
          keys: (B,), turn stochastic depth on, drawn for each example and each of the two branches.
        """
        own_BTD, all_BSD = self._normed(z, context)
        return self._add(z, self.attention(own_BTD, all_BSD), keys)

    def with_weights(self, z: jax.Array, context: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Without stochastic depth: the new tokens, and the attention (B, N, T, T + S) float32 that led to them."""
        own_BTD, all_BSD = self._normed(z, context)
        branch_BTD, weights_BNTS = self.attention.with_weights(own_BTD, all_BSD)
        return self._add(z, branch_BTD, None), weights_BNTS

    def _normed(self, z: jax.Array, context: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """LN(z) and LN([z || context])."""
        if context is None:
            own_BTD = self.attention_norm(z)
            return own_BTD, own_BTD
        all_BSD = self.attention_norm(jnp.concatenate([z, context], axis=1))
        return all_BSD[:, : z.shape[1]], all_BSD

    def _add(self, z: jax.Array, branch: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Both residual sums, from the attention's output on."""
        y_BTD = z + self._drop(branch, fold(keys, 0))
        return y_BTD + self._drop(self.mlp(self.mlp_norm(y_BTD)), fold(keys, 1))

    def _drop(self, branch: jax.Array, keys: jax.Array | None) -> jax.Array:
        return drop_branch(branch, self.drop_rate, keys, rescale=self.rescale)
