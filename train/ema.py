"""A moving average of the parameters that has nothing of the parameters at the start, and soon little of the first.

average_s = d_s average_(s-1) + (1 - d_s) p_s, of the parameters p_s after step s. With
d_s = d (1 - d^(s-1)) / (1 - d^s), d_1 = 0, it is the mean with weights d^(s-1), ..., d, 1: a moving average from zero,
divided by 1 - d^s (Kingma and Ba, "Adam", 2015, section 3). Of a run that is short beside 1 / (1 - d) that would be the
plain mean of all of it; so d_s is no more than (1 + s) / (10 + s), the warm-up of TensorFlow's
`ExponentialMovingAverage`: it is of the last ninth or so.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

# What a state holds where there is no average.
NONE: tuple = ()


def start(decay: float, params: Any) -> Any:
    """Room for the average, before the first step; `NONE` for a decay of 0."""
    return jax.tree.map(lambda value: value + 0, params) if decay else NONE


def update(decay: float, average: Any, params: Any, step: jax.Array) -> Any:
    """The average after a step.

    Args:
      decay: d.
      average: before the step.
      params: after it.
      step: s, its number from 1.
    """
    if not decay:
        return NONE
    kept = decay_at(decay, step)
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, average, params)


def decay_at(decay: float, step: jax.Array) -> jax.Array:
    """d_s."""
    # 1 - d^s of a d near 1 would lose most of its digits in float32.
    log = math.log(decay)
    corrected = decay * jnp.expm1((step - 1) * log) / jnp.expm1(step * log)
    return jnp.minimum(corrected, (1 + step) / (10 + step))
