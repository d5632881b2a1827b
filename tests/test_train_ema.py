"""The moving average beside numpy, and over as many steps as a real run has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt.train import ema

pytestmark = pytest.mark.quick


def decays(decay: float, steps: int) -> np.ndarray:
    """d_1, ..., d_s in float64."""
    step = np.arange(1, steps + 1, dtype=np.float64)
    return np.minimum(decay * (1 - decay ** (step - 1)) / (1 - decay**step), (1 + step) / (10 + step))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.9, 0.999, 0.9999])
def test_the_average_has_nothing_of_the_start(decay):
    params = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    average = ema.start(decay, jnp.full(7, 1e6))
    of_one = jax.jit(ema.update, static_argnums=0)
    for step, value in enumerate(params, 1):
        average = of_one(decay, average, jnp.asarray(value), jnp.int32(step))
        if step in (1, 2, 3, 30, 300):
            kept = decays(decay, step)
            weights = np.array([(1 - kept[i]) * kept[i + 1 :].prod() for i in range(step)])
            assert weights.sum() == pytest.approx(1)
            np.testing.assert_allclose(average, weights @ params[:step], rtol=1e-4, atol=1e-5)


def test_a_small_decay_is_adams_and_a_great_one_warms_up():
    weights = 0.05 ** np.arange(29, -1, -1, dtype=np.float64)  # of p_1, ..., p_30
    kept = decays(0.05, 30)
    by_recursion = [(1 - kept[i]) * kept[i + 1 :].prod() for i in range(30)]
    np.testing.assert_allclose(by_recursion, weights / weights.sum(), rtol=1e-9)
    for step in (1, 2, 50, 200_000):
        assert float(ema.decay_at(0.9999, jnp.int32(step))) == pytest.approx(decays(0.9999, step)[-1], abs=1e-6)
    assert float(ema.decay_at(0.9999, jnp.int32(1))) == 0
    assert float(ema.decay_at(0.9999, jnp.int32(200_000))) == pytest.approx(0.9999, abs=1e-7)


def test_without_a_decay_there_is_none():
    assert ema.start(0.0, {"a": jnp.ones(2)}) == ema.NONE == ema.update(0.0, ema.NONE, {"a": jnp.ones(2)}, jnp.int32(1))
