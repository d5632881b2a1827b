"""Locks where `flock` is missing, links in the place of locks and folders: real processes."""

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import disk_faults
import pytest

from mbt.pipeline import writer
from mbt.schemas.holder import Holder

HOLD = """
import sys
from mbt.pipeline import writer
try:
    with writer.hold(sys.argv[1], take_over=len(sys.argv) > 2):
        print("holding", flush=True)
        sys.stdin.read()
except writer.WriterError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def no_flock(tmp_path_factory):
    """no_flock(root) is the environment of a process on a machine for which `flock` does not work below `root`."""
    if why := disk_faults.why_no_library():
        pytest.skip(why)
    made = disk_faults.compiled(tmp_path_factory.mktemp("library"))
    return lambda root: os.environ | disk_faults.environment(made, root, "flock", errno.ENOLCK)


@pytest.fixture
def start():
    started = []

    def start(root: Path, env, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(root), *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=env, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_without_flock_the_lock_is_a_file_that_others_heed(no_flock, start, tmp_path):
    root = tmp_path / "root"
    first = start(root, no_flock(root))
    assert said(first) == "holding"
    for env in (no_flock(root), dict(os.environ)):  # the second one mounts the file system with locks
        refused = said(start(root, env))
        assert f"being written by process {first.pid} " in refused
        assert "has no flock" in refused and "--take_over" in refused
    _, warning = first.communicate("")
    assert "this file system has no flock" in warning
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("next_has_flock", [False, True])
def test_what_a_killed_process_of_this_machine_left_is_in_nobodys_way(no_flock, start, tmp_path, next_has_flock):
    first = start(tmp_path, no_flock(tmp_path))
    assert said(first) == "holding"
    first.kill()
    first.wait()
    assert (tmp_path / ".writer").exists()
    second = start(tmp_path, dict(os.environ) if next_has_flock else no_flock(tmp_path))
    assert said(second) == "holding"
    second.communicate("")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "changes", [{"host": "elsewhere"}, {"system": "started again"}, {"token": "x", "process": os.getpid()}, None]
)
def test_of_another_machine_nobody_knows_so_it_is_taken_over_by_hand(no_flock, start, tmp_path, changes):
    there = Holder.this_process(by_kernel=False)
    text = b"" if changes is None else dataclasses.replace(there, **changes).to_json()
    (tmp_path / ".writer").write_bytes(text)
    assert "is being written by " in said(start(tmp_path, no_flock(tmp_path)))
    assert said(start(tmp_path, no_flock(tmp_path), "take_over")) == "holding"


def test_a_number_that_another_process_has_by_now_is_no_holder():
    ours = Holder.this_process()
    assert not ours.is_dead() and Holder.from_json(ours.to_json()) == ours
    assert dataclasses.replace(ours, born="1").is_dead()
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert dataclasses.replace(ours, process=ended.pid, born="").is_dead()
    assert not dataclasses.replace(ours, process=ended.pid, host="elsewhere").is_dead()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_holder_is_none(text):
    assert Holder.from_json(text) is None


def refused(root: Path) -> str:
    with pytest.raises(writer.WriterError) as caught, writer.hold(str(root)):
        pytest.fail("it was not refused")
    return str(caught.value)


def test_a_lock_that_is_a_link_is_refused_and_its_target_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".writer").symlink_to("../mine")
    assert ".writer is a symbolic link, which is not followed for writing: remove it" in refused(tmp_path / "root")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_lock_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / ".writer")
    assert ".writer is no plain file" in refused(tmp_path)


@pytest.mark.parametrize("inner", ["media", "tmp", "media/ab", "ledger/000001", "snapshots/a"])
def test_a_folder_that_is_a_link_is_refused(tmp_path, inner):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / inner).parent.mkdir(parents=True)
    (tmp_path / "root" / inner).symlink_to(tmp_path / "elsewhere")
    assert f"root/{inner} is a symbolic link, and none is followed for writing" in refused(tmp_path / "root")


def test_the_dataset_itself_may_be_a_link(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    with writer.hold(str(tmp_path / "link")):
        assert (tmp_path / "root" / ".writer").exists()


def test_what_is_left_in_the_moment_of_removal_is_a_lock_too():
    assert writer.is_lock(".writer.0123abc.left") and writer.is_lock(".writer-1-of-2.0a.left")
    assert not writer.is_lock(".writer.0123abc") and not writer.is_lock("x.left")
