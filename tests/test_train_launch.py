"""What the launcher says that hosts execute: under Slurm, on a TPU pod, and as processes here."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import psutil
import pytest
from train_runs import finish, start, train_command, write_dataset

from mbt.train import distributed, main
from mbt.train.launch import Slurm, TpuPod, host_command
from mbt.train.rendezvous import Place, Processes

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "launch.md"
COMMAND = ["train", "--config=demo", "--workdir=a folder"]
SLURM = {"SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}


def text_blocks() -> list[str]:
    return re.findall(r"^```text\n(.*?)^```$", DOCUMENT.read_text(), flags=re.DOTALL | re.MULTILINE)


def printed() -> list[tuple[str, str]]:
    """Commands of the document that print something, and the block after each."""
    found = text_blocks()
    return [
        (block, found[at + 1]) for at, block in enumerate(found) if re.match(r"mbt-train launch --(slurm|tpu)", block)
    ]


def test_the_document_shows_slurm_and_a_pod():
    assert [shlex.split(command)[2].split("=")[0] for command, _ in printed()] == ["--slurm", "--tpu"]


@pytest.mark.parametrize(("command", "shown"), printed(), ids=["slurm", "tpu"])
def test_the_document_shows_what_is_printed(command, shown, capsys):
    words = shlex.split(command.replace("\\\n", " "))
    assert main.main(words[1:]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("status", "requeued"), [(0, False), (1, False), (2, False), (75, True), (137, True), (143, True)]
)
def test_a_slurm_job_is_queued_again_after_what_may_pass(status, requeued, tmp_path):
    """The script, with a scheduler that only notes what it is asked."""
    for name, exits in (("srun", status), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >>{tmp_path}/asked\nexit {exits}\n')
        program.chmod(0o755)
    script = Slurm(nodes=2, gpus=8, cpus=64).script(COMMAND)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
    assert subprocess.run(["bash", "-c", script], env=env, check=False).returncode == status
    asked = (tmp_path / "asked").read_text().splitlines()
    srun = ["srun", "--ntasks-per-node=1", "--cpus-per-task=64", "--wait=60", *host_command(COMMAND)]
    assert asked == srun + (["scontrol", "requeue", "17"] if requeued else [])


def test_options_of_slurm():
    script = Slurm(nodes=4, gpus=0, cpus=8, time="1-00:00:00", partition="long").script(COMMAND)
    options = re.findall(r"^#SBATCH (.*)$", script, flags=re.MULTILINE)
    assert {"--nodes=4", "--cpus-per-task=8", "--time=1-00:00:00", "--partition=long"} <= set(options)
    assert not any(option.startswith("--gpus") for option in options)


def test_what_a_pod_executes_is_the_command(tmp_path):
    """Both shells, of the operator and of the host, leave its words as they are."""
    pod = TpuPod(name="mbt", zone="z", type="v5litepod-32", version="v2", setup="echo 'a b'", spot=True)
    create, setup, run, delete = (shlex.split(command) for command in pod.commands(COMMAND))
    assert create[-1] == "--spot" and delete[4:] == ["delete", "mbt", "--zone=z"]
    assert setup[-1] == "--command=echo 'a b' && pip install \"mbt-flax[tpu]\""
    assert shlex.split(run[-1].removeprefix("--command=")) == host_command(COMMAND)


def test_the_command_of_a_host():
    assert host_command(COMMAND) == ["mbt-train", "train", "--distributed", *COMMAND[1:]]
    whereabouts = ["--coordinator=host:1", "--num_processes=3", "--process_id=2"]
    assert host_command(COMMAND, "host:1", 3, 2) == ["mbt-train", "train", *whereabouts, *COMMAND[1:]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--slurm", "--nodes=2"], "no command: give `train` or `evaluate`"),
        (["--slurm", "--nodes=2", "sweep", "bottlenecks"], "sweep: give `train` or `evaluate`"),
        (["--slurm", "--nodes=2", "train", "--process_id=1"], "--process_id=1: the launcher gives this flag"),
        (["--slurm", "train"], "--slurm: --nodes is needed"),
        (["--tpu=mbt", "--zone=z", "--version=v", "train"], "--tpu=mbt: --type is needed"),
        (["--local=0", "train"], "--local=0: must be positive"),
        (["--local=2", "--config=demo", "train"], "unknown argument --config=demo"),
        (["train"], "one of the arguments --local --slurm --tpu is required"),
    ],
)
def test_what_cannot_be_launched_is_refused(words, reason, capsys):
    try:
        status = main.main(["launch", *words])
    except SystemExit as end:
        status = end.code
    assert status == 2
    errors = capsys.readouterr().err
    assert reason in errors and errors.count("\n") == 1


def test_processes_here_that_fail_end_the_launcher_with_their_status_and_last_lines(tmp_path):
    words = ["launch", "--local=2", "train", "--config=no_such_config", f"--workdir={tmp_path}"]
    ended = subprocess.run(
        [sys.executable, "-m", "mbt.train.main", *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    errors = ended.stderr.splitlines()
    assert errors[0].startswith("mbt-train train: ") and "no_such_config" in errors[0]
    assert errors[1:] == ["process 1 ended with status 2", f"[1] {errors[0]}"]


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_launcher_that_is_told_to_end_leaves_no_process_behind(sent, expected, tmp_path):
    """Before there is anything to save."""
    root = write_dataset(tmp_path / "dataset")
    launcher = start(["launch", "--local=2", *train_command(root, tmp_path / "run")], dict(os.environ))
    while len(family := psutil.Process(launcher.pid).children()) < 2:
        assert launcher.poll() is None, finish(launcher)
    launcher.send_signal(sent)
    assert finish(launcher)[0] == expected
    psutil.wait_procs(family, 20)
    assert not [process for process in family if process.is_running()]


@pytest.mark.parametrize(("tasks", "devices"), [("1(x2)", None), ("4(x2)", [3])])
def test_slurm_says_who_is_who_and_a_process_that_is_alone_on_its_node_has_all_gpus(tasks, devices, monkeypatch):
    for name, value in (SLURM | {"SLURM_LOCALID": "3", "SLURM_STEP_TASKS_PER_NODE": tasks}).items():
        monkeypatch.setenv(name, value)
    place = Place(host="gpu07", port=61441, count=2, me=1, run="digest", timeout_s=9)
    assert distributed.find_place(Processes(timeout_s=9), "digest") == (place, devices)
