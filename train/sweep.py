"""`mbt-train sweep`: trains the models of an ablation one after the other, and draws the paper's figure of them."""

import contextlib
import fcntl
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from mbt.schemas import lock_file
from mbt.train import config as config_lib
from mbt.train import cost
from mbt.train import workdir as workdir_lib
from mbt.train.errors import RunError, UsageError
from mbt.train.sweeps import figure
from mbt.train.sweeps.ablations import ABLATIONS
from mbt.train.sweeps.runs import Run, plan

RUNS_FILE, SUMMARY_FILE, FIGURE_FILE = "runs.csv", "summary.json", "figure.png"
# As a shell gives it for a process that SIGTERM ended.
TERMINATED = 128 + signal.SIGTERM


def commands(
    name: str, config_name: str | None, overrides: list[str], workdir: pathlib.Path, *, seeds: int
) -> list[str]:
    """The commands of the runs that are not finished."""
    runs = _plan(name, config_name, overrides, workdir, seeds)
    return [run.command for run in runs if run.result() is None]


def sweep(
    name: str,
    config_name: str | None,
    overrides: list[str],
    workdir: pathlib.Path,
    *,
    seeds: int,
    score: str | None = None,
    report: bool = False,
) -> dict:
    """Runs what is not finished of an ablation, and reports all of it.

    Args:
      name: of the ablation.
      config_name: path or name of the config that it changes; None for the ablation's own.
      overrides: `--config.KEY=VALUE` flags.
      workdir: the sweep is in the folder `name` of it.
      seeds: trainings of each model.
      score: of the results; by default mAP, top-1 where a clip has one label, top-1 of actions for two heads.
      report: whether to start no run, and report those that are finished.

    Returns:
      The summary, which is also in `summary.json`, beside `runs.csv` and `figure.png`.

    Raises:
      UsageError: a config or the dataset is wrong, or nothing is finished yet.
      RunError: a run stopped; the others are finished, and reported.
    """
    config_name = config_name or ABLATIONS[name].config
    runs, folder = _plan(name, config_name, overrides, workdir, seeds), workdir / name
    failed = [] if report else _run_all(runs)
    if not any(run.result() for run in runs):
        raise _failure(runs, failed) if failed else UsageError(f"{folder}: no run is finished yet")
    rows = figure.summarise(runs, score)
    score = score or figure.main_scores(runs)
    if not rows:
        raise _failure(runs, failed) if failed else UsageError(f"{folder}: no finished run has a value of {score}")
    costs = _costs(name, config_name, overrides)
    figure.write_runs(runs, folder / RUNS_FILE)
    figure.draw(ABLATIONS[name], rows, score, costs, folder / FIGURE_FILE)
    finished = sum(run.result() is not None for run in runs)
    summary = {"sweep": name, "score": score, "finished": finished, "runs": len(runs), "points": rows}
    summary |= {"costs": costs} if costs else {}
    workdir_lib.write_json(folder / SUMMARY_FILE, summary)
    if failed:
        raise _failure(runs, failed)
    return summary


def _failure(runs: list[Run], failed: list[Run]) -> RunError:
    return RunError(f"{len(failed)} of {len(runs)} runs failed, the first {failed[0].workdir}; see above for why")


def _plan(name: str, config_name: str | None, overrides: list[str], workdir: pathlib.Path, seeds: int) -> list[Run]:
    if seeds < 1:
        raise UsageError(f"--seeds={seeds}: must be positive")
    ablation = ABLATIONS[name]
    return plan(ablation, config_name or ablation.config, overrides, workdir / name, seeds)


def _run_all(runs: list[Run]) -> list[Run]:
    """Runs those that are not finished; returns those that failed, which does not keep the others from running.

    Raises:
      RunError: a run was refused or interrupted, as any other would be.
    """
    failed = []
    with _terminable():
        for number, run in enumerate(runs, 1):
            _wait_for_other(run)
            if run.result() is not None:
                continue
            print(f"[{number}/{len(runs)}] {run.title}: {run.command}", file=sys.stderr, flush=True)
            status = _run(run)
            if status == 1:
                failed.append(run)
            elif status:
                raise RunError(f"{run.workdir} ended with status {status}; the same command goes on from there")
    return failed


def _run(run: Run) -> int:
    """Trains in a process of its own, so that no run begins with what another left in memory.

    It has our stderr alone: what we print to stdout can be parsed.
    """
    with subprocess.Popen([sys.executable, "-m", "mbt.train.main", *run.words], stdout=sys.stderr.fileno()) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # it saves its state, if it has come so far
            process.wait()
            raise


def _wait_for_other(run: Run) -> None:
    """Waits for a process that is at the run already: one of a sweep that was killed, or of a cluster."""
    lock = run.workdir / lock_file.WORKDIR_LOCK
    if not lock.exists():
        return
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another mbt-train, which is writing {run.workdir}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in lock_file.NO_FLOCK:
                raise  # where there are no locks, the run itself says who is at it


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that the run that is going on is ended too."""

    def stop(*_):
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _costs(name: str, config_name: str, overrides: list[str]) -> list[dict]:
    """GMAC of the models of Fig. 3, and of the reference's cross-attention."""
    if not ABLATIONS[name].costs:
        return []
    point = next(ABLATIONS[name].points(config_lib.load_config(config_name, overrides), lambda: 1))
    return cost.sweep(config_name, [*overrides, f"--config.data.seconds={point.changes['data.seconds']}"], None)
