"""The name of a run that another one starts from: `config.init.source=RUN[@STEP]`."""

import pathlib
import re

from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError

_STEP = re.compile(r"@(\d+)$")


def parse(source: str) -> tuple[pathlib.Path, int | None]:
    """The workdir and the step that a source names; None for the newest."""
    found = _STEP.search(source)
    return pathlib.Path(source[: found.start()] if found else source), int(found[1]) if found else None


def frozen(source: str, before: str = "") -> str:
    """A source as RUN@STEP, wherever the command is run from and however the other run goes on.

    Args:
      source: as given.
      before: what a run that goes on began with, which may be gone by now; "" for a new run.

    Raises:
      UsageError: there is no such checkpoint.
    """
    workdir, step = parse(source)
    if before:
        first_workdir, first_step = parse(before)
        if workdir.absolute() == first_workdir and step in (None, first_step):
            return before
    there = workdir_lib.checkpoint_steps(workdir)
    if not there:
        raise UsageError(f"config.init.source={source}: no checkpoint of a run there")
    if step is not None and step not in there:
        steps = ", ".join(map(str, there))
        raise UsageError(f"config.init.source={source}: no checkpoint of step {step} there; it has those of {steps}")
    return f"{workdir.absolute()}@{there[-1] if step is None else step}"
