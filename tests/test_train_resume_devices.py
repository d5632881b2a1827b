"""A run that goes on with other devices, and one of several processes of which one is told to stop."""

import json
import pathlib
import shutil
import socket

import pytest
from command_server import Running
from train_runs import finish, lines, train_command, wait_for_step, write_dataset

FLAGS = [
    "--config.train.batch_size=8",
    "--config.train.eval_batch_size=8",
    *("--config.optim.name=sgd", "--config.optim.weight_decay=0"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


def with_devices(number: int) -> dict[str, str]:
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={number}"}


@pytest.mark.slow
def test_a_run_on_eight_devices_goes_on_with_four_or_one(mbt_train, root, tmp_path):
    flags = [*FLAGS, "--config.train.steps=20", "--config.train.eval_every=10", "--config.train.checkpoint_every=10"]
    command = train_command(root, tmp_path / "8", *flags, "--config.train.mesh.fsdp=2")
    status, errors = finish(mbt_train.listen(*command, env=with_devices(8)))
    assert status == 0, errors
    for devices, fsdp in ((4, 4), (1, 1)):
        workdir = tmp_path / str(devices)
        shutil.copytree(tmp_path / "8", workdir)
        shutil.rmtree(workdir / "checkpoints" / "20")
        (workdir / "result.json").unlink()
        command = train_command(root, workdir, *flags, f"--config.train.mesh.fsdp={fsdp}")
        status, errors = finish(mbt_train.listen(*command, env=with_devices(devices)))
        assert status == 0, errors
        assert lines(workdir)[:11] == lines(tmp_path / "8")[:11]
        assert len(lines(workdir)) == len(lines(tmp_path / "8")) == 22
        for ours, theirs in zip(lines(workdir), lines(tmp_path / "8"), strict=True):
            assert ours.pop("kind") == theirs.pop("kind")
            assert ours == pytest.approx(theirs, rel=1e-5)


def start_two(mbt_train, command: list[str]) -> list[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--coordinator={address}", "--num_processes=2"]
    env = {"JAX_PLATFORMS": "cpu"}
    return [mbt_train.listen(*command, *flags, f"--process_id={me}", env=env) for me in range(2)]


@pytest.mark.slow
def test_sigterm_to_one_process_makes_both_save_the_same_step(mbt_train, root, tmp_path):
    workdir = tmp_path / "run"
    flags = ["--config.train.steps=100000", "--config.train.eval_every=0", "--config.data.eval_split="]
    command = train_command(root, workdir, *FLAGS, *flags, "--config.train.checkpoint_every=100000")
    saved = 0
    for told in (1, 0):
        processes = start_two(mbt_train, command)
        wait_for_step(processes[0], workdir, saved + 5)
        processes[told].terminate()
        ended = [finish(process) for process in processes]
        assert [status for status, _ in ended] == [143, 143], ended
        before, saved = saved, max(int(path.name) for path in (workdir / "checkpoints").iterdir())
        assert saved > before
        for _, errors in ended:
            assert f"stopped by SIGTERM after step {saved}" in errors
    assert [line["step"] for line in lines(workdir)] == list(range(1, saved + 1))
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 100000
