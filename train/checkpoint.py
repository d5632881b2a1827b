"""Checkpoints of the whole training state, with Orbax. One that was being written when the run died does not count."""

import pathlib

import orbax.checkpoint as ocp

from mbt.train.errors import UsageError
from mbt.train.step import State

FOLDER = "checkpoints"
KEPT = 2


class Checkpoints:
    """The checkpoints of a workdir, by step; the newest are kept."""

    def __init__(self, workdir: pathlib.Path):
        # Not asynchronous: the step donates its buffers, which a copy in the background may still be reading.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        self._folder = workdir.resolve() / FOLDER
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, state: State) -> None:
        """Writes the state under its step; on return the checkpoint is whole."""
        step = int(state.step)
        if step != self.latest():
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: State) -> State:
        """The newest checkpoint, in the form of `like` and where it says; see `step.state_shapes`."""
        try:
            return self._manager.restore(self.latest(), args=ocp.args.StandardRestore(like))
        except (ValueError, KeyError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"checkpoint {self._folder}/{self.latest()} does not fit this model: {reason}") from error

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()
