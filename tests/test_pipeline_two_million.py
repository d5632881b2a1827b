"""Clip tables of two million rows are read in bounded memory, into a page of bounded size."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbt.schemas.manifest import Manifest, Split

LABELS = tuple(f"class {number:04d} of a taxonomy" for number in range(6000))
REASONS = np.array(["ok/", "gone/removed", "restricted/private", "unusable/no_audio"])


def write_snapshot(root: Path, name: str, clips: int, seed: int) -> np.ndarray:
    """A snapshot of generated rows, without shards; returns (clips,) of bool: which are records."""
    random = np.random.default_rng(seed)
    numbers = np.arange(clips)
    kinds = random.choice(4, clips, p=[0.9, 0.06, 0.03, 0.01])
    split = np.where(numbers % 10 == 0, "test", "train")
    counts = random.integers(1, 4, clips)
    skewed = np.minimum(random.zipf(1.3, counts.sum()), len(LABELS)) - 1
    labels = np.where(random.random(len(skewed)) < 0.5, skewed, random.integers(0, len(LABELS), len(skewed)))
    outcomes, reasons = np.array([reason.split("/") for reason in REASONS]).T
    records = kinds == 0
    columns = {
        "id": pa.array(np.char.add("clip-with-a-long-name-", numbers.astype(str))),
        "split": pa.array(split),
        "start_us": pa.array(np.zeros(clips, np.int64)),
        "end_us": pa.array(random.integers(500_000, 10_000_000, clips)) if seed else pa.array(numbers + 1),
        "labels": pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)), pa.array(LABELS).take(pa.array(labels))
        ),
        "outcome": pa.array(outcomes[kinds]),
        "reason": pa.array(reasons[kinds]),
        "shard": pa.array(numbers.astype(np.int32) % 64),
        "offset": pa.array(numbers, mask=~records),
        "length": pa.array(random.integers(1 << 18, 1 << 23, clips), mask=~records),
    }
    folder = root / "snapshots" / name
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "clips.parquet", row_group_size=65_536, compression="zstd")
    manifest = Manifest(
        dataset="big",
        snapshot=name,
        parent=None,
        created=f"2024-0{seed + 1}-01T00:00:00+00:00",
        labels=LABELS,
        splits={each: one_split(split == each, kinds) for each in ("test", "train")},
        annotations_sha256="",
        tool_versions={},
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    return records


def one_split(mine: np.ndarray, kinds: np.ndarray) -> Split:
    lost = {REASONS[kind]: int((mine & (kinds == kind)).sum()) for kind in range(1, 4)}
    records = int((mine & (kinds == 0)).sum())
    return Split(shards=(), num_clips=int(mine.sum()), num_records=records, lost=lost, mel_mean=0.0, mel_stddev=1.0)


def measured(root: Path, *words: str) -> tuple[dict, float]:
    """What `mbt-data WORDS --json` prints, and the most memory that it held, in MiB."""
    script = (
        "import pathlib, re, sys\n"
        "from mbt.pipeline.main import main\n"
        "status = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1], file=sys.stderr)\n"
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", script, *words, f"--output={root}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), int(done.stderr.split()[-1]) / 1024


@pytest.mark.parametrize(("clips", "most_mib"), [(100_000, 500), pytest.param(2_000_000, 1500, marks=pytest.mark.slow)])
def test_memory_and_size_are_bounded(tmp_path, clips, most_mib):
    before, after = (write_snapshot(tmp_path, name, clips, seed) for seed, name in enumerate(("a", "b")))
    before_usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    changes, diff_mib = measured(tmp_path, "diff", "a", "b", f"--common={tmp_path}/common.csv")
    diff_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_usage
    splits = changes["splits"].values()
    assert sum(split["gained"]["count"] for split in splits) == (after & ~before).sum()
    assert sum(split["lost"]["count"] for split in splits) == (before & ~after).sum()
    assert sum(split["common"] + split["respanned"] for split in splits) == (before & after).sum()
    page, report_mib = measured(tmp_path, "report", "--clips=0")
    report_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_usage - diff_s
    print(f"{clips}: diff {diff_mib:.0f} MiB {diff_s:.1f} s, report {report_mib:.0f} MiB {report_s:.1f} s, {page}")
    assert max(diff_mib, report_mib) < most_mib
    assert page["bytes"] < 2_000_000  # the pictures of clips have 3 MB beside it
    assert "1,000 smaller classes are left out" in (tmp_path / "snapshots/b/report.html").read_text()
