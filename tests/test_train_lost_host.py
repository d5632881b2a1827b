"""A run of several processes of which one dies: the others end, and the same command goes on to the same numbers."""

import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import psutil
import pytest
from train_runs import finish, last_step, lines, start, train_command, write_dataset

STEPS, EVERY = 24, 6
FLAGS = [
    f"--config.train.steps={STEPS}",
    f"--config.train.checkpoint_every={EVERY}",
    "--config.train.eval_every=12",
    "--config.train.batch_size=8",
    "--config.train.eval_batch_size=8",
    "--config.modalities=spectrogram",
    "--config.model.depth=1",
    "--config.model.fusion_layer=0",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """Programs are compiled without optimization: it would take half of the time."""
    return os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def undisturbed(root, env, tmp_path_factory):
    """undisturbed(count) is the workdir of a run of so many processes that was left alone."""
    found: dict[int, pathlib.Path] = {}

    def run(count: int) -> pathlib.Path:
        if count not in found:
            workdir = tmp_path_factory.mktemp("runs") / str(count)
            status, errors = finish(start(launch(count, root, workdir), env))
            assert status == 0, errors
            found[count] = workdir
        return found[count]

    return run


def launch(count: int, root: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    return ["launch", f"--local={count}", *train_command(root, workdir, *FLAGS)]


def member(launcher: subprocess.Popen, me: int) -> psutil.Process:
    children = psutil.Process(launcher.pid).children()
    return next(child for child in children if f"--process_id={me}" in child.cmdline())


def wait_for(launcher: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Returns once a step was logged that comes after a saved one: checkpoints are written beside the training."""
    while not (workdir / "checkpoints" / str(EVERY)).exists() or last_step(workdir / "metrics.jsonl") < step:
        assert launcher.poll() is None, finish(launcher)
        time.sleep(0.01)


def check_restarted(count: int, root, env, workdir: pathlib.Path, undisturbed: pathlib.Path) -> None:
    status, errors = finish(start(launch(count, root, workdir), env))
    assert status == 0, errors
    assert (workdir / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert lines(workdir)[-1]["step"] == STEPS
    assert json.loads((workdir / "config.json").read_text())["data"]["root"] == str(root)
    results = [json.loads((folder / "result.json").read_text()) for folder in (workdir, undisturbed)]
    assert results[0] | {"workdir": "", "seconds": 0} == results[1] | {"workdir": "", "seconds": 0}


CASES = [
    (2, 1, signal.SIGKILL),
    pytest.param(2, 0, signal.SIGKILL, marks=pytest.mark.slow),
    pytest.param(2, 1, signal.SIGSTOP, marks=pytest.mark.slow),
    pytest.param(4, 3, signal.SIGKILL, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "victim", "how"), CASES)
def test_a_host_that_dies_ends_the_run_and_the_same_command_goes_on_exactly(
    count, victim, how, root, env, undisturbed, tmp_path
):
    expected, workdir = undisturbed(count), tmp_path / "run"
    launcher = start(launch(count, root, workdir), env)
    wait_for(launcher, workdir, EVERY + 3)
    family = psutil.Process(launcher.pid).children(recursive=True)
    member(launcher, victim).send_signal(how)
    status, errors = finish(launcher)
    assert status == 75, errors
    saved = max((int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), default=0)
    going_on = f"; the same command goes on from the checkpoint of step {saved}\n"
    line = rf"process {victim} on {'127.0.0.1' if victim == 0 else socket.gethostname()} "
    assert line in errors, errors
    assert going_on in errors, errors
    assert EVERY <= saved < STEPS
    assert not psutil.wait_procs(family, timeout=10)[1]  # relays end with the process that started them
    with open(workdir / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    check_restarted(count, root, env, workdir, expected)
