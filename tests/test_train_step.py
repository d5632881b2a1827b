"""The training step: what it computes, whatever it is split into, and that models learn by it."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_steps import tiny_batch, tiny_config, train

from mbt.train import sharding, step

EMA = 0.5
# Everything that draws or averages, at once.
FULL = {"model.stochastic_depth": 0.3, "mixup.alpha": 0.3, "mixup.group": 2, "mixup.by_modality": True}
FULL |= {"optim.ema": EMA, "optim.clip_norm": 0.5}


@pytest.fixture(scope="module")
def straight():
    """A run of 20 steps on one device: its state and metrics."""
    return train(tiny_config(**FULL), 20)


def losses(metrics: list[dict]) -> list[float]:
    return [values["loss"] for values in metrics]


def test_eight_devices_give_the_losses_of_one(mbt_train, straight):
    """On the mixed mesh, in a process of its own; every mesh, and two processes: see `test_train_distributed.py`."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    words = {"meshes": [[2, 4]], "config": FULL, "steps": 20}
    env = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); import train_steps; train_steps.main()"
    done = mbt_train.python(program, pathlib.Path(__file__).parent, json.dumps(words), env=env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["devices"] == 8
    np.testing.assert_allclose(result["losses"][0], losses(straight[1]), rtol=1e-5)
    assert result["losses"][0][-1] < 0.8 * result["losses"][0][0]


def test_accumulation_changes_nothing(straight):
    """Neither what is drawn, nor the gradient that is clipped."""
    _, metrics = train(tiny_config(**FULL, **{"train.accumulate": 4}), 20)
    for name, tolerance in (("loss", 2e-5), ("grad_norm", 1e-3)):
        values = [[each[name] for each in run] for run in (metrics, straight[1])]
        np.testing.assert_allclose(*values, rtol=tolerance, err_msg=name)
    assert max(each["grad_norm"] for each in metrics) > 0.5  # or the clip would not have been tried


def test_colours_are_changed_by_the_step():
    config = tiny_config(**{"data.color_jitter": 1.0})
    mesh = sharding.make_mesh(config)
    batch = tiny_batch(config, 0) | {"seeds": np.zeros((16, 2), np.uint32)}
    assert set(step.train_columns(config)) == set(batch)
    form = [
        step.state_shapes(config, mesh),
        {name: jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in batch.items()},
    ]
    train_step = step.make_train_step(config, mesh)
    assert jax.eval_shape(train_step, *form)[1]["loss"].shape == ()
    del form[1]["seeds"]
    with pytest.raises(KeyError, match="seeds"):
        jax.eval_shape(train_step, *form)


def test_rows_are_dealt_in_groups():
    config = tiny_config(**FULL, **{"train.accumulate": 4})
    rows = step.draw_rows(config, jnp.int32(3), {"numbers": jnp.arange(16)})
    parts = step.split_rows(config, rows)
    assert parts.batch["numbers"].tolist() == [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]]
    assert (parts.keys[1] == rows.keys[jnp.array([2, 3, 10, 11])]).all()
    np.testing.assert_array_equal(parts.weights["rgb"][1], rows.weights["rgb"][jnp.array([1, 5])])
    later = step.draw_rows(config, jnp.int32(4), {})
    assert not np.array_equal(later.weights["rgb"], rows.weights["rgb"])
    assert not (later.keys == rows.keys).any()


def test_the_moving_average_is_what_is_evaluated():
    config = tiny_config(**FULL)
    mesh = sharding.make_mesh(config)
    state, train_step = step.init_state(config, mesh), step.make_train_step(config, mesh)
    average = np.asarray(state.params["head"]["kernel"])
    for number in range(3):
        batch = sharding.place_batch(mesh, tiny_batch(config, number), ("rgb", "spectrogram", "labels"))
        state, _ = train_step(state, batch)
        average = EMA * average + (1 - EMA) * np.asarray(state.params["head"]["kernel"])
    evaluated = step.eval_params(state)["head"]["kernel"]
    np.testing.assert_allclose(evaluated, average, rtol=1e-6)
    assert not np.allclose(evaluated, state.params["head"]["kernel"])
    logits = step.make_eval_step(config, 2, mesh)(state, batch)
    assert logits.shape == (8, 6)
    state = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    other = step.make_eval_step(config, 1, mesh)(state, batch)
    np.testing.assert_allclose(logits, np.asarray(other).reshape(8, 2, 6).mean(axis=1), rtol=1e-5)


def test_without_a_moving_average_the_state_has_none():
    config = tiny_config()
    shapes = step.state_shapes(config, sharding.make_mesh(config))
    assert not jax.tree.leaves(shapes.ema)
    assert step.eval_params(shapes) is shapes.params


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_the_loss():
    state, metrics = train(tiny_config(**{"model.dtype": "bfloat16"}), 5)
    _, precise = train(tiny_config(), 5)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((state.params, state.opt_state))} == {"float32", "int32"}
    np.testing.assert_allclose(losses(metrics), losses(precise), rtol=0.02)
    assert losses(metrics) != losses(precise)


def test_one_batch_is_learned_by_heart():
    """Without mixup, smoothing and drops: every class of random labels is told by the noise of its clip."""
    config = tiny_config(**{"model.stochastic_depth": 0.0, "optim.learning_rate": 1.0, "train.steps": 200})
    mesh = sharding.make_mesh(config)
    state, train_step = step.init_state(config, mesh), step.make_train_step(config, mesh)
    batch = tiny_batch(config, 0)
    batch["labels"] = batch["labels"][np.random.default_rng(0).permutation(len(batch["labels"]))]
    placed = sharding.place_batch(mesh, batch, ("rgb", "spectrogram", "labels"))
    for _ in range(config.train.steps):
        state, values = train_step(state, placed)
    assert float(values["loss"]) < 0.01


@pytest.mark.slow
def test_sgd_at_the_papers_rate_trains():
    """Rate 0.5, momentum 0.9 and a clip at 1, with the loss that starts at K ln 2."""
    config = tiny_config(**{"loss.name": "bce", "train.steps": 100})
    config.optim.learning_rate = 0.5 * 64 / config.train.batch_size  # it is scaled by batch / 64
    _, metrics = train(config, 100)
    assert max(each["learning_rate"] for each in metrics) == pytest.approx(0.5, rel=0.01)
    assert max(each["grad_norm"] for each in metrics) > config.optim.clip_norm
    assert losses(metrics)[0] == pytest.approx(6 * np.log(2), rel=1e-3)
    assert max(losses(metrics)) < 2 * losses(metrics)[0]
    assert np.mean(losses(metrics)[-10:]) < 0.5 * losses(metrics)[0]
