"""What a run reports: `metrics.jsonl` and `times.jsonl`, TensorBoard, and a progress bar.

`metrics.jsonl` has only what the config, the data and the step decide, so that two runs can be compared number for
number; how long things took is in `times.jsonl`.
"""

import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tqdm

from mbt.schemas import durable, own_json
from mbt.train import events
from mbt.train.errors import RunError
from mbt.train.scores import Scores

METRICS_FILE = "metrics.jsonl"
TIMES_FILE = "times.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
EVALUATION = "eval"  # kind of a line
# Share of the time spent waiting for data from which on the input counts as what bounds a run.
INPUT_BOUND = 0.5


def truncate(path: pathlib.Path, step: int, *, owed: bool = False) -> None:
    """Drops the lines after a step, a last line that was cut short, and an evaluation of the step that is owed."""
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines() if _step_of(line) <= step]
    kept = [line for line in kept if not (owed and _is_evaluation(line, step))]
    durable.write(path, b"".join(line + b"\n" for line in kept))


def read_lines(path: pathlib.Path) -> list[dict]:
    """The lines of a metrics file; none where it is gone.

    Raises:
      RunError: it cannot be read, or a line is damaged.
    """
    try:
        return [own_json.parse(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def has_evaluation(path: pathlib.Path, step: int) -> bool:
    """Whether a metrics file has the scores of a step."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return any(_is_evaluation(line, step) for line in lines)


def _is_evaluation(line: bytes, step: int) -> bool:
    return _step_of(line) == step and own_json.parse(line).get("kind") == EVALUATION


class NoMetrics:
    """Reports nothing: for every process of a run but the first."""

    def waited(self, seconds: float) -> None:
        """Notes time spent waiting for data."""

    def train(self, step: int, values: dict[str, float]) -> None:
        """Takes the result of a training step."""

    def evaluation(self, step: int, values: Scores) -> None:
        """Takes the scores of an evaluation."""

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Takes pictures of a batch."""

    def settle(self) -> None:
        """Puts on the disk what was reported, before a checkpoint of which the run goes on with what comes later."""

    def close(self) -> None:
        """Ends the reports."""


class Metrics(NoMetrics):
    """Writes the reports of a run from `first_step` on."""

    def __init__(self, workdir: pathlib.Path, first_step: int, total_steps: int, log_every: int, *, owed: bool = False):
        """Opens the files, without what they have of steps after `first_step`.

        Args:
          workdir: of the run.
          first_step: updates made so far.
          total_steps: of the run.
          log_every: steps from one line of training to the next; the first and the last have one in any case.
          owed: whether `first_step` will be evaluated again.
        """
        for name in (METRICS_FILE, TIMES_FILE):
            truncate(workdir / name, first_step, owed=owed)
        events.truncate(workdir / TENSORBOARD_FOLDER, first_step, owed=f"{EVALUATION}/" if owed else "")
        self._metrics = durable.appended(workdir / METRICS_FILE)
        self._times = durable.appended(workdir / TIMES_FILE)
        self._tensorboard = tf.summary.create_file_writer(str(workdir / TENSORBOARD_FOLDER))
        self._log_every, self._total_steps = log_every, total_steps
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            desc="train",
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
        )
        self._first = self._last = (first_step, time.perf_counter())
        self._waited = 0.0
        self._bound = ""

    def waited(self, seconds: float) -> None:
        """Notes time spent waiting for data."""
        self._waited += seconds

    def train(self, step: int, values: dict[str, float]) -> None:
        """Moves the bar; where the step is due, logs its metrics, and the speed since the last time."""
        self._bar.update()
        if step not in (1, self._total_steps) and step % self._log_every:
            return
        self._write(step, "train", values)
        (last_step, last_time), now = self._last, time.perf_counter()
        seconds, steps = now - last_time, max(1, step - last_step)
        share = min(1.0, self._waited / seconds)
        times = {"steps_per_second": steps / seconds, "data_wait_share": share}
        self._times.write(json.dumps({"step": step, "seconds": seconds} | times) + "\n")
        self._times.flush()
        self._to_tensorboard(step, "time", times)
        self._bar.set_postfix(loss=f"{values['loss']:.4g}", data_wait=f"{share:.0%}", refresh=False)
        if self._last != self._first:  # the first time has the compilation in it
            self._tell_bound(step, share)
        self._last, self._waited = (step, now), 0.0

    def evaluation(self, step: int, values: Scores) -> None:
        """Logs an evaluation."""
        self._write(step, EVALUATION, values)
        self._last, self._waited = (step, time.perf_counter()), 0.0

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Shows pictures of a batch in TensorBoard; uint8 (B, H, W, C), by name."""
        with self._tensorboard.as_default():
            for name, values in pictures.items():
                tf.summary.image(f"batch/{name}", values, step=step, max_outputs=len(values))
        self._flush()

    def settle(self) -> None:
        """Puts the lines on the disk."""
        for file in (self._metrics, self._times):
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Ends the bar and closes the files."""
        self._bar.close()
        self._tensorboard.close()
        self._metrics.close()
        self._times.close()

    def _write(self, step: int, kind: str, values: Mapping[str, float | None]) -> None:
        self._to_tensorboard(step, kind, {name: value for name, value in values.items() if value is not None})
        self._metrics.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")  # last: it says that all is told
        self._metrics.flush()

    def _to_tensorboard(self, step: int, kind: str, values: dict[str, float]) -> None:
        with self._tensorboard.as_default():
            for name, value in values.items():
                tf.summary.scalar(f"{kind}/{name}", value, step=step)
        self._flush()

    def _flush(self) -> None:
        try:
            self._tensorboard.flush()
        except tf.errors.OpError as error:
            raise RunError(f"TensorBoard's file cannot be written: {error.message.splitlines()[0]}") from error

    def _tell_bound(self, step: int, share: float) -> None:
        """Says in one line what bounds the run, where that is not what it was."""
        bound = "input" if share > INPUT_BOUND else "compute"
        if bound == self._bound:
            return
        hint = "; more processors, or config.data.readers, would help" if bound == "input" else ""
        tqdm.tqdm.write(
            f"step {step}: {bound} bounds the run, {share:.0%} of the time waits for data{hint}", sys.stderr
        )
        self._bound = bound


def _step_of(line: bytes) -> float:
    try:
        return float(own_json.parse(line)["step"])
    except (KeyError, TypeError, ValueError):
        return float("inf")
