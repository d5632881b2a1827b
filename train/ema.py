"""A moving average of the parameters that has nothing of the parameters at the start.

Of the parameters p_1, ..., p_s after each of s steps it is the mean with weights d^(s-1), ..., d, 1: what a moving
average from zero is, divided by 1 - d^s (Kingma and Ba, "Adam", 2015, section 3). As a recursion,
average_s = d_s average_(s-1) + (1 - d_s) p_s with d_s = d (1 - d^(s-1)) / (1 - d^s); d_1 = 0.
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
    kept = corrected_decay(decay, step)
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, average, params)


def corrected_decay(decay: float, step: jax.Array) -> jax.Array:
    """d_s."""
    # 1 - d^s of a d near 1 would lose most of its digits in float32.
    log = math.log(decay)
    return decay * jnp.expm1((step - 1) * log) / jnp.expm1(step * log)
