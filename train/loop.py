"""The training loop."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterator, Mapping

from jax.sharding import Mesh
from ml_collections import ConfigDict

from mbt.train.checkpoint import Checkpoints
from mbt.train.errors import RunError
from mbt.train.evaluate import Evaluator
from mbt.train.metrics import Metrics
from mbt.train.records import make_reader, train_batches
from mbt.train.sharding import make_mesh, placed
from mbt.train.snapshot import Records
from mbt.train.step import State, init_state, make_train_step, state_shapes, train_columns


def run(config: ConfigDict, workdir: pathlib.Path, train_records: Records, eval_records: Records | None) -> State:
    """Trains to the last step of a resolved config, from the newest checkpoint where there is one.

    An evaluation comes before the checkpoint of its step: once the last checkpoint is there, so is everything.

    Args:
      config: resolved.
      workdir: of the run; held by this process.
      train_records: to train on.
      eval_records: to evaluate on, or None.
    """
    train, last_step = config.train, config.train.steps
    mesh = make_mesh(config)
    evaluate = Evaluator(config, eval_records, config.data.views, mesh) if eval_records else None
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        state = first = _first_state(config, checkpoints, mesh)
        with contextlib.closing(Metrics(workdir, int(first.step), last_step)) as metrics:
            for step, state, values in _steps(config, first, train_records, metrics, mesh):
                if step == 1 or _due(step, train.log_every, last_step):
                    metrics.train(step, _finite(step, values))
                if evaluate and _due(step, train.eval_every, last_step):
                    metrics.evaluation(step, evaluate(state))
                if _due(step, train.checkpoint_every, last_step):
                    _finite(step, values)
                    checkpoints.save(state)
    return state


def _first_state(config: ConfigDict, checkpoints: Checkpoints, mesh: Mesh) -> State:
    if checkpoints.latest() is None:
        return init_state(config, mesh)
    return checkpoints.restore(state_shapes(config, mesh))


def _steps(
    config: ConfigDict, state: State, records: Records, metrics: Metrics, mesh: Mesh
) -> Iterator[tuple[int, State, dict]]:
    """Every step that is left: its number from 1, the state after it, its metrics."""
    first_step = int(state.step)
    train_step = make_train_step(config, mesh)
    batches = train_batches(make_reader(records, config), config, first_step)
    ahead = placed(mesh, batches, train_columns(config))
    for step in range(first_step + 1, config.train.steps + 1):
        _, batch = _next(ahead, metrics)
        state, values = train_step(state, batch)
        metrics.stepped()
        yield step, state, values


def _next(batches: Iterator[tuple[Mapping, dict]], metrics: Metrics) -> tuple[Mapping, dict]:
    start = time.perf_counter()
    batch = next(batches)
    metrics.waited(time.perf_counter() - start)
    return batch


def _due(step: int, every: int, last_step: int) -> bool:
    """Whether something done every so many steps (0 for never), and at the last, is done now."""
    return step == last_step or (every > 0 and step % every == 0)


def _finite(step: int, values: dict) -> dict[str, float]:
    """A step's metrics as numbers; a loss that is not finite ends the run before anything of it is saved."""
    values = {name: float(value) for name, value in values.items()}
    if not math.isfinite(values["loss"]):
        raise RunError(f"step {step}: the loss is {values['loss']}; lower config.optim.learning_rate")
    return values
