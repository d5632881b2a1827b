"""Time and peak memory of reading 2 million segments in AudioSet's form to the table of clips, beside bare CSV reading.

python benchmarks/annotations.py [--rows=2000000] [--dataset=audioset|as500k]
"""

import argparse
import csv
import random
import resource
import string
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from mbt.pipeline import plan
from mbt.pipeline.annotations.audioset import LABELS, NUM_CLASSES
from mbt.pipeline.annotations.read import Selection, read

BALANCED_ROWS = 22_160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="(default: %(default)s)")
    parser.add_argument("--dataset", choices=("audioset", "as500k"), default="audioset")
    args = parser.parse_args()
    pa.set_memory_pool(pa.system_memory_pool())  # as `mbt-data` does
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unbalanced_train_segments.csv")
        write(path, args.rows, seed=0)
        balanced = Path(folder, "balanced_train_segments.csv")
        write(balanced, BALANCED_ROWS, seed=1)
        bare_s = bare(path)
        chosen = (str(path),) if args.dataset == "audioset" else (str(balanced), str(path))
        started, cpu_started = time.perf_counter(), time.process_time()
        annotations = read(Selection(dataset=args.dataset, files=chosen, media_root="/media"))
        table = plan.clip_table(annotations.rows(), "salt")
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    print(f"{args.rows} rows to {len(table)} clips, {table.nbytes >> 20} MiB")
    print(f"in {seconds:.1f} s (goal: under 60), {cpu_s:.1f} s of CPU: {cpu_s / bare_s:.1f} times bare csv.reader's")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak_mib:.0f} MiB (goal: under 1024)")


def bare(path: Path) -> float:
    """CPU seconds to read the cells and do nothing with them."""
    started = time.process_time()
    with open(path, newline="", encoding="utf-8") as file:
        for _ in csv.reader(file, skipinitialspace=True):
            pass
    return time.process_time() - started


def write(path: Path, rows: int, seed: int) -> None:
    """A list in the official form: one to three labels, the low ones far more often, as in AudioSet."""
    generator = random.Random(seed)
    with open(LABELS, newline="", encoding="utf-8") as file:
        mids = [row["mid"] for row in csv.DictReader(file)]
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Segments csv created Sun Mar  5 10:54:25 2017\n")
        file.write(f"# num_ytids={rows}, num_segs={rows}, num_unique_labels={NUM_CLASSES}\n")
        file.write("# YTID, start_seconds, end_seconds, positive_labels\n")
        file.writelines(segments(generator, rows, mids))


def segments(generator: random.Random, rows: int, mids: list[str]) -> Iterator[str]:
    characters = string.ascii_letters + string.digits + "-_"
    for _ in range(rows):
        name = "".join(generator.choices(characters, k=11))
        labels = {mids[int(NUM_CLASSES * generator.random() ** 3)] for _ in range(generator.randint(1, 3))}
        start = 10 * generator.randrange(60)
        joined = ",".join(sorted(labels))
        yield f'{name}, {start}.000, {start + 10}.000, "{joined}"\n'


if __name__ == "__main__":
    main()
