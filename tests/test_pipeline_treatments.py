"""What the decoder did beyond the usual is known of each record, whatever becomes of its shard, and is counted."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbt.pipeline import build, listing, plan, shard_file, snapshot
from mbt.pipeline.decode import UnusableError, decode
from mbt.pipeline.manifest_check import check
from mbt.pipeline.record import Context, encode, relabelled
from mbt.pipeline.report import view
from mbt.pipeline.shard_file import Entry
from mbt.pipeline.tally import count
from mbt.schemas.manifest import Dataset, Manifest
from mbt.schemas.statistics import Statistics

WORDS = {"plain": (), "old": ("deinterlaced",), "new": ("alpha_over_black", "deinterlaced")}
DATASET = Dataset(name="d", num_shards={"train": 1}, salt="s", labels=("a",), encoder={}, canary="", index_version=3)


def context(clip_id: str, labels: tuple[str, ...] = ("a",)) -> Context:
    return Context(
        id=clip_id,
        dataset_name="d",
        media_id=clip_id,
        data_path=clip_id,
        start_us=0,
        label_indices=[0],
        label_strings=labels,
    )


@pytest.fixture(scope="module")
def decoded(make_media, ffmpeg_program, tmp_path_factory):
    film = make_media(tmp_path_factory.mktemp("media") / "film.mp4", seconds=0.2)
    return decode(str(film), 0, 200_000, program=ffmpeg_program)


def entries(decoded) -> list[Entry]:
    """A record of each kind, and a clip that is none."""
    made = {
        name: encode(context(name), dataclasses.replace(decoded, treatments=words)) for name, words in WORDS.items()
    }
    made["none"] = UnusableError("no_audio", "as it were")
    return [Entry(id=name, labels=[0], inputs=bytes(16), content=bytes(16), made=each) for name, each in made.items()]


def test_a_record_keeps_them_when_it_is_copied_and_relabelled(decoded, tmp_path):
    root = str(tmp_path)
    index = shard_file.write(root, "one", entries(decoded))
    assert index.treatments == {name: words for name, words in WORDS.items() if words}
    with shard_file.open_shard(root, "one") as old:
        copied = [old.entry(place) for place in range(3)] + [old.absent_entry("none")]
        again = [dataclasses.replace(each, made=relabelled(context(each.id, ("b",)), each.made)) for each in copied[:3]]
    assert shard_file.write(root, "two", copied).treatments == index.treatments
    assert shard_file.write(root, "three", again).treatments == index.treatments
    one, two = ((tmp_path / "shards" / f"{name}.index").read_bytes() for name in ("one", "two"))
    assert one == two


def published(root: str, decoded) -> Manifest:
    """A snapshot of these clips."""
    rows = [
        {
            "id": name,
            "split": "train",
            "source": name,
            "start_us": 0,
            "end_us": 200_000,
            "labels": ["a"],
            "outcome": "ok",
        }
        for name in (*WORDS, "none")
    ]
    task = plan.Task(
        split="train", shard=0, num_shards=1, first_row=0, num_rows=4, fingerprint="f" * 20, identity=DATASET.identity
    )
    index = shard_file.write(root, task.stem, entries(decoded))
    result = json.loads(json.dumps(build.summary(index)))
    table = pa.Table.from_pylist(rows)
    manifest, _ = snapshot.publish(
        root,
        DATASET,
        table,
        table.slice(0, 0),
        [(task, result)],
        statistics={"train": Statistics.of(index)},
        name="first",
        annotations_sha256="",
    )
    return manifest


def test_a_snapshot_counts_them(decoded, tmp_path):
    root = str(tmp_path)
    manifest = published(root, decoded)
    counts = {"alpha_over_black": 1, "deinterlaced": 2}
    assert manifest.splits["train"].treatments == counts
    path = tmp_path / "snapshots" / "first" / "clips.parquet"
    table = pq.read_table(path)
    said = {row["id"]: (row["treatments"], row["rule"]) for row in table.to_pylist()}
    assert said == {name: (list(words), None) for name, words in WORDS.items()} | {"none": (None, 2)}
    assert list(check(root, DATASET, manifest, table, set())) == []
    shown = listing.show(listing.ShowOptions(root=root, name="latest"))
    assert "  2 clips deinterlaced\n  1 clips alpha_over_black\n" in shown.to_text()
    assert shown.to_json()["splits"]["train"]["treatments"] == counts
    page = view.page(manifest, [manifest], count(table.to_batches(), ["train"], manifest.labels))
    assert [(each.word, each.counts) for each in page.treatments] == [
        ("alpha over black", (1,)),
        ("deinterlaced", (2,)),
    ]


def test_a_manifest_that_counts_otherwise_is_found(decoded, tmp_path):
    manifest = published(str(tmp_path), decoded)
    table = pq.read_table(tmp_path / "snapshots" / "first" / "clips.parquet")
    split = dataclasses.replace(manifest.splits["train"], treatments={"deinterlaced": 3})
    wrong = dataclasses.replace(manifest, splits={"train": split})
    (problem,) = check(str(tmp_path), DATASET, wrong, table, set())
    assert "its counts of the split train" in problem.detail
