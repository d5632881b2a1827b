"""Steps that were started and whose results nobody has looked at yet."""

import collections
import math
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from mbt.train import workdir as workdir_lib
from mbt.train.errors import RunError
from mbt.train.snapshot import Records

NOT_FINITE_FILE = "not_finite.json"
# Enough to keep the devices busy, and so few that batches do not pile up on them, and that a loop which waits for
# data is one whose devices run dry.
UNDER_WAY = 2
NAMED = 8


class Started(NamedTuple):
    """A step that was started.

    Attributes:
      step: its number.
      values: its metrics, which may still be computed.
      records: (B,) numbers of the records in this process's part of the batch.
    """

    step: int
    values: dict[str, jax.Array]
    records: np.ndarray


class Pending:
    """Looks at the result of every step, in their order, without making the devices wait for it."""

    def __init__(self, workdir: pathlib.Path, records: Records):
        self._workdir = workdir
        self._records = records
        self._started: collections.deque[Started] = collections.deque()

    def add(self, started: Started) -> None:
        """Notes a step."""
        self._started.append(started)

    def take(self, left: int = UNDER_WAY) -> Iterator[tuple[int, dict[str, float]]]:
        """The oldest steps and their metrics as numbers, until only `left` are under way.

        Raises:
          RunError: a metric of a step is not finite. The state after that step must not be saved.
        """
        while len(self._started) > left:
            started = self._started.popleft()
            values = {name: float(value) for name, value in jax.device_get(started.values).items()}
            wrong = [name for name, value in values.items() if not math.isfinite(value)]
            if wrong:
                raise self._failure(started, wrong[0], values)
            yield started.step, values

    def _failure(self, started: Started, name: str, values: dict[str, float]) -> RunError:
        """Names the batch: a few clips in the message, all of them in a file."""
        path = self._workdir / workdir_lib.of_process(NOT_FINITE_FILE, jax.process_index())
        clips = [self._clip_id(int(record)) for record in started.records]
        texts = {key: str(value) for key, value in values.items()}  # JSON has no nan
        workdir_lib.write_json(path, {"step": started.step, **texts, "clips": clips})
        more = f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
        what = name.replace("_", " ").replace("grad norm", "gradient's norm")
        return RunError(
            f"step {started.step}: the {what} is {values[name]}, and nothing after the last checkpoint is saved; "
            f"its clips, in {path.name}: {', '.join(clips[:NAMED])}{more}; look at them, lower "
            "config.optim.learning_rate, or set config.optim.clip_norm"
        )

    def _clip_id(self, record: int) -> str:
        _, index, row = self._records.locate(record)
        return index.ids[row]
