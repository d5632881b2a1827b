"""What a run reports: `metrics.jsonl` and `times.jsonl`, TensorBoard, and a progress bar.

`metrics.jsonl` has only what the config, the data and the step decide, so that two runs can be compared number for
number; how long things took is in `times.jsonl`.
"""

import json
import pathlib
import sys
import time

import tensorflow as tf
import tqdm

METRICS_FILE = "metrics.jsonl"
TIMES_FILE = "times.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def truncate(path: pathlib.Path, step: int) -> None:
    """Drops the lines after a step, and a last line that was cut short."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept))
    temporary.replace(path)


def read_lines(path: pathlib.Path) -> list[dict]:
    """The lines of a metrics file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Metrics:
    """Writes the reports of a run from `first_step` on."""

    def __init__(self, workdir: pathlib.Path, first_step: int, total_steps: int):
        for name in (METRICS_FILE, TIMES_FILE):
            truncate(workdir / name, first_step)
        self._metrics = (workdir / METRICS_FILE).open("a")
        self._times = (workdir / TIMES_FILE).open("a")
        self._tensorboard = tf.summary.create_file_writer(str(workdir / TENSORBOARD_FOLDER))
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            desc="train",
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
        )
        self._last = (first_step, time.perf_counter())
        self._waited = 0.0

    def waited(self, seconds: float) -> None:
        """Notes time spent waiting for data."""
        self._waited += seconds

    def stepped(self) -> None:
        """Moves the bar."""
        self._bar.update()

    def train(self, step: int, values: dict[str, float]) -> None:
        """Logs a training step: its metrics, and the speed since the last time."""
        self._write(step, "train", values)
        (last_step, last_time), now = self._last, time.perf_counter()
        seconds, steps = now - last_time, max(1, step - last_step)
        times = {"steps_per_second": steps / seconds, "data_wait_share": min(1.0, self._waited / seconds)}
        self._times.write(json.dumps({"step": step, "seconds": seconds} | times) + "\n")
        self._times.flush()
        self._to_tensorboard(step, "time", times)
        self._bar.set_postfix(loss=f"{values['loss']:.4g}", refresh=False)
        self._last, self._waited = (step, now), 0.0

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Logs an evaluation."""
        self._write(step, "eval", values)
        self._last = (step, time.perf_counter())

    def close(self) -> None:
        """Ends the bar and closes the files."""
        self._bar.close()
        self._tensorboard.close()
        self._metrics.close()
        self._times.close()

    def _write(self, step: int, kind: str, values: dict[str, float]) -> None:
        self._metrics.write(json.dumps({"step": step, "kind": kind} | values) + "\n")
        self._metrics.flush()
        self._to_tensorboard(step, kind, values)

    def _to_tensorboard(self, step: int, kind: str, values: dict[str, float]) -> None:
        with self._tensorboard.as_default():
            for name, value in values.items():
                tf.summary.scalar(f"{kind}/{name}", value, step=step)
        self._tensorboard.flush()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
