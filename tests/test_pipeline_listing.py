"""`mbt-data list`, `show`, `diff` and `export` on a dataset with a history, built from real media."""

import csv
import itertools
import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mbt.pipeline import export
from mbt.pipeline.main import main
from mbt.schemas.manifest import Manifest

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def root(mbt_data, write_csv, clip_folder, six_rows, tmp_path_factory) -> Path:
    """A dataset of three snapshots.

    From the first to the second, clip-1's file vanishes, clip-2 loses a label, clip-3 is cut elsewhere, clip-4 changes
    split, clip-5's row goes and clip-6's comes. In the third, clip-1 is back.
    """
    folder = tmp_path_factory.mktemp("history")
    media = shutil.copytree(clip_folder, folder / "media")
    changed = [dict(row) for row in six_rows[:5]]
    changed[2]["label"] = "even"
    changed[3]["end"] = 0.8
    changed[4]["split"] = "train"
    changed.append(six_rows[5] | {"id": "clip-6"})
    for name, rows in zip(NAMES, (six_rows, changed, changed), strict=True):
        write_csv(folder / "clips.csv", rows)
        if name == "second":
            (media / "1.mp4").rename(folder / "away.mp4")
        if name == "third":
            (folder / "away.mp4").rename(media / "1.mp4")
        words = [f"--annotations={folder}/clips.csv", f"--media_root={media}", f"--output={folder}/out"]
        done = mbt_data("build", *words, "--num_shards=2", "--allow_loss=0.25", f"--snapshot={name}")
        assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture
def run(capsys):
    """Runs `mbt-data` in this process; returns its exit status, output and errors."""

    def run(root: Path, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*(str(word) for word in words), f"--output={root}"])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def answer(run):
    """What a command says to machines."""

    def answer(root: Path, *words: object) -> dict:
        status, out, err = run(root, *words, "--json")
        assert status == 0, err
        return json.loads(out)

    return answer


@pytest.fixture
def refusal(run):
    """The one line in which a command is refused."""

    def refusal(root: Path, *words: object) -> str:
        status, out, err = run(root, *words)
        (line,) = err.splitlines()
        assert status == 2 and not out and line.startswith("mbt-data: ")
        return line

    return refusal


def manifest(root: Path, name: str) -> Manifest:
    return Manifest.from_json((root / "snapshots" / name / "manifest.json").read_text())


@pytest.mark.parametrize("label", ["=1+1", "@x", "-a", "+b", "a=b"])
def test_no_label_is_a_formula_to_a_spreadsheet(label):
    assert export._plain_cell(label) == (label if label == "a=b" else f"'{label}")


def test_list(run, answer, root):
    lines = answer(root, "list")["snapshots"]
    assert [line["snapshot"] for line in lines] == list(NAMES)
    assert [line["parent"] for line in lines] == [None, *NAMES[:2]]
    assert [(line["clips"], line["records"]) for line in lines] == [(6, 6), (6, 5), (6, 6)]
    files = [{p: os.path.getsize(root / p) for p in shard_paths(root, name)} for name in NAMES]
    assert [line["bytes"] for line in lines] == [sum(each.values()) for each in files]
    shared = [sum(after[p] for p in after.keys() & before.keys()) for before, after in itertools.pairwise(files)]
    assert [line["shared_bytes"] for line in lines] == [None, *shared]
    text = run(root, "list")[1].splitlines()
    assert len(text) == 4 and all(line.startswith(name) for line, name in zip(text[1:], NAMES, strict=True))


def shard_paths(root: Path, name: str) -> list[str]:
    return [shard.path for split in manifest(root, name).splits.values() for shard in split.shards]


def test_show(run, answer, root):
    second = answer(root, "show", "latest~1")
    assert (second["snapshot"], second["parent"], second["labels"]) == ("second", "first", 3)
    train, test = second["splits"]["train"], second["splits"]["test"]
    assert (train["clips"], train["records"], train["lost"]) == (5, 4, {"transient/missing": 1})
    assert (test["clips"], test["records"], test["lost"]) == (1, 1, {})
    assert train["seconds"] == pytest.approx(3.8)
    assert train["mel_mean"] == manifest(root, "second").splits["train"].mel_mean
    assert train["most"][0] == {"label": "even", "clips": 3, "records": 3}
    assert train["fewest"][0] == {"label": "odd", "clips": 2, "records": 1}
    assert second["tool_versions"]["pyarrow"]
    text = run(root, "show", "second")[1]
    assert "transient/missing" in text and "train: 5 clips, 4 records (80.0 %)" in text


def test_statistics_are_those_of_all_valid_rows(root):
    """Padding does not count: one clip has 0.8 s, and its last step is filled up."""
    for split in manifest(root, "second").splits.values():
        paths = [str(root / shard.path) for shard in split.shards]
        mels = [valid_rows(record.numpy()) for record in tf.data.TFRecordDataset(paths)]
        values = np.concatenate(mels).astype(np.float64)
        assert split.mel_mean == pytest.approx(values.mean(), rel=1e-9)
        assert split.mel_stddev == pytest.approx(values.std(), rel=1e-9)
        assert split.seconds == len(values) / 100
        assert (split.shortest_s, split.longest_s) == (min(map(len, mels)) / 100, max(map(len, mels)) / 100)


def valid_rows(record: bytes) -> np.ndarray:
    """(10 ms rows, 128): the spectrogram of a record without its padding."""
    context, lists = tf.io.parse_single_sequence_example(
        record,
        {"melspec/feature/num_samples": tf.io.FixedLenFeature([], tf.int64)},
        {"melspec/feature/floats": tf.io.FixedLenSequenceFeature([100, 128], tf.float32)},
    )
    return lists["melspec/feature/floats"].numpy().reshape(-1, 128)[: int(context["melspec/feature/num_samples"])]


def test_diff(run, answer, root, tmp_path):
    changes = answer(root, "diff", "first", "second", f"--common={tmp_path}/common.csv")
    train, test = changes["splits"]["train"], changes["splits"]["test"]
    assert train["gained"] == {"count": 1, "by_reason": {"was in test": 1}}
    assert train["lost"] == {"count": 1, "by_reason": {"transient/missing": 1}}
    assert (train["relabelled"], train["respanned"], train["common"]) == (1, 1, 2)
    assert train["classes"] == [{"label": "odd", "before": 2, "after": 1}, {"label": "even", "before": 2, "after": 3}]
    assert test["gained"] == {"count": 1, "by_reason": {"not annotated": 1}}
    assert test["lost"] == {"count": 2, "by_reason": {"not annotated": 1, "now in train": 1}}
    with open(tmp_path / "common.csv", newline="") as file:
        assert list(csv.reader(file)) == [["split", "id"], ["train", "clip-0"], ["train", "clip-2"]]
    back = answer(root, "diff", "latest~1", "latest")["splits"]["train"]
    assert back["gained"]["by_reason"] == {"transient/missing": 1} and not back["lost"]["count"]
    text = run(root, "diff", "first", "second")[1]
    assert "train: 4 -> 4 records; 1 gained, 1 lost, 1 relabelled" in text


def test_refusals(refusal, root, tmp_path):
    assert "no snapshot 'other'; there are 3, the newest last: first, second, third" in refusal(root, "show", "other")
    assert "no snapshot 'latest~3'" in refusal(root, "diff", "latest~3", "latest")
    assert "no snapshot there" in refusal(tmp_path / "nowhere", "list")
    assert not (tmp_path / "nowhere").exists()
    assert "unknown flag --nonsense" in refusal(root, "list", "--nonsense=1")


def test_paths_that_cannot_be_are_refused(refusal, root, tmp_path):
    """Nothing was kept, and the same command would not go on."""
    (tmp_path / "file").touch()
    for line in (
        refusal(tmp_path / "file", "list"),
        refusal(root, "diff", "first", "second", f"--common={tmp_path}"),
        refusal(root, "export", "--layout=scenic", tmp_path / "file" / "folder"),
    ):
        assert ("Not a directory" in line or "Is a directory" in line) and "goes on" not in line


def test_a_strangers_snapshot_does_not_steer_the_terminal(run, root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    path = copy / "snapshots" / "third" / "manifest.json"
    fields = json.loads(path.read_text())
    evil = "\x1b[2J\x07\u202e"
    fields |= {"dataset": f"d{evil}", "parent": f"p{evil}", "tool_versions": {f"t{evil}": f"v{evil}"}}
    fields["splits"] = {f"s{evil}": fields["splits"]["train"] | {"lost": {f"gone/{evil}": 1}}}
    path.write_text(json.dumps(fields))
    for words in (("list",), ("show", "third"), ("diff", "first", "third")):
        status, out, _ = run(copy, *words)
        assert status == 0 and "\\x1b[2J" in out
        assert all(line.isprintable() for line in out.splitlines())


def test_a_damaged_snapshot_is_named(refusal, root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    table = copy / "snapshots" / "third" / "clips.parquet"
    table.write_bytes(table.read_bytes()[:-100])
    assert "third/clips.parquet cannot be read" in refusal(copy, "show", "third")
    (copy / "snapshots" / "second" / "manifest.json").write_text("{")
    assert "second/manifest.json" in refusal(copy, "list")


@pytest.mark.parametrize("link", ["hard", "symbolic", "copy"])
def test_export_for_scenic(answer, root, tmp_path, link):
    folder = tmp_path / "scenic"
    answer(root, "export", "--layout=scenic", folder, "--snapshot=second", f"--link={link}")
    config = json.loads((folder / "dataset_configs.json").read_text())
    train = manifest(root, "second").splits["train"]
    assert config == {
        "base_dir": str(folder),
        "tables": {"train": "train@2", "test": "test@2", "validation": "test@2"},
        "examples_per_subset": {"train": 4, "test": 1, "validation": 1},
        "num_classes": 3,
        "spec_mean": train.mel_mean,
        "spec_stddev": train.mel_stddev,
    }
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["index", "label", "test", "train"],
        ["0", "all", "0", "2"],
        ["1", "even", "0", "3"],
        ["2", "odd", "1", "1"],
    ]
    ids = {subset: [read_id(record) for record in read_table(config, subset)] for subset in config["tables"]}
    assert sorted(ids["train"]) == ["clip-0", "clip-2", "clip-3", "clip-4"] and ids["test"] == ids["validation"] == [
        "clip-6"
    ]
    for number, shard in enumerate(train.shards):
        exported, original = folder / f"train-{number:05d}-of-00002", root / shard.path
        assert exported.read_bytes() == original.read_bytes()
        assert exported.is_symlink() == (link == "symbolic")
        assert exported.samefile(original) == (link != "copy")


def renamed(root: Path, copy: Path, splits: dict[str, str]) -> Path:
    """A copy of a dataset whose newest snapshot has splits of these names, each the one of that old name."""
    shutil.copytree(root, copy)
    path = copy / "snapshots" / "third" / "manifest.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"splits": {new: fields["splits"][old] for new, old in splits.items()}}))
    return copy


@pytest.mark.parametrize(
    ("splits", "stand_ins"),
    [
        ({"train": "train", "val": "test", "test": "train"}, {"validation": "val"}),
        ({"train": "train", "validate": "test"}, {"validation": "validate", "test": "validate"}),
        ({"train": "train", "val": "test"}, {"validation": "val", "test": "val"}),
        (
            {"balanced_train": "test", "eval": "test", "unbalanced_train": "train"},
            {"train": "unbalanced_train", "validation": "eval", "test": "eval"},
        ),
        ({"train": "train", "validation": "test", "test": "test"}, {}),
        ({"odd": "train"}, {}),
    ],
)
def test_scenic_finds_its_tables_under_other_names(run, answer, root, tmp_path, splits, stand_ins):
    """Never the test split where there is one to validate on."""
    copy = renamed(root, tmp_path / "copy", splits)
    done = answer(copy, "export", "--layout=scenic", tmp_path / "a")
    assert done["stand_ins"] == stand_ins
    tables, counts = done["config"]["tables"], done["config"]["examples_per_subset"]
    assert tables == {name: f"{stand_ins.get(name, name)}@2" for name in (*splits, *stand_ins)}
    assert all(counts[table] == counts[split] for table, split in stand_ins.items())
    has_train = "train" in tables
    trained = manifest(root, "third").splits["train"]
    assert (done["config"].get("spec_mean"), has_train) in ((trained.mel_mean, True), (None, False))
    text = run(copy, "export", "--layout=scenic", tmp_path / "b")[1]
    assert all(f"the table {table} is the split {split}\n" in text for table, split in stand_ins.items())
    assert ("no split can be the table train" in text) != has_train


def test_an_export_that_was_killed_begins_anew(answer, refusal, root, tmp_path):
    """What it left are links: whoever wrote over them would write into the dataset."""
    shards = {path: path.read_bytes() for path in (root / "shards").iterdir()}
    first = manifest(root, "third").splits["train"].shards[0]
    folder = tmp_path / "scenic"
    folder.mkdir()
    os.link(root / first.path, folder / "train-00000-of-00002")
    (folder / "labels.csv").write_text("cut off")
    words = ("export", "--layout=scenic", folder, "--link=copy")
    assert answer(root, *words)["files"] == 4
    assert "labels.csv" in os.listdir(folder) and "cut off" not in (folder / "labels.csv").read_text()
    assert not (folder / "train-00000-of-00002").samefile(root / first.path)
    assert {path: path.read_bytes() for path in (root / "shards").iterdir()} == shards
    assert "is not empty" in refusal(root, *words)


def read_table(config: dict, subset: str) -> list[bytes]:
    """The records of a subset, found as Scenic finds them: `train@2` is two files, and both must exist."""
    stem, _, total = config["tables"][subset].partition("@")
    names = [f"{config['base_dir']}/{stem}-{number:05d}-of-{int(total):05d}" for number in range(int(total))]
    records = [record.numpy() for record in tf.data.TFRecordDataset(names)]
    assert len(records) == config["examples_per_subset"][subset]
    return records


def read_id(record: bytes) -> str:
    """The id of a record that holds what Scenic's MBT reads: frames, labels, and seconds of 100 x 128."""
    context, lists = tf.io.parse_single_sequence_example(
        record,
        {"example/id": tf.io.FixedLenFeature([], tf.string), "clip/label/index": tf.io.VarLenFeature(tf.int64)},
        {
            "image/encoded": tf.io.FixedLenSequenceFeature([], tf.string),
            "melspec/feature/floats": tf.io.FixedLenSequenceFeature([100, 128], tf.float32),
        },
    )
    assert len(lists["image/encoded"]) in (20, 25) and lists["melspec/feature/floats"].shape == (1, 100, 128)
    assert len(context["clip/label/index"].values)
    return context["example/id"].numpy().decode()


def test_export_refuses_what_it_cannot_do(refusal, root, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    words = ("export", "--layout=scenic")
    assert "is not empty" in refusal(root, *words, tmp_path / "full")
    copy = shutil.copytree(root, tmp_path / "copy")
    shard = copy / next(s.path for s in manifest(root, "third").splits["train"].shards if s.num_records)
    data = shard.read_bytes()
    shard.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert "does not match its checksum" in refusal(copy, *words, tmp_path / "new", "--link=copy")
    shard.unlink()
    assert "is missing or not whole" in refusal(copy, *words, tmp_path / "new")
    assert not list((tmp_path / "new").glob("*"))


def test_pandas_and_duckdb_read_the_clip_table(root):
    path = root / "snapshots" / "second" / "clips.parquet"
    table = pd.read_parquet(path).set_index("id")
    assert table.loc["clip-1", ["outcome", "reason"]].tolist() == ["transient", "missing"]
    assert list(table.loc["clip-0", "labels"]) == ["all", "even"]
    query = "SELECT split, count(*), count(*) FILTER (outcome = 'ok') FROM '{}' GROUP BY split ORDER BY split"
    assert duckdb.sql(query.format(path)).fetchall() == [("test", 1, 1), ("train", 5, 4)]
    labels = duckdb.sql(
        f"SELECT label, count(*) FROM (SELECT unnest(labels) AS label FROM '{path}') GROUP BY 1 ORDER BY 1"
    )
    assert labels.fetchall() == [("all", 2), ("even", 3), ("odd", 3)]
