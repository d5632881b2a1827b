"""The moving average beside numpy, and over as many steps as a real run has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt.train import ema

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999, 0.9999])
def test_the_average_is_that_of_adam_and_has_nothing_of_the_start(decay):
    """Weights d^(s-1), ..., d, 1 of what came after each step, in float64."""
    params = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    average = ema.start(decay, jnp.full(7, 1e6))
    of_one = jax.jit(ema.update, static_argnums=0)
    for step, value in enumerate(params, 1):
        average = of_one(decay, average, jnp.asarray(value), jnp.int32(step))
        if step in (1, 2, 3, 30, 300):
            weights = decay ** np.arange(step - 1, -1, -1, dtype=np.float64)
            expected = (weights[:, None] * params[:step]).sum(axis=0) / weights.sum()
            np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-5)


def test_the_decay_of_late_steps_is_the_one_asked_for():
    assert float(ema.corrected_decay(0.9999, jnp.int32(1))) == 0
    assert float(ema.corrected_decay(0.9999, jnp.int32(2))) == pytest.approx(0.9999 / 1.9999, rel=1e-6)
    assert float(ema.corrected_decay(0.9999, jnp.int32(200_000))) == pytest.approx(0.9999, abs=1e-7)


def test_without_a_decay_there_is_none():
    assert ema.start(0.0, {"a": jnp.ones(2)}) == ema.NONE == ema.update(0.0, ema.NONE, {"a": jnp.ones(2)}, jnp.int32(1))
