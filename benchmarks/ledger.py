"""Time and memory of what a command knows after a campaign: the ledger of 2 million clips, read and joined to them.

python benchmarks/ledger.py [--rows=2000000] [--rows_per_file=1000]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mbt.pipeline import known, ledger
from mbt.schemas.clip import Outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="(default: %(default)s)")
    parser.add_argument("--rows_per_file", type=int, default=1000, help="(default: %(default)s)")
    options = parser.parse_args()
    pa.set_memory_pool(pa.system_memory_pool())  # as `mbt-data` does
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows, options.rows_per_file)
        before_mib = peak_mib()
        started = time.perf_counter()
        state = ledger.state(folder)
        was_read = time.perf_counter()
        after_reading_mib = peak_mib()
        table = pa.table({name: state[other] for name, other in NAMES.items()})
        table = table.append_column("outcome", pa.array([Outcome.NOT_TRIED.value] * len(table)))
        columns = known.with_outcomes(table, state)
        done = time.perf_counter()
    assert len(columns["outcome"]) == options.rows
    print(f"{options.rows} clips: ledger read in {was_read - started:.1f} s, joined in {done - was_read:.1f} s")
    print(
        f"peak memory: {before_mib:.0f} MiB before, {after_reading_mib:.0f} MiB read, "
        f"{peak_mib():.0f} MiB joined (goal: under 2048)"
    )


NAMES = {"id": "clip_id", "source": "source", "start_us": "start_us", "end_us": "end_us"}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(root: Path, rows: int, rows_per_file: int) -> None:
    """A ledger as a fetch of YouTube leaves it: four clips of five are there."""
    folder = root / "ledger" / "000001"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for first in range(0, rows, rows_per_file):
        numbers = range(first, min(first + rows_per_file, rows))
        digests = random.bytes(32 * len(numbers)).hex()
        there = [number % 5 != 0 for number in numbers]
        columns = {
            "attempt_id": [f"{number:032x}" for number in numbers],
            "clip_id": [f"{number:011x}_{number % 300 * 1000}" for number in numbers],
            "run": [1] * len(numbers),
            "attempt": [1] * len(numbers),
            "time": list(numbers),
            "source": [f"https://www.youtube.com/watch?v={number:011x}" for number in numbers],
            "start_us": [number % 300 * 1_000_000 for number in numbers],
            "end_us": [number % 300 * 1_000_000 + 10_000_000 for number in numbers],
            "outcome": ["ok" if ok else "gone" for ok in there],
            "reason": ["" if ok else "removed_by_uploader" for ok in there],
            "detail": ["" if ok else "This video has been removed by the uploader" for ok in there],
            "bytes": [500_000] * len(numbers),
            "digest": [digests[64 * place : 64 * place + 64] if ok else "" for place, ok in enumerate(there)],
            "media": [f"media/{number % 256:02x}/{number:024x}-{number:012x}.mp4" for number in numbers],
            "media_start_us": [0] * len(numbers),
            "signature": [""] * len(numbers),
            "tools": ["yt-dlp 2026.08.19"] * len(numbers),
            "rule": [None] * len(numbers),
        }
        table = pa.table(columns).cast(ledger.ATTEMPTS)
        pq.write_table(table, folder / f"w-{first // rows_per_file:05d}.parquet", compression="zstd")


if __name__ == "__main__":
    main()
