"""`--profile_steps`: a trace of some steps, for TensorBoard's profiler or Perfetto."""

import contextlib
import dataclasses
import pathlib
import re

from mbt.train.errors import UsageError

FOLDER = "profile"


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps `first` to `last`, both included, counted from 1."""

    first: int
    last: int


def parse(text: str) -> Steps:
    """Reads "10:15".

    Raises:
      UsageError: it is not two ascending step numbers.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--profile_steps={text}: must be FIRST:LAST, such as 10:15")
    return Steps(int(match[1]), int(match[2]))


class Profiler:
    """Traces the chosen steps into a folder of the workdir."""

    def __init__(self, workdir: pathlib.Path, steps: Steps | None):
        self._folder = workdir / FOLDER
        self._steps = steps
        self._trace = contextlib.ExitStack()

    def before(self, step: int) -> None:
        """Begins the trace where the step, which is about to start, is the first one."""
        if self._steps and step == self._steps.first:
            import jax

            self._trace.enter_context(jax.profiler.trace(self._folder))

    def after(self, step: int, values: dict) -> None:
        """Ends the trace, once the result is there, where the step is the last one."""
        if self._steps and step == self._steps.last:
            import jax

            jax.block_until_ready(values)
            self.close()

    def close(self) -> None:
        """Writes what was traced."""
        self._trace.close()
