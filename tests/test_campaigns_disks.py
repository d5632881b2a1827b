"""A tenth of the campaign on disks; `tests/campaigns/disks.py` runs it whole."""

import subprocess
import sys
from pathlib import Path

import disk_faults
import pytest

CAMPAIGN = Path(__file__).parent / "campaigns" / "disks.py"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["full", "inodes", "eio", "power"])
def test_a_tenth(part):
    why = disk_faults.why_no_library() if part == "eio" else disk_faults.why_no_mounts()
    if why:
        pytest.skip(why)
    words = [sys.executable, str(CAMPAIGN), "--share=0.1", f"--parts={part}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" not in done.stdout and done.stdout.count("\n| ") >= 2
