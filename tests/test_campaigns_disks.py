"""A tenth of the campaign on disks; `tests/campaigns/disks.py` runs it whole."""

import os
import subprocess
import sys
from pathlib import Path

import disk_faults
import pytest

from mbt.pipeline import storage, writer
from mbt.schemas import durable

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))
import power_cut

CAMPAIGN = Path(__file__).parent / "campaigns" / "disks.py"


@pytest.mark.slow
@pytest.mark.parametrize(("part", "rows"), [("full", 2), ("inodes", 1), ("eio", 2), ("power", 2)])
def test_a_tenth(part, rows):
    why = disk_faults.why_no_library() if part == "eio" else disk_faults.why_no_mounts()
    if why:
        pytest.skip(why)
    words = [sys.executable, str(CAMPAIGN), "--share=0.1", f"--parts={part}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" not in done.stdout and done.stdout.count("\n| ") >= rows


@pytest.mark.skipif(bool(disk_faults.why_no_mounts() or power_cut.why_not()), reason="needs loop devices and root")
def test_a_cut_takes_what_was_not_flushed_and_nothing_else(monkeypatch, tmp_path):
    with power_cut.disk(tmp_path / "live") as disk:
        storage.write(str(disk.folder / "a" / "flushed"), b"x" * 9000)
        monkeypatch.setattr(os, "fsync", lambda file: None)
        storage.write(str(disk.folder / "b" / "not flushed"), b"x" * 9000)
        disk.cut(tmp_path / "copy.img")
    with power_cut.mounted(tmp_path / "copy.img", tmp_path / "copy"):
        assert (tmp_path / "copy" / "a" / "flushed").read_bytes() == b"x" * 9000
        lost = tmp_path / "copy" / "b" / "not flushed"
        assert not lost.exists() or not lost.read_bytes()


@pytest.mark.skipif(bool(disk_faults.why_no_mounts() or power_cut.why_not()), reason="needs loop devices and root")
def test_a_cut_takes_nothing_that_the_next_command_found(monkeypatch, tmp_path):
    """Of a command that was killed between the rename of a file and the flushing of its folder."""
    with power_cut.disk(tmp_path / "live") as disk:
        root = disk.folder / "new" / "root"
        with monkeypatch.context() as killed:
            killed.setattr(durable, "flush_folders_of", lambda paths: None)
            killed.setattr(durable, "flush_folder", lambda folder: None)
            storage.write(str(root / "shards" / "shard"), b"x" * 9000)
        with writer.hold(str(root)):
            disk.cut(tmp_path / "copy.img")
    with power_cut.mounted(tmp_path / "copy.img", tmp_path / "copy"):
        assert (tmp_path / "copy" / "new" / "root" / "shards" / "shard").read_bytes() == b"x" * 9000
