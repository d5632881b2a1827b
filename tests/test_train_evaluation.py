"""`mbt-train evaluate` and `compare`: which scores there are, in the files too, and what is left out of them."""

import csv
import io
import json
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from mbt.schemas.fakes import FakeClip, write_snapshot
from mbt.train import class_report, comparison
from mbt.train.main import main
from mbt.train.scores import ClassScores

FLAGS = [
    *("--config.data.seconds=0.4", "--config.data.frames=2", "--config.data.crop=16"),
    *(f"--config.model.{key}" for key in ("width=16", "depth=1", "heads=2", "mlp_dim=16", "fusion_layer=0")),
    *("--config.train.batch_size=4", "--config.train.eval_batch_size=3", "--config.train.steps=2"),
    "--config.data.eval_split=",
]


def fake_clip(number: int, labels: tuple[int, ...]) -> FakeClip:
    random = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (20, 24, 3), np.uint8)).save(file, "JPEG")
    mel = random.normal(-5, 2, (80, 128)).astype(np.float32)
    return FakeClip(id=f"clip-{number}", jpegs=[file.getvalue()] * 20, size=(20, 24), mel=mel, labels=labels)


def train(folder: pathlib.Path, labels: list[tuple[int, ...]], *flags: str) -> pathlib.Path:
    """A run on a dataset of the classes a to e, of which no clip of the test split has d."""
    train = [fake_clip(number, labels[number % len(labels)]) for number in range(4)]
    test = [fake_clip(number, labels[number % len(labels)]) for number in range(4, 12)]
    write_snapshot(folder / "data", {"train": train, "test": test}, ("a", "b", "c", "d", 'e, "f"'))
    words = ["train", "--config=demo", f"--workdir={folder / 'run'}", f"--config.data.root={folder / 'data'}"]
    assert main([*words, *FLAGS, *flags]) == 0
    return folder / "run"


def evaluate(run: pathlib.Path, capsys) -> tuple[dict, list[dict], str]:
    """Scores, the rows of the CSV, and what was said."""
    capsys.readouterr()
    assert main(["evaluate", f"--workdir={run}", "--split=test", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads((run / "evaluations" / "test-2views.json").read_text()) == json.loads(out)
    with open(run / "evaluations" / "test-2views.csv", newline="") as file:
        return json.loads(out), list(csv.DictReader(file)), err


def test_any_number_of_labels(tmp_path, capsys):
    run = train(tmp_path, [(0, 1), (2, 4), (1,), ()], "--config.loss.name=bce")
    (shard,) = (tmp_path / "data" / "shards").glob("test-00000.tfrecord")
    data = bytearray(shard.read_bytes())
    data[len(data) // 8 : len(data) // 6] = bytes(len(data) // 6 - len(data) // 8)
    shard.write_bytes(data)
    scores, rows, said = evaluate(run, capsys)
    assert "top1" not in scores
    assert (scores["clips"], scores["damaged"], scores["classes"], scores["auc_classes"]) == (7, 1, 4, 4)
    assert "1 of the 5 classes have no clip" in said and "in no mean: d" in said
    assert [row["label"] for row in rows] == ["a", "b", "c", "d", 'e, "f"']
    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3] == {"index": "3", "label": "d", "positives": "0", "ap": "", "auc": ""}
    for name, column in (("map", "ap"), ("mauc", "auc")):
        values = [float(row[column]) for row in rows if row[column]]
        assert scores[name] == pytest.approx(np.mean(values), abs=1e-6)
    assert json.loads((run / "labels.json").read_text()) == ["a", "b", "c", "d", 'e, "f"']


def test_two_heads(tmp_path, capsys):
    run = train(tmp_path, [(0, 2), (1, 4)], "--config.model.head_sizes=(2, 3)")
    scores, rows, _ = evaluate(run, capsys)
    assert {"top1_action", "top1_verb", "top1_noun"} <= scores.keys() and "map" not in scores
    assert [row["positives"] for row in rows] == ["4", "4", "4", "0", "4"]


def write_report(path: pathlib.Path, precisions: list[float], positives=None, labels=None) -> pathlib.Path:
    labels = labels or [f"class {number}" for number in range(len(precisions))]
    counts = np.array([0 if math.isnan(value) else 2 for value in precisions]) if positives is None else positives
    values = np.array(precisions)
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = ClassScores(positives=np.array(counts), average_precision=values, auc=values)
    class_report.write(path, class_report.ClassReport(labels=tuple(labels), scores=scores))
    return path


@pytest.fixture
def reports(tmp_path) -> pathlib.Path:
    """A fused model's report in a run's folder, and two of one modality."""
    labels = ["cat", "an $x$ sign", "none", "dog, small"]
    write_report(tmp_path / "both" / "evaluations" / "test-4views.csv", [0.9, 0.5, math.nan, 0.7], labels=labels)
    write_report(tmp_path / "sound.csv", [0.95, 0.1, math.nan, 0.6], labels=labels)
    write_report(tmp_path / "sight.csv", [0.2, 0.3, math.nan, 0.65], labels=labels)
    return tmp_path


def test_models_are_compared_class_by_class(reports, capsys):
    picture = reports / "classes.png"
    words = [reports / "both", f"audio={reports / 'sound.csv'}", reports / "sight.csv"]
    assert main(["compare", *map(str, words), f"--plot={picture}", "--classes=2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["classes"] == 3
    assert said["models"] == [
        {"name": "both", "map": pytest.approx(0.7), "first_ahead": 0},
        {"name": "audio", "map": pytest.approx(0.55), "first_ahead": 2},
        {"name": "sight", "map": pytest.approx(1.15 / 3), "first_ahead": 3},
    ]
    with Image.open(picture) as drawn:
        assert drawn.width > 1000
    found = comparison.read([str(word) for word in words])
    assert found.labels == ("cat", "an $x$ sign", "dog, small")
    assert found.best(2).tolist() == [0, 2]
    assert found.gained(1, 2).tolist() == [1, 2]
    assert found.gained(2, 3).tolist() == [0, 1, 2]
    assert main(["compare", *map(str, words)]) == 0
    assert "classes of 3 in which both is ahead" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ("absent", "run `mbt-train evaluate` on it first"),
        ("other.txt", "not the scores by class"),
        ("relabelled.csv", "its classes are not those of"),
        ("elsewhere.csv", "evaluate both with one --clips=FILE"),
        ("both", "two of both, both have the same name"),
        ("two", "has 2 scores by class; give one of"),
    ],
)
def test_what_cannot_be_compared_is_refused(reports, capsys, other, complaint):
    labels = ["cat", "an $x$ sign", "none", "dog, small"]
    (reports / "other.txt").write_text("a,b\n1,2\n")
    write_report(reports / "relabelled.csv", [0.1, 0.1, math.nan, 0.1])
    write_report(reports / "elsewhere.csv", [0.1] * 4, positives=[3, 2, 0, 2], labels=labels)
    for name in "ab":
        write_report(reports / "two" / "evaluations" / f"{name}.csv", [0.1] * 4, labels=labels)
    assert main(["compare", str(reports / "both"), str(reports / other)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_one_model_alone_is_refused(reports, capsys):
    assert main(["compare", str(reports / "both")]) == 2
    assert "give two or more" in capsys.readouterr().err
    assert main(["compare", str(reports / "both"), str(reports / "sound.csv"), "--plot=/absent/a.png"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_report_reads_back_as_it_was_written(tmp_path):
    path = write_report(tmp_path / "a.csv", [0.25, math.nan, 1.0], labels=["é", 'with "quotes", and', "line\nbreak"])
    report = class_report.read(path)
    assert report.labels == ("é", 'with "quotes", and', "line\nbreak")
    np.testing.assert_array_equal(report.scores.average_precision, [0.25, np.nan, 1.0])
    np.testing.assert_array_equal(report.scores.positives, [2, 0, 2])
    assert report.left_out == ['with "quotes", and']
