"""The training loop."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator

from jax.sharding import Mesh
from ml_collections import ConfigDict

from mbt.train import distributed, metrics, pictures
from mbt.train import workdir as workdir_lib
from mbt.train.checkpoint import Checkpoints
from mbt.train.damage_log import BAD_RECORDS_FILE, DamageLog
from mbt.train.errors import StoppedError
from mbt.train.evaluate import Evaluator
from mbt.train.init_source import first_state
from mbt.train.pending import UNDER_WAY, Pending, Started
from mbt.train.profile import Profiler, Steps
from mbt.train.reader import Reader
from mbt.train.records import make_reader, train_batches
from mbt.train.sharding import make_mesh, placed
from mbt.train.signals import until_sigterm
from mbt.train.snapshot import Records
from mbt.train.step import State, make_train_step, state_shapes, train_columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a run is made of, opened."""

    config: ConfigDict
    mesh: Mesh
    reader: Reader
    evaluate: Evaluator | None
    metrics: metrics.NoMetrics
    pending: Pending
    damage: DamageLog
    checkpoints: Checkpoints
    profiler: Profiler
    stop: Callable[[int], bool]


def run(
    config: ConfigDict,
    workdir: pathlib.Path,
    train_records: Records,
    eval_records: Records | None,
    profile: Steps | None = None,
) -> State:
    """Trains to the last step of a resolved config, from the newest checkpoint where there is one.

    Every process of the run calls it; the first one holds the workdir and reports.

    Args:
      config: resolved.
      workdir: of the run.
      train_records: to train on.
      eval_records: to evaluate on, or None.
      profile: steps to trace.

    Raises:
      RunError: a loss is not finite, data are damaged, or a disk is full.
      StoppedError: SIGTERM came, and the run is saved.
    """
    mesh = make_mesh(config)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, writes=True, best=config.train.best)))
        reader = make_reader(train_records, config)
        damage = DamageLog(workdir / workdir_lib.of_process(BAD_RECORDS_FILE, distributed.host()), reader)
        stack.callback(damage.write)
        first = state = _first_state(config, mesh, checkpoints)
        owed = eval_records is not None and _owes_evaluation(config, workdir, checkpoints, int(first.step))
        parts = _Parts(
            config=config,
            mesh=mesh,
            reader=reader,
            evaluate=Evaluator(config, eval_records, config.data.views, mesh) if eval_records else None,
            metrics=stack.enter_context(contextlib.closing(_metrics(config, workdir, int(first.step), owed))),
            pending=Pending(workdir, train_records),
            damage=damage,
            checkpoints=checkpoints,
            profiler=stack.enter_context(contextlib.closing(Profiler(workdir, profile))),
            stop=stack.enter_context(until_sigterm()),
        )
        if owed:
            _evaluate(parts, int(first.step), first)
        for step, state in _steps(parts, first):
            _after(parts, step, state)
    return state


def _first_state(config: ConfigDict, mesh: Mesh, checkpoints: Checkpoints) -> State:
    step = distributed.agreed(checkpoints.latest())
    if step is None:
        return first_state(config, mesh)
    return checkpoints.restore(state_shapes(config, mesh), step)


def _owes_evaluation(config: ConfigDict, workdir: pathlib.Path, checkpoints: Checkpoints, step: int) -> bool:
    """Whether the run was stopped between the checkpoint of a step and the end of its evaluation."""
    if step == 0 or not _due(step, config.train.eval_every, config.train.steps):
        return False
    is_told = metrics.has_evaluation(workdir / metrics.METRICS_FILE, step) and checkpoints.has_scores(step)
    return not distributed.agreed(int(is_told))


def _metrics(config: ConfigDict, workdir: pathlib.Path, first_step: int, owed: bool) -> metrics.NoMetrics:
    if distributed.host() > 0:
        return metrics.NoMetrics()
    return metrics.Metrics(workdir, first_step, config.train.steps, config.train.log_every, owed=owed)


def _steps(parts: _Parts, state: State) -> Iterator[tuple[int, State]]:
    """Starts every step that is left: its number from 1, and the state after it."""
    config, first_step = parts.config, int(state.step)
    train_step, seen = make_train_step(config, parts.mesh), pictures.make_seen(config, parts.mesh)
    batches = train_batches(parts.reader, config, first_step, host=distributed.host(), hosts=distributed.hosts())
    ready = placed(parts.mesh, batches, train_columns(config))
    for step in range(first_step + 1, config.train.steps + 1):
        start = time.perf_counter()
        raw, batch = next(ready)
        parts.metrics.waited(time.perf_counter() - start)
        if config.train.images_every and (step == 1 or step % config.train.images_every == 0):
            parts.metrics.pictures(step, pictures.draw(seen(state, batch)))
        parts.profiler.before(step)
        state, values = train_step(state, batch)
        parts.pending.add(Started(step, values, raw["records"]))
        parts.profiler.after(step, values)
        yield step, state


def _after(parts: _Parts, step: int, state: State) -> None:
    """Reports, saves, stops and evaluates where that is due.

    In this order, so that a checkpoint has all reports before it, and no training is lost with an evaluation that is
    killed: it is made up for by the run that goes on from the checkpoint.
    """
    train, last_step = parts.config.train, parts.config.train.steps
    stopping = parts.stop(step) and step < last_step
    evaluating = parts.evaluate is not None and _due(step, train.eval_every, last_step)
    saving = stopping or _due(step, train.checkpoint_every, last_step) or (evaluating and bool(train.best))
    parts.damage.write()
    for done, values in parts.pending.take(left=0 if evaluating or saving else UNDER_WAY):
        parts.metrics.train(done, values)
    if saving:
        parts.metrics.settle()
        parts.checkpoints.save(state)
    else:
        parts.checkpoints.check()
    if stopping:
        raise StoppedError(f"stopped by SIGTERM after step {step}, which is saved; the same command goes on from there")
    if evaluating:
        _evaluate(parts, step, state)


def _evaluate(parts: _Parts, step: int, state: State) -> None:
    assert parts.evaluate is not None
    scores = parts.evaluate(state)
    parts.checkpoints.note(step, scores)
    parts.metrics.evaluation(step, scores)


def _due(step: int, every: int, last_step: int) -> bool:
    """Whether something done every so many steps (0 for never), and at the last, is done now."""
    return step == last_step or (every > 0 and step % every == 0)
