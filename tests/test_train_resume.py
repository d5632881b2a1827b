"""Runs that are killed, stopped and moved to other devices end with the numbers of one that is left alone."""

import json
import os
import pathlib
import random
import signal
import time

import pytest
from train_runs import finish, lines, train_command, wait_for_step, write_dataset

STEPS = 120
LONGER = [
    f"--config.train.steps={STEPS}",
    "--config.train.eval_every=30",
    "--config.train.checkpoint_every=10",
    "--config.train.images_every=25",
    "--config.train.best=map",
    "--config.optim.ema=0.9",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def env(tmp_path_factory) -> dict[str, str]:
    """With a cache of what is compiled, which all processes of these tests share."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return os.environ | cache


@pytest.fixture(scope="module")
def straight(mbt_train, root, env, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    status, errors = finish(mbt_train.listen(*train_command(root, workdir, *LONGER), env=env))
    assert status == 0, errors
    return workdir


def events(workdir: pathlib.Path) -> dict[tuple[str, int], int]:
    """How often TensorBoard's files have a point, by name and step."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[tuple[str, int], int] = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag, event.step] = found.get((value.tag, event.step), 0) + 1
    return found


def check_same(workdir: pathlib.Path, straight: pathlib.Path) -> None:
    assert (workdir / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    assert events(workdir) == events(straight)
    assert set(events(workdir).values()) == {1}
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == sorted(
        path.name for path in (straight / "checkpoints").iterdir()
    )
    results = [json.loads((folder / "result.json").read_text()) for folder in (workdir, straight)]
    assert results[0] | {"workdir": "", "seconds": 0} == results[1] | {"workdir": "", "seconds": 0}


def test_killed_then_terminated_a_run_goes_on_to_the_same_numbers(mbt_train, root, env, straight, tmp_path):
    workdir = tmp_path / "run"
    command = train_command(root, workdir, *LONGER)
    process = mbt_train.listen(*command, env=env)
    wait_for_step(process, workdir, 27)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    process = mbt_train.listen(*command, env=env)
    wait_for_step(process, workdir, 64)
    process.terminate()
    status, errors = finish(process)
    assert status == 143, errors
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"stopped by SIGTERM after step {saved}" in errors.splitlines()[-1]
    assert lines(workdir)[-1]["step"] == saved < STEPS
    status, errors = finish(mbt_train.listen(*command, env=env))
    assert status == 0, errors
    check_same(workdir, straight)


@pytest.mark.slow
def test_killed_at_ten_random_moments_a_run_ends_with_the_same_numbers(mbt_train, root, env, straight, tmp_path):
    workdir, draw = tmp_path / "run", random.Random(0)
    command = train_command(root, workdir, *LONGER)
    for step in sorted(draw.sample(range(1, STEPS - 10), 10)):
        process = mbt_train.listen(*command, env=env)
        wait_for_step(process, workdir, step)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL, "the run ended before it was killed"
    status, errors = finish(mbt_train.listen(*command, env=env))
    assert status == 0, errors
    check_same(workdir, straight)
