"""Checkpoints of the whole training state, with Orbax. One that was being written when the run died does not count."""

import contextlib
import dataclasses
import logging
import pathlib
import re
from collections.abc import Sequence

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policy

from mbt.schemas import durable
from mbt.train import digests, distributed, kept_scores
from mbt.train.errors import RunError, UsageError
from mbt.train.scores import Scores
from mbt.train.step import State, state_shapes
from mbt.train.workdir import CHECKPOINTS_FOLDER

KEPT = 2
ITEM = "default"  # Orbax's name for what is saved without one

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
        self._folder = workdir.resolve() / CHECKPOINTS_FOLDER
        self._best = best
        self._writes = writes
        self._settled: int | None = None  # step of the checkpoint that no power cut undoes any more
        options = self._writing() if writes else ocp.CheckpointManagerOptions(read_only=True)
        # Without the handler a manager cannot tell the form of what another one wrote.
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=_Handler())

    def _writing(self) -> ocp.CheckpointManagerOptions:
        kept: list = [policy.LatestN(KEPT), *([_Best(self._folder, self._best)] if self._best else [])]
        return ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(kept), cleanup_tmp_directories=True
        )

    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step of the checkpoint with the best score; of the newest where no score is asked for or kept yet."""
        found = kept_scores.best(self._manager.all_steps(), self._folder, self._best) if self._best else None
        return self.latest() if found is None else found

    def save(self, state: State) -> None:
        """Begins to write the state under its step.

        On return the state is copied, and the next step may have its buffers; the rest goes on in the background, and
        the checkpoint counts once it is whole.

        Args:
          state: of any sharding; every process of a run gives the same step.

        Raises:
          RunError: this one, or the one before it, cannot be written.
        """
        step = int(state.step)
        if step == self.latest():
            return
        try:
            self._settle()
            self._manager.save(step, args=_Save(state))
        except Exception as error:  # Orbax raises whatever it likes
            raise self._failure(error) from error

    def note(self, step: int, scores: Scores) -> None:
        """Keeps with a checkpoint the scores of its evaluation, where the best one is asked for.

        Raises:
          RunError: the checkpoint, or the scores, cannot be written.
        """
        if not self._best or step not in self._manager.all_steps():
            return
        try:
            self._settle()
            if distributed.host() == 0:
                kept_scores.write(self._folder / str(step), scores)
        except Exception as error:
            raise self._failure(error) from error

    def has_scores(self, step: int) -> bool:
        """Whether there is nothing to note of a step any more."""
        return not self._best or kept_scores.are_there(self._folder / str(step))

    def check(self) -> None:
        """Raises RunError where the checkpoint that was being written has failed."""
        try:
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failure(error) from error

    def restore(self, like: State, step: int | None = None) -> State:
        """A checkpoint, by default the newest, in the form of `like`: its shapes, types and shardings are used.

        Raises:
          UsageError: there is none, or it is damaged, or of another model.
          RunError: it is these machines that fail: memory, or one of them.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise UsageError(f"{self._folder}: no checkpoint there yet")
        try:
            if distributed.host() == 0:
                digests.check(self._folder / str(step) / ITEM)
            self._check_form(step, like)
            return self._manager.restore(step, args=_Restore(like))
        except UsageError:
            raise
        except Exception as error:  # Orbax raises anything, even bare ones, for what of its files is missing or damaged
            if _is_of_machine(error):
                where = self._folder / str(step)
                raise RunError(f"checkpoint {where} cannot be restored here: {_reason(error)}") from error
            raise UsageError(self._damaged(step, error)) from error

    def _damaged(self, step: int, error: Exception) -> str:
        """What to do. Nothing is passed over unasked: what cannot be read may be whole on a disk that comes back."""
        others = [other for other in self._manager.all_steps() if other != step]
        rest = f"the run goes on from step {max(others)}" if others else "the run begins again"
        return f"checkpoint {self._folder / str(step)} is damaged ({_reason(error)}); delete that folder, and {rest}"

    def close(self) -> None:
        """Waits until what was begun is whole, and ends Orbax's threads.

        Raises:
          RunError: it cannot be written.
        """
        try:
            if self._writes:
                self._settle()
            self._manager.close()
        except Exception as error:
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


class _Best(policy.PreservationPolicy):
    """Keeps the checkpoint with the best score of those that have one."""

    def __init__(self, folder: pathlib.Path, score: str):
        self._folder = folder
        self._score = score

    def should_preserve(
        self, checkpoints: Sequence[policy.PolicyCheckpointInfo], *, context: policy.PreservationContext
    ) -> Sequence[bool]:
        """Called when one is saved, with those that are there."""
        del context
        best = kept_scores.best((each.step for each in checkpoints), self._folder, self._score)
        return [each.step == best for each in checkpoints]


class _Handler(ocp.StandardCheckpointHandler):
    """Notes what the files are, before the checkpoint counts."""

    def finalize(self, directory) -> None:
        """Called once, by one process, when all have written."""
        super().finalize(directory)
        digests.write(pathlib.Path(directory))


@ocp.args.register_with_handler(_Handler, for_save=True)
@dataclasses.dataclass
class _Save(ocp.args.StandardSave):
    """What that handler saves."""


@ocp.args.register_with_handler(_Handler, for_restore=True)
@dataclasses.dataclass
class _Restore(ocp.args.StandardRestore):
    """What that handler restores."""


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


def _is_of_machine(error: Exception) -> bool:
    """Whether memory, a disk or a device failed, and not a file that is missing."""
    missing = (FileNotFoundError, NotADirectoryError)
    return isinstance(error, (OSError, MemoryError, jax.errors.JaxRuntimeError)) and not isinstance(error, missing)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split("[")[0].split())[:200] or type(error).__name__


def _form(tree) -> dict[str, tuple]:
    """Shape and type of every array by name, the same for a state and for what Orbax says of a stored one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _told(form: tuple | None) -> str:
    return f"{form[1]}{list(form[0])}" if form else "nothing"
