"""Each benchmark runs, small; what it measures is for `make bench`."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
SMALL = {
    "annotations.py": ["--rows=5000"],
    "ledger.py": ["--rows=2000"],
    "fetch_latency.py": ["--clips=8", "--latency=0.05"],
    "fsync.py": ["--clips=8", "--rounds=1"],
    "refresh.py": ["--clips=20", "--shards=2"],
    "youtube_cut.py": ["--minutes=0.5", "--rounds=1"],
    "build_cpu.py": ["--clips=2", "--rounds=1", "--bare=1"],
    "build_memory.py": ["--clips=1,2"],
    "plan.py": ["--clips=20", "--sample=4"],
    "planning.py": ["--rows=5000"],
    "soak.py": ["--clips=20,40"],
    "jpeg_quality.py": ["MEDIA"],
    "loader.py": ["--clips=4", "--batch=4", "--steps=1"],
    "loader_remote.py": ["--clips=4", "--batch=4", "--steps=1", "--rounds=1"],
    "model_speed.py": ["--rounds=1", "--sizes=demo"],
    "train_step.py": ["--rounds=1", "--model=tiny"],
}


def test_all_are_listed():
    assert {path.name for path in BENCHMARKS.glob("*.py")} == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_runs(name, make_media, tmp_path):
    media = make_media(tmp_path / "clip.mp4")
    words = [word.replace("MEDIA", str(media)) for word in SMALL[name]]
    done = subprocess.run([sys.executable, BENCHMARKS / name, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goal" in done.stdout or "PSNR" in done.stdout
