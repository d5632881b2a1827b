"""Time and peak memory of planning 2 million rows: from the CSV to sorted rows, shard fingerprints and tasks.

python benchmarks/planning.py [--rows=2000000]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from mbt.pipeline import assemble, plan
from mbt.pipeline.annotations.read import Selection, read
from mbt.schemas.manifest import Dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="(default: %(default)s)")
    rows = parser.parse_args().rows
    pa.set_memory_pool(pa.system_memory_pool())  # as `mbt-data` does
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.csv"
        write(path, rows)
        clips = read(Selection(dataset="csv", files=(str(path),), media_root="/media"))
        started = time.perf_counter()
        table = plan.clip_table(clips.rows(), "salt")
        was_read = time.perf_counter()
        shards = plan.num_shards(table)
        dataset = Dataset(
            name="d", num_shards=shards, salt="salt", labels=tuple(plan.labels_of(table)), encoder={}, canary=""
        )
        table_mib, columns = table.nbytes >> 20, found(table)
        del table
        planned = assemble.with_label_indices(plan.with_shards(columns, dataset), dataset)
        plan.write(planned, str(Path(folder) / "plan.parquet"))
        tasks = sum(1 for _ in plan.tasks(planned, dataset, "/media"))
        done = time.perf_counter()
    print(f"the table of rows: {table_mib} MiB, the plan: {planned.nbytes >> 20} MiB")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows} rows: read in {was_read - started:.1f} s, planned into {tasks} shards in {done - was_read:.1f} s")
    print(f"peak memory {peak_mib:.0f} MiB (goal: under 1024)")


def write(path: Path, rows: int) -> None:
    """In the form of AudioSet: ids of 11 characters, two labels of 527."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("video_path,start,end,label,split,id\n")
        for row in range(rows):
            start = row % 300
            labels = f"/m/{row % 527:05d};/m/{row * 7 % 527:05d}"
            name = f"{row:011x}_{start:06d}"
            file.write(f"{name[:2]}/{name}.mp4,{start},{start + 10},{labels},unbalanced_train,{name}\n")


def found(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns, as if all media were there."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name, value in (
        ("outcome", "ok"),
        ("reason", ""),
        ("detail", ""),
        ("media", ""),
        ("media_start_us", 0),
        ("digest", "0" * 32),
    ):
        columns[name] = pa.chunked_array([pa.repeat(value, len(table))])
    return columns


if __name__ == "__main__":
    main()
