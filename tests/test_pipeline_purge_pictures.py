"""The locks of training runs where their file system has no `flock`, and event files that outlive a power cut."""

import errno
import os
import subprocess
import sys

import disk_faults
import pytest

from mbt.pipeline.purge import pictures
from mbt.schemas import tfrecord
from mbt.train import lock
from mbt.train.errors import UsageError

HOLD = """
import sys
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.purge import pictures
try:
    with pictures.held([sys.argv[1], sys.argv[1] + "/run"]):
        print("held", flush=True)
        sys.stdin.read()
except RefusedError as error:
    print(error)
"""


@pytest.fixture
def start(tmp_path, tmp_path_factory):
    """start() is a process that holds the runs below `tmp_path`, where there is no `flock`, and what it said."""
    made = disk_faults.compiled(tmp_path_factory.mktemp("library"))
    env = os.environ | disk_faults.environment(made, tmp_path, "flock", errno.ENOLCK)
    started = []

    def start() -> tuple[subprocess.Popen, str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        started.append(subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(bool(disk_faults.why_no_library()), reason=disk_faults.why_no_library() or "-")
def test_without_flock_a_file_keeps_trainings_out_of_a_purge(start, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "lock").touch()
    first, said = start()
    assert said == "held"
    with pytest.raises(UsageError, match=f"process {first.pid} on "), lock.held(run):
        pass
    assert f"{run} is being written by a training run (process {first.pid} on " in start()[1]
    first.kill()
    first.wait()
    assert (run / "lock.held").exists()  # of a dead process of this machine, which is in nobody's way
    second, said = start()
    assert said == "held"
    second.communicate("")
    assert os.listdir(run) == ["lock"]
    with lock.held(run):
        pass


def test_the_folder_of_a_new_event_file_is_flushed(tmp_path, monkeypatch):
    path = tmp_path / "events.out.tfevents.1"
    header, footer = tfrecord.frame(b"\x89PNG\r\n\x1a\n")
    path.write_bytes(header + b"\x89PNG\r\n\x1a\n" + footer)
    flushed, fsync = [], os.fsync

    def seen(file: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{file}"), path.read_bytes()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", seen)
    pictures.remove([str(path)])
    assert flushed[-1] == (str(tmp_path), b"")
