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
from command_server import Running
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
def undisturbed(mbt_train, root, env, tmp_path_factory):
    """undisturbed(count) is the workdir of a run of so many processes that was left alone."""
    found: dict[int, pathlib.Path] = {}

    def run(count: int) -> pathlib.Path:
        if count not in found:
            workdir = tmp_path_factory.mktemp("runs") / str(count)
            assert_ended_well(members(mbt_train, count, root, workdir, env))
            found[count] = workdir
        return found[count]

    return run


def members(mbt_train, count: int, root: pathlib.Path, workdir: pathlib.Path, env) -> list[Running]:
    """The processes of a run, without the launcher."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [*train_command(root, workdir, *FLAGS), f"--coordinator={address}", f"--num_processes={count}"]
    return [mbt_train.listen(*words, f"--process_id={me}", env=env) for me in range(count)]


def assert_ended_well(processes: list[Running]) -> None:
    ended = [finish(process) for process in processes]
    assert [status for status, _ in ended] == [0] * len(processes), ended


def wait_for(process: Running | subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Returns once a step was logged that comes after a saved one: checkpoints are written beside the training."""
    while not (workdir / "checkpoints" / str(EVERY)).exists() or last_step(workdir / "metrics.jsonl") < step:
        assert process.poll() is None, finish(process)
        time.sleep(0.01)


def check_says_who_died_and_what_is_saved(errors: str, victim: int, workdir: pathlib.Path) -> None:
    saved = max((int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), default=0)
    line = rf"process {victim} on {'127.0.0.1' if victim == 0 else socket.gethostname()} "
    assert line in errors, errors
    assert f"; the same command goes on from the checkpoint of step {saved}\n" in errors, errors
    assert EVERY <= saved < STEPS


def check_nothing_is_left(family: list[psutil.Process], workdir: pathlib.Path) -> None:
    assert not psutil.wait_procs(family, timeout=10)[1]  # relays end with the process that started them
    with open(workdir / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_same(root, workdir: pathlib.Path, undisturbed: pathlib.Path) -> None:
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
    mbt_train, count, victim, how, root, env, undisturbed, tmp_path
):
    expected, workdir = undisturbed(count), tmp_path / "run"
    processes = members(mbt_train, count, root, workdir, env)
    wait_for(processes[0], workdir, EVERY + 3)
    family = [child for process in processes for child in psutil.Process(process.pid).children(recursive=True)]
    processes[victim].send_signal(how)
    ended = [finish(process) for me, process in enumerate(processes) if me != victim]
    processes[victim].kill()
    finish(processes[victim])
    assert [status for status, _ in ended] == [75] * (count - 1), ended
    for _, errors in ended:
        check_says_who_died_and_what_is_saved(errors, victim, workdir)
    check_nothing_is_left(family, workdir)
    assert_ended_well(members(mbt_train, count, root, workdir, env))
    check_same(root, workdir, expected)


@pytest.mark.slow
def test_so_it_is_with_the_launcher(root, env, undisturbed, tmp_path):
    expected, workdir = undisturbed(2), tmp_path / "run"
    command = ["launch", "--local=2", *train_command(root, workdir, *FLAGS)]
    launcher = start(command, env)
    wait_for(launcher, workdir, EVERY + 3)
    children = psutil.Process(launcher.pid).children()
    family = psutil.Process(launcher.pid).children(recursive=True)
    next(child for child in children if "--process_id=1" in child.cmdline()).kill()
    status, errors = finish(launcher)
    assert status == 75, errors
    check_says_who_died_and_what_is_saved(errors, 1, workdir)
    check_nothing_is_left(family, workdir)
    status, errors = finish(start(command, env))
    assert status == 0, errors
    check_same(root, workdir, expected)
