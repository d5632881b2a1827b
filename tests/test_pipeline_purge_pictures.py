"""The locks of training runs where their file system has no `flock`, and event files that outlive a power cut."""

import errno
import os
import subprocess
import sys

import disk_faults
import pytest

from mbt.pipeline.purge import pictures
from mbt.schemas import tfrecord

HOLD = """
import sys
from mbt.pipeline.purge import pictures
with pictures.held([sys.argv[1]]):
    print("held")
"""


@pytest.mark.skipif(bool(disk_faults.why_no_library()), reason=disk_faults.why_no_library() or "-")
def test_a_file_system_without_flock_stops_no_purge(tmp_path, tmp_path_factory):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").touch()
    made = disk_faults.compiled(tmp_path_factory.mktemp("library"))
    env = os.environ | disk_faults.environment(made, tmp_path, "flock", errno.ENOLCK)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "held\n", done.stderr


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
