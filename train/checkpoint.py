"""Checkpoints of the whole training state, with Orbax. One that was being written when the run died does not count."""

import contextlib
import logging
import math
import pathlib
import re
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policy

from mbt.schemas import durable
from mbt.train import distributed
from mbt.train.errors import RunError, UsageError
from mbt.train.step import State, state_shapes

FOLDER = "checkpoints"
KEPT = 2

# What goes wrong in Orbax's threads is raised here too, and told in one line.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints of a workdir, by step: the newest, and the one with the best score."""

    def __init__(self, workdir: pathlib.Path, *, writes: bool = False, best: str = ""):
        """Opens them.

        Args:
          workdir: of the run.
          writes: whether this is the run itself. Another reader must leave alone what the run is writing.
          best: score of which the greatest is kept; "" to keep the newest alone.
        """
        self._folder = workdir.resolve() / FOLDER
        self._best = best
        self._writes = writes
        self._settled: int | None = None  # step of the checkpoint that no power cut undoes any more
        options = self._writing() if writes else ocp.CheckpointManagerOptions(read_only=True, best_fn=self._best_fn())
        # Without the handler a manager cannot tell the form of what another one wrote.
        handler = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handler)

    def _writing(self) -> ocp.CheckpointManagerOptions:
        policies: list = [policy.LatestN(KEPT)]
        if score := self._best_fn():
            policies.append(policy.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False))
        return ocp.CheckpointManagerOptions(
            best_fn=self._best_fn(),
            preservation_policy=policy.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )

    def _best_fn(self) -> Callable[[dict[str, float]], float] | None:
        return (lambda scores: _or_least(scores[self._best])) if self._best else None

    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step of the checkpoint with the best score; of the newest where no score is asked for or kept yet."""
        return self._manager.best_step()

    def save(self, state: State, scores: dict[str, float] | None = None) -> None:
        """Begins to write the state under its step.

        On return the state is copied, and the next step may have its buffers; the rest goes on in the background, and
        the checkpoint counts once it is whole.

        Args:
          state: of any sharding; every process of a run gives the same step.
          scores: of an evaluation of this state.

        Raises:
          RunError: this one, or the one before it, cannot be written.
        """
        step = int(state.step)
        if step == self.latest():
            return
        try:
            self._settle()
            self._manager.save(step, args=ocp.args.StandardSave(state), metrics=scores)
        except (ValueError, OSError) as error:
            raise self._failure(error) from error

    def check(self) -> None:
        """Raises RunError where the checkpoint that was being written has failed."""
        try:
            self._manager.check_for_errors()
        except (ValueError, OSError) as error:
            raise self._failure(error) from error

    def restore(self, like: State, step: int | None = None) -> State:
        """A checkpoint, by default the newest, in the form of `like`: its shapes, types and shardings are used.

        Raises:
          UsageError: there is none, or it is damaged, or of another model.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise UsageError(f"{self._folder}: no checkpoint there yet")
        try:
            self._check_form(step, like)
            return self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except (ValueError, OSError, KeyError) as error:  # from whatever of its files is missing or damaged
            raise UsageError(self._damaged(step, error)) from error

    def _damaged(self, step: int, error: Exception) -> str:
        """What to do. Nothing is passed over unasked: what cannot be read may be whole on a disk that comes back."""
        others = [other for other in self._manager.all_steps() if other != step]
        rest = f"the run goes on from step {max(others)}" if others else "the run begins again"
        reason = " ".join(str(error).split("[")[0].split())[:200]
        return f"checkpoint {self._folder / str(step)} is damaged ({reason}); delete that folder, and {rest}"

    def close(self) -> None:
        """Waits until what was begun is whole, and ends Orbax's threads.

        Raises:
          RunError: it cannot be written.
        """
        try:
            if self._writes:
                self._settle()
            self._manager.close()
        except (ValueError, OSError) as error:
            raise self._failure(error) from error

    def _settle(self) -> None:
        """Puts the newest checkpoint on the disk: Orbax leaves that to the system, and deletes those before it."""
        self._manager.wait_until_finished()
        step = self.latest()
        if step is not None and step != self._settled:
            durable.flush_tree(self._folder / str(step))
            durable.flush_folders_of([self._folder])  # which Orbax made
            self._settled = step

    def _check_form(self, step: int, like: State) -> None:
        theirs, ours = _form(self._manager.item_metadata(step).tree), _form(like)
        for name in sorted(ours.keys() | theirs.keys(), key=lambda name: (not name.startswith("params/"), name)):
            if ours.get(name) != theirs.get(name):
                has, needs = (_told(form.get(name)) for form in (theirs, ours))
                raise UsageError(
                    f"checkpoint {self._folder / str(step)} is of another model: of {name} it has {has}, the config "
                    f"asks for {needs}; give the --workdir of a run with this model, or a new one"
                )

    def _failure(self, error: Exception) -> RunError:
        text = " ".join(str(error).split())
        reason = next(iter(re.findall(r"No space left on device|Disk quota exceeded|File too large", text)), text[:200])
        return RunError(f"a checkpoint in {self._folder} cannot be written: {reason}")


def newest_step(workdir: pathlib.Path) -> int | None:
    """Step of the newest whole checkpoint of a run that may still be written; None where there is none."""
    folder = workdir / FOLDER
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=None)


def restored(workdir: pathlib.Path, config: ConfigDict, mesh: jax.sharding.Mesh, *, best: bool = False) -> State:
    """A state of a run, to ask it something: the newest, or the one with the best score. All hosts get the same.

    Raises:
      UsageError: there is none, or no score is kept the best of.
    """
    if best and not config.train.best:
        raise UsageError(f"--best: the run in {workdir} kept none; config.train.best names the score to keep it by")
    with contextlib.closing(Checkpoints(workdir, best=config.train.best if best else "")) as checkpoints:
        step = distributed.agreed(checkpoints.best() if best else checkpoints.latest())
        if step is None:
            raise UsageError(f"--workdir={workdir}: no checkpoint there yet")
        return checkpoints.restore(state_shapes(config, mesh), step)


def _form(tree) -> dict[str, tuple]:
    """Shape and type of every array by name, the same for a state and for what Orbax says of a stored one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _or_least(score: float) -> float:
    """A score that is not a number, as one of no clips, is never the best."""
    return score if math.isfinite(score) else -math.inf


def _told(form: tuple | None) -> str:
    return f"{form[1]}{list(form[0])}" if form else "nothing"
