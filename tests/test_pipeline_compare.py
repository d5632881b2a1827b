"""`compare.diff` against the same comparison done with Python sets, on random clip tables."""

import csv
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbt.pipeline import compare
from mbt.pipeline.snapshot import CLIP_ROWS
from mbt.schemas.manifest import Manifest, Split

pytestmark = pytest.mark.quick

SPLITS = ("test", "train")
LABELS = ("a", "b", "c")
OUTCOMES = ("ok/", "gone/removed", "transient/timeout")
IDS = ("plain", "with,comma", 'with "quotes"', "ünïcode", "-", "=1+1")

row = st.fixed_dictionaries(
    {
        "split": st.sampled_from(SPLITS),
        "why": st.sampled_from(OUTCOMES),
        "labels": st.sets(st.sampled_from(LABELS), min_size=1),
        "end_us": st.sampled_from([1_000_000, 2_000_000]),
    }
)
side = st.dictionaries(st.sampled_from(IDS), row)


def write(root: Path, name: str, rows: dict[str, dict], labels: tuple[str, ...]) -> None:
    """A snapshot of these rows; each clip also has an invalid second row, as duplicates have."""
    table = [as_row(clip_id, each, *each["why"].split("/")) for clip_id, each in rows.items()]
    table += [as_row(clip_id, each, "invalid", "duplicate_id") for clip_id, each in rows.items()]
    table.append(as_row("", {"split": "", "labels": set(), "end_us": 0}, "invalid", "bad_split"))
    folder = root / "snapshots" / name
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table, CLIP_ROWS), folder / "clips.parquet")
    empty = Split(shards=(), num_clips=0, num_records=0, lost={}, mel_mean=0.0, mel_stddev=1.0)
    manifest = Manifest(
        dataset="d",
        snapshot=name,
        parent=None,
        created=name,
        labels=labels,
        splits=dict.fromkeys(SPLITS, empty),
        annotations_sha256="",
        tool_versions={},
    )
    (folder / "manifest.json").write_text(manifest.to_json())


def as_row(clip_id: str, each: dict, outcome: str, reason: str) -> dict:
    fields = dict.fromkeys(CLIP_ROWS.names)
    span = {"start_us": 0, "end_us": each["end_us"], "labels": sorted(each["labels"])}
    return fields | span | {"id": clip_id, "split": each["split"], "outcome": outcome, "reason": reason}


def why(rows: dict[str, dict], clip_id: str) -> str:
    return rows[clip_id]["why"] if clip_id in rows else "not annotated"


def expected(before: dict[str, dict], after: dict[str, dict], split: str) -> dict:
    """What must have changed in a split, the slow way."""
    a, b = ({i for i, each in rows.items() if each["why"] == "ok/"} for rows in (before, after))
    mine_a, mine_b = ({i for i in ids if rows[i]["split"] == split} for ids, rows in ((a, before), (b, after)))
    gained = [f"was in {before[i]['split']}" if i in a else why(before, i) for i in mine_b - mine_a]
    lost = [f"now in {after[i]['split']}" if i in b else why(after, i) for i in mine_a - mine_b]
    both = mine_a & mine_b
    return {
        "before": len(mine_a),
        "after": len(mine_b),
        "gained": {reason: gained.count(reason) for reason in gained},
        "lost": {reason: lost.count(reason) for reason in lost},
        "relabelled": sum(before[i]["labels"] != after[i]["labels"] for i in both),
        "respanned": sum(before[i]["end_us"] != after[i]["end_us"] for i in both),
        "common": {i for i in both if before[i]["end_us"] == after[i]["end_us"]},
        "classes": {
            label: tuple(
                sum(label in rows[i]["labels"] for i in ids) for ids, rows in ((mine_a, before), (mine_b, after))
            )
            for label in LABELS
        },
    }


@settings(max_examples=200, deadline=None)
@given(before=side, after=side)
def test_diff_is_what_sets_say(before, after):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), "1", before, LABELS)
        write(Path(folder), "2", after, LABELS[::-1])  # an index of a label means nothing to another snapshot
        options = compare.Options(root=folder, before="1", after="latest", common=f"{folder}/common.csv")
        found = compare.diff(options)
        header, *listed = csv.reader((Path(folder) / "common.csv").read_text().splitlines())
    assert header == ["split", "id"] and listed == sorted(listed)
    for name in SPLITS:
        split, wanted = found.splits[name], expected(before, after, name)
        assert {i for each, i in listed if each == name} == wanted.pop("common")
        classes = {change.label: (change.before, change.after) for change in split.classes}
        assert classes == {label: counts for label, counts in wanted.pop("classes").items() if any(counts)}
        assert [change.lost for change in split.classes] == sorted((c.lost for c in split.classes), reverse=True)
        assert {field: getattr(split, field) for field in wanted} == wanted
    found.to_text(), found.to_json()
