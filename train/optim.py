"""Learning rate and optimizer."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mbt.train import sharding

REFERENCE_BATCH = 64
PART = "part"  # value of `optim.clip`
KERNEL = "kernel"  # last part of the path of a matrix or a convolution


def learning_rate(step: jax.Array, *, base: float, warmup_steps: float, total_steps: int) -> jax.Array:
    """Linear warm-up times a cosine to 0: base * min(1, s/w) * (1 + cos(pi * max(0, s-w) / (T-w))) / 2.

    Args:
      step: s, updates made so far; beyond T the rate stays 0.
      base: greatest rate.
      warmup_steps: w.
      total_steps: T.
    """
    step = jnp.minimum(step, total_steps)
    rise = jnp.minimum(1.0, step / warmup_steps) if warmup_steps else 1.0
    done = jnp.maximum(0.0, step - warmup_steps) / max(total_steps - warmup_steps, 1e-9)
    return base * rise * 0.5 * (1 + jnp.cos(jnp.pi * done))


def make_schedule(config: ConfigDict) -> optax.Schedule:
    """The learning rate of a resolved config by step; its base is scaled by batch_size / 64."""
    base = config.optim.learning_rate * config.train.batch_size / REFERENCE_BATCH
    steps = config.train.steps
    return lambda step: learning_rate(step, base=base, warmup_steps=config.optim.warmup * steps, total_steps=steps)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimizer of a resolved config: clip the gradient's norm, then SGD with momentum or AdamW.

    Gradients that are clipped part by part come clipped.
    """
    schedule, optim = make_schedule(config), config.optim
    if optim.name == "sgd":
        update = optax.sgd(schedule, momentum=optim.momentum)
    else:
        update = optax.adamw(schedule, weight_decay=optim.weight_decay, mask=decayed)
    return optax.chain(optax.identity() if optim.clip == PART else _clip(config), update)


def clip_part(config: ConfigDict, grads):
    """The gradient of one part of a batch, as it goes into the mean of all parts."""
    if config.optim.clip != PART:
        return grads
    return _clip(config).update(grads, optax.EmptyState())[0]


def _clip(config: ConfigDict) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(config.optim.clip_norm) if config.optim.clip_norm else optax.identity()


def decayed(params):
    """Which parameters weight decay is for: kernels, whatever their shape.

    Not biases, those of queries, keys and values (heads, width) included, nor LayerNorm, tokens and positions. What a
    parameter is, its path says.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: sharding.name_of(path).split("/")[-1] == KERNEL, params)
