"""A moving average of the parameters: average' = d average + (1 - d) params, from the parameters at the start."""

from typing import Any

import jax

# What a state holds where there is no average.
NONE: tuple = ()


def start(decay: float, params: Any) -> Any:
    """The average before the first step; `NONE` for a decay of 0."""
    return jax.tree.map(lambda value: value + 0, params) if decay else NONE


def update(decay: float, average: Any, params: Any) -> Any:
    """The average after a step."""
    if not decay:
        return NONE
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)
