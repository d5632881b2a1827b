"""The lock of a workdir where `flock` is missing, and links in the place of its files: real processes."""

import errno
import os
import subprocess
import sys

import disk_faults
import pytest

from mbt.schemas import durable, lock_file
from mbt.schemas.holder import Holder
from mbt.train import lock
from mbt.train.errors import UsageError

HOLD = """
import pathlib, sys
from mbt.train import lock
from mbt.train.errors import UsageError
try:
    with lock.held(pathlib.Path(sys.argv[1])):
        print("holding", flush=True)
        sys.stdin.read()
except UsageError as error:
    print(error)
"""


@pytest.fixture
def start(tmp_path):
    """start(flock=...) starts a process that holds `tmp_path`, and returns it with what it said."""
    started = []

    def start(*, flock: bool) -> tuple[subprocess.Popen, str]:
        env = dict(os.environ)
        if not flock:
            made = disk_faults.compiled(tmp_path.parent)
            env |= disk_faults.environment(made, tmp_path, "flock", errno.EOPNOTSUPP)
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        started.append(subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(bool(disk_faults.why_no_library()), reason=disk_faults.why_no_library() or "-")
def test_without_flock_a_file_keeps_others_out_and_a_dead_one_does_not(start, tmp_path):
    first, word = start(flock=False)
    assert word == "holding"
    for flock in (False, True):
        said = start(flock=flock)[1]
        assert f"another mbt-train is writing there (process {first.pid} on " in said
        assert f"if that one is dead, remove {tmp_path / lock_file.WORKDIR_LOCK_BY_NAME}" in said
    first.kill()
    first.wait()
    second, word = start(flock=False)
    assert word == "holding"
    second.communicate("")
    assert not (tmp_path / lock_file.WORKDIR_LOCK_BY_NAME).exists()
    (tmp_path / lock_file.WORKDIR_LOCK_BY_NAME).write_bytes(b"")  # of another machine, perhaps
    assert f"if that one is dead, remove {tmp_path / lock_file.WORKDIR_LOCK_BY_NAME}" in start(flock=False)[1]


@pytest.mark.skipif(bool(disk_faults.why_no_library()), reason=disk_faults.why_no_library() or "-")
def test_of_two_that_find_a_dead_one_only_one_gets_the_lock(start, tmp_path, monkeypatch):
    dead, _ = start(flock=False)
    dead.kill()
    dead.wait()
    is_dead, faster = Holder.is_dead, []

    def after_another(holder: Holder) -> bool:
        said = is_dead(holder)
        if not faster:
            faster.append(start(flock=False))
        return said

    monkeypatch.setattr(Holder, "is_dead", after_another)
    with pytest.raises(UsageError, match="another mbt-train is writing there"), lock._by_name(tmp_path):
        pass
    assert faster[0][1] == "holding"
    assert lock_file.read(str(tmp_path / "lock.held")).process == faster[0][0].pid


def test_with_flock_the_lock_goes_with_the_process(start, tmp_path):
    first, word = start(flock=True)
    assert word == "holding" and f"process {first.pid} on " in start(flock=True)[1]
    assert Holder.from_json((tmp_path / lock_file.WORKDIR_LOCK).read_bytes()).process == first.pid
    first.kill()
    first.wait()
    with lock.held(tmp_path):
        pass


def test_links_are_refused_and_their_targets_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in (lock_file.WORKDIR_LOCK, "config.json.tmp", "metrics.jsonl"):
        (tmp_path / name).symlink_to("mine")
    with pytest.raises(OSError, match="lock is a symbolic link"), lock.held(tmp_path):
        pass
    with pytest.raises(OSError, match="is a symbolic link"):
        durable.write(tmp_path / "config.json", b"{}")
    with pytest.raises(OSError, match="is a symbolic link"):
        durable.appended(tmp_path / "metrics.jsonl")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_held_folder_says_so_as_other_mistakes_do(tmp_path):
    with lock.held(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} on"), lock.held(tmp_path):
        pass
