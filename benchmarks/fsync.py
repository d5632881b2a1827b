"""What flushing to the disk costs: building, and fetching small clips, with `fsync` and without, in turn.

    python benchmarks/fsync.py --clips=60 --rounds=3

Prints the wall time of each, and what flushing adds to it; --folder is on the disk to measure.
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mbt.pipeline import main as mbt_data

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "campaigns"))
import dataset_run

GOAL = 0.05  # of the time of a build


@contextlib.contextmanager
def flushing(*, on: bool) -> Iterator[list[float]]:
    """For the block, `fsync` is as it is, or does nothing; gives the seconds that each call took."""
    real, took = os.fsync, []

    def timed(file: int) -> None:
        started = time.perf_counter()
        if on:
            real(file)
        took.append(time.perf_counter() - started)

    os.fsync = timed
    try:
        yield took
    finally:
        os.fsync = real


def measure(run: Callable[[], None], *, on: bool) -> tuple[float, int, float]:
    """Seconds that it takes, calls of `fsync`, and the seconds of these, which may overlap."""
    os.sync()
    with flushing(on=on) as took:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started, len(took), sum(took)


def command(*words: str) -> None:
    """A command in this process, silently."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        assert mbt_data.main(words) == 0, words


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--clips", type=int, default=60, help="films of 2 s (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn (default: %(default)s)")
    parser.add_argument("--folder", help="on the disk to measure; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made, dataset_run.lists(Path(made), options.clips) as clips:
        clips.server.latency_s = 0.0
        root = Path(made, "out")
        command(*dataset_run.words("fetch", clips, root))  # what the first command imports is nobody's
        found: dict[tuple[str, bool], list[tuple[float, int, float]]] = {}
        for _ in range(options.rounds):
            for on in (True, False):
                shutil.rmtree(root, ignore_errors=True)
                for step in ("fetch", "build"):
                    words = dataset_run.words(step, clips, root)
                    found.setdefault((step, on), []).append(measure(lambda words=words: command(*words), on=on))
    for step in ("fetch", "build"):
        (with_s, calls, flushed_s), (without_s, *_) = (_middle(found[step, on]) for on in (True, False))
        print(
            f"{step} of {options.clips} clips: {with_s:.2f} s, without flushing {without_s:.2f} s: "
            f"{with_s / without_s - 1:+.1%}; {calls} calls, {flushed_s:.2f} s in them"
        )
    print(f"goal: a build at most {GOAL:+.0%}")


def _middle(rounds: list[tuple[float, int, float]]) -> tuple[float, ...]:
    return tuple(statistics.median(values) for values in zip(*rounds, strict=True))


if __name__ == "__main__":
    main()
