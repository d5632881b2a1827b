"""Temporary files go with the process that made them, or with the next one."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mbt.pipeline import budget, scratch

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
    (base / "mbt-data-file").write_text("no folder")
    (base / "others").mkdir()
    (base / "mbt-data-link").symlink_to("others")
    with scratch.folder():
        assert kept.exists()
    assert sorted(os.listdir(base)) == sorted([kept.parent.name, "mbt-data-file", "mbt-data-link", "others"])
    alive.communicate("")
    assert not kept.parent.exists()


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
    for name in (f"mbt-fetch-{os.getuid()}", "mbt-fetch-own-0", "mbt-data-0"):
        (base / name).mkdir()
        os.chown(base / name, 12345, 12345)
    assert os.stat(budget._folder_of_user()).st_uid == 0
    with scratch.folder():
        pass
    assert (base / "mbt-data-0").exists()
