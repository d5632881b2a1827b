"""A tenth of the campaign of hostile files."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))

import hostile_files


@pytest.mark.slow
def test_a_tenth_of_the_campaign(tmp_path):
    found = hostile_files.run(600, 7, tmp_path)
    assert not found.faults
    assert found.rows > 600 and found.outcomes["ok"] > 100 and found.outcomes["unusable too_much_memory"] > 0
