"""A build of thousands of hostile and damaged files: all are accounted for, in bounded memory.

    python tests/campaigns/hostile_files.py --files=6000 --seed=1

Makes the files, each by one of 17 kinds of mutation of whole files in many containers, adds the worst that are known,
builds a dataset of them, and prints a table. Ends with status 1 where the build did not publish, a row has neither a
record nor a reason, a process was left behind, a traceback was printed, or the whole tree of processes took more memory
than it may.
"""

import argparse
import collections
import csv
import dataclasses
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import hostile_media
import psutil
import pyarrow.parquet as pq

from mbt.pipeline import ffmpeg

MOST_BYTES = 3 << 30
_LOOKS_EVERY_S = 0.05
_SECONDS = {"wide1.mov": 14, "wide2.mov": 14}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a campaign."""

    status: int
    said: str
    rows: int
    outcomes: collections.Counter
    missing: int
    left_running: int
    peak_bytes: int
    seconds: float

    @property
    def faults(self) -> list[str]:
        """What should not be."""
        tests = {
            f"the build ended with status {self.status}: {self.said[-2000:]}": self.status != 0,
            f"a traceback: {self.said[-2000:]}": "Traceback" in self.said,
            f"{self.missing} rows have neither a record nor a reason": self.missing > 0,
            f"{self.left_running} processes were left behind": self.left_running > 0,
            f"{self.peak_bytes >> 20} MiB of memory": self.peak_bytes >= MOST_BYTES,
        }
        return [fault for fault, is_there in tests.items() if is_there]


def run(files: int, seed: int, folder: Path, *options: str) -> Found:
    """Makes the files below a folder and builds a dataset of them."""
    program = ffmpeg.executable()
    media = folder / "media"
    media.mkdir()
    rows = _write(program, files, seed, media)
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    command = [sys.executable, "-m", "mbt.pipeline.main", "build", f"--annotations={folder / 'clips.csv'}"]
    command += [f"--media_root={media}", f"--output={folder / 'out'}", "--num_shards=16", *options]
    started = time.monotonic()
    with open(folder / "said", "w+b") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        peak, children = _watch(process)
        said.seek(0)
        text = said.read().decode(errors="replace")
    found = _rows(folder / "out") if process.returncode == 0 else []
    outcomes = collections.Counter(f"{row['outcome']} {row['reason']}".strip() for row in found)
    accounted = {row["id"] for row in found if row["outcome"] == "ok" or row["reason"]}
    return Found(
        status=process.returncode,
        said=text,
        rows=len(rows),
        outcomes=outcomes,
        missing=len({row["id"] for row in rows} - accounted),
        left_running=sum(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children),
        peak_bytes=peak,
        seconds=time.monotonic() - started,
    )


def _write(program: str, files: int, seed: int, media: Path) -> list[dict]:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = hostile_media.seeds(program, Path(scratch))
        known = hostile_media.blockers(program, Path(scratch))
    made = [hostile_media.mutated(draw, number, whole) for number in range(files)]
    rows = []
    for name, data in [*made, *known.items(), *whole.items()]:
        (media / name).write_bytes(data)
        rows.append(
            {"id": f"clip {len(rows)}", "video_path": name, "start": 0, "end": _SECONDS.get(name, 1), "label": "a"}
        )
    return rows


def _watch(process: subprocess.Popen) -> tuple[int, set[psutil.Process]]:
    """Memory of the process and all below it at most, in bytes, and these, when the process has ended."""
    peak, children = 0, set()
    top = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            below = top.children(recursive=True)
        except psutil.NoSuchProcess:
            break
        children.update(below)
        for one in (top, *below):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, total)
        time.sleep(_LOOKS_EVERY_S)
    process.wait()
    time.sleep(1.0)
    return peak, children


def _rows(root: Path) -> list[dict]:
    (path,) = (root / "snapshots").glob("*/clips.parquet")
    return pq.read_table(path, columns=["id", "outcome", "reason"]).to_pylist()


def main() -> int:
    """Runs a campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=6000, help="how many mutated files")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--share", type=float, default=1.0, help="of the files")
    parser.add_argument("--keep", metavar="FOLDER", help="an empty folder for everything, which stays")
    known, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(known.keep or temporary)
        os.makedirs(folder, exist_ok=True)
        found = run(round(known.files * known.share), known.seed, folder, *options)
    print("| outcome | clips |\n|---|---|")
    for outcome, count in found.outcomes.most_common():
        print(f"| {outcome} | {count} |")
    print(
        f"\n{found.rows} rows, seed {known.seed}: status {found.status}, {found.missing} unaccounted for, "
        f"{found.left_running} processes left, {found.peak_bytes / (1 << 30):.2f} GiB at most, {found.seconds:.0f} s"
    )
    for fault in found.faults:
        print(f"FAULT: {fault}")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
