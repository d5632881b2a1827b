"""The training step: what it computes, whatever it is split into, and that models learn by it."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_steps import tiny_batch, tiny_config, train

from mbt.train import config as config_lib
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


def test_clipped_part_by_part_the_update_is_the_mean_of_clipped_gradients():
    """As Scenic's `trainer.py` does on each device, before the mean over devices."""
    norm = 0.05
    changes = {"optim.clip_norm": norm, "optim.momentum": 0.0, "optim.warmup": 0.0, "model.stochastic_depth": 0.0}
    config = tiny_config(**changes, **{"train.accumulate": 4, "optim.clip": "part"})
    mesh = sharding.make_mesh(config)
    batch = tiny_batch(config, 0)
    state = step.init_state(config, mesh)
    before = jax.tree.map(np.asarray, state.params)
    placed = sharding.place_batch(mesh, batch, ("rgb", "spectrogram", "labels"))
    after = step.make_train_step(config, mesh)(state, placed)[0].params
    of_part = tiny_config(**changes | {"train.batch_size": 4, "optim.clip_norm": 0.0})
    gradient = step.make_gradient(of_part, mesh, jax.tree.map(lambda _: sharding.replicated(mesh), before))
    parts, norms = [], []
    for part in range(4):
        rows = {name: values[part::4] for name, values in batch.items()}  # they are dealt in turn
        fresh = step.init_state(config, mesh)
        grads = jax.tree.map(np.asarray, gradient(fresh, step.draw_rows(of_part, jnp.int32(0), rows))[1])
        norms.append(np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in jax.tree.leaves(grads))))
        parts.append(jax.tree.map(lambda leaf, scale=norm / norms[-1]: leaf * scale, grads))
    assert min(norms) > norm  # every part is clipped
    rate = config.optim.learning_rate * config.train.batch_size / 64
    expected = jax.tree.map(lambda value, *grads: value - rate * sum(grads) / 4, before, *parts)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6), after, expected)
    moved = jax.tree.map(lambda a, b: np.asarray(a) - b, after, before)
    length = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in jax.tree.leaves(moved)))
    assert length < 0.99 * rate * norm  # clipped as a whole it would be `rate * norm`


@pytest.mark.parametrize(
    ("rows", "devices", "batch", "accumulate", "parts"),
    [
        (64, 1, 64, 1, 1),
        (256, 1, 64, 1, 4),
        (256, 8, 64, 1, 4),
        (256, 1, 64, 32, 128),
        (264, 8, 64, 1, 11),
        (8, 8, 2, 1, 1),
    ],
)
def test_an_evaluation_takes_no_more_rows_at_a_time_than_a_step_of_training(rows, devices, batch, accumulate, parts):
    config = tiny_config(**{"train.batch_size": batch, "train.accumulate": accumulate})
    found = step.eval_parts(config, rows, devices=devices)
    assert found == parts and rows % found == 0 and rows // found % devices == 0


@pytest.mark.slow
def test_an_evaluation_of_four_views_takes_no_more_memory_than_a_step_of_training():
    """By XLA's own count, on the demo's sizes at a batch of 64."""
    config = config_lib.load_config("demo", ["--config.train.batch_size=64", "--config.train.eval_batch_size=64"])
    config.data.update(mel_mean=0.0, mel_stddev=1.0)
    config.model.num_classes, config.train.steps = 8, 10
    mesh = sharding.make_mesh(config)
    state = step.state_shapes(config, mesh)
    shapes = {"rgb": (*config_lib.input_shapes(config)["rgb"], 3), "labels": (8,)}
    shapes["spectrogram"] = (*config_lib.input_shapes(config)["spectrogram"], 1)
    dtypes = {"rgb": np.uint8, "labels": np.float32, "spectrogram": np.float32}

    def batch(rows: int, names: tuple[str, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct((rows, *shapes[name]), dtypes[name]) for name in names}

    trained = step.make_train_step(config, mesh).lower(state, batch(64, ("rgb", "spectrogram", "labels"))).compile()
    evaluated = step.make_eval_step(config, 4, mesh).lower(state, batch(256, ("rgb", "spectrogram"))).compile()
    sizes = [compiled.memory_analysis().temp_size_in_bytes for compiled in (trained, evaluated)]
    assert sizes[1] <= sizes[0]


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
    average = 0
    for number in range(3):
        batch = sharding.place_batch(mesh, tiny_batch(config, number), ("rgb", "spectrogram", "labels"))
        state, _ = train_step(state, batch)
        kept = min(EMA * (1 - EMA**number) / (1 - EMA ** (number + 1)), (2 + number) / (11 + number))
        average = kept * average + (1 - kept) * np.asarray(state.params["head"]["kernel"])
    evaluated = step.eval_params(state)["head"]["kernel"]
    np.testing.assert_allclose(evaluated, average, rtol=1e-5, atol=1e-7)
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
