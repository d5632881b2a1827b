"""Temporary files go with the process that made them, or with the next one."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mbt.pipeline import budget, leftovers, scratch

WAITS = """
import os, sys, tempfile
from mbt.pipeline import scratch
with scratch.folder():
    path = tempfile.NamedTemporaryFile(delete=False).name
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def waiting() -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen([sys.executable, "-c", WAITS], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return process, Path(process.stdout.readline().strip())


def test_the_folder_goes_with_the_block_and_children_are_told(base):
    with scratch.folder():
        own = tempfile.gettempdir()
        told = subprocess.check_output(
            [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"], text=True
        )
        assert told.strip() == own and os.path.dirname(own) == str(base) == scratch.machine_folder()
        os.mkdir(tempfile.mkdtemp() + "/deep")
    assert os.listdir(base) == [] and tempfile.gettempdir() == os.environ["TMPDIR"] == str(base)


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else(base):
    dead, left = waiting()
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    alive, kept = waiting()  # it has removed that already
    assert not left.exists() and not left.parent.exists()
    (base / ".mbt-scratch-the_file").write_text("no folder")
    (base / "others").mkdir()
    (base / ".mbt-scratch-the_link").symlink_to("others")
    others = {".mbt-scratch-the_file", ".mbt-scratch-the_link", "others"}
    with scratch.folder():
        assert kept.exists() and scratch.others() == [str(kept.parent)]
    assert set(os.listdir(base)) == {kept.parent.name, *others}
    alive.communicate("")
    assert not kept.parent.exists()


@pytest.mark.parametrize(
    "name", ["mbt-data-mine", ".mbt-scratch-mine", ".mbt-scratch-ninechars", ".mbt-scratch-the_mine"]
)
def test_folders_of_people_are_left_alone_whatever_their_names(base, name):
    mine = base / name / "dataset.json"
    mine.parent.mkdir(mode=0o700)
    mine.write_text("{}")
    with scratch.folder():
        assert scratch.others() == []
    assert mine.read_text() == "{}"


def test_a_folder_with_the_mark_that_others_can_read_was_not_made_here(base):
    shared = base / ".mbt-scratch-abcdefgh"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / ".mbt-scratch").touch()
    with scratch.folder():
        pass
    assert shared.exists()


def test_a_process_that_was_killed_before_it_set_its_mark_leaves_nothing(base):
    (base / ".mbt-scratch-abcdefgh").mkdir(mode=0o700)
    with scratch.folder():
        pass
    assert os.listdir(base) == []


def test_a_temporary_folder_of_any_name_is_the_shared_one(base, monkeypatch):
    (base / "mbt-data-x").mkdir()
    (base / "mbt-data-y").mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(base / "mbt-data-x"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert scratch.machine_folder() == str(base / "mbt-data-x")
    with scratch.folder():
        assert os.path.dirname(tempfile.gettempdir()) == str(base / "mbt-data-x")
    assert sorted(os.listdir(base)) == ["mbt-data-x", "mbt-data-y"]


def test_a_new_folder_that_another_process_takes_for_a_left_one_is_given_up(base, monkeypatch):
    mkdtemp, taken = tempfile.mkdtemp, []

    def looked_at(**words) -> str:
        path = mkdtemp(**words)
        if len(taken) == 0:  # another process has just locked it
            taken.append(os.open(path, os.O_RDONLY))
            fcntl.flock(taken[0], fcntl.LOCK_EX)
        elif len(taken) == 1:  # or has removed it
            taken.append(-1)
            os.rmdir(path)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", looked_at)
    with scratch.folder():
        assert len(taken) == 2 and os.listdir(tempfile.gettempdir()) == [".mbt-scratch"]
    os.close(taken[0])


def test_files_that_go_while_they_are_listed_are_no_fault(base, monkeypatch):
    """Another process removes its own between the listing and the look at each."""
    scandir = os.scandir
    name = f"{leftovers.prefix('jpegs')}abcdefgh.mjpeg"

    @contextlib.contextmanager
    def listed(path):
        with scandir(path) as entries:
            there = list(entries)
        for entry in there:
            os.rmdir(entry.path) if entry.is_dir() else os.unlink(entry.path)
        yield iter(there)

    for folder in ("", ".mbt-scratch-abcdefgh"):
        (base / folder).mkdir(exist_ok=True, mode=0o700)
    (base / name).touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", listed)
        assert leftovers.find() == ((), ())
        (base / ".mbt-scratch-abcdefgh").mkdir()
        assert scratch.others() == []


def test_a_name_that_somebody_else_has_does_not_stop_fetching(base):
    (base / f"mbt-fetch-{os.getuid()}").write_text("not our folder")
    first = budget._folder_of_user()
    assert first == budget._folder_of_user() and os.path.dirname(first) == str(base)
    assert os.stat(first).st_mode & 0o777 == 0o700
    with scratch.folder():
        assert budget._folder_of_user() == first
    with budget.Budget(1).download(paced=True):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")
def test_nothing_of_another_user_is_used_or_removed(base):
    for name in (f"mbt-fetch-{os.getuid()}", "mbt-fetch-own-0", ".mbt-scratch-another0"):
        (base / name).mkdir(mode=0o700)
        os.chown(base / name, 12345, 12345)
    assert os.stat(budget._folder_of_user()).st_uid == 0
    with scratch.folder():
        pass
    assert (base / ".mbt-scratch-another0").exists()
