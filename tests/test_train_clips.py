"""`mbt-train evaluate --clips`: exactly the clips of a list, or a refusal; and a share of the training clips."""

import concurrent.futures
import csv
import hashlib
import io
import json
import pathlib
import socket

import numpy as np
import pytest
from PIL import Image

from mbt.schemas.fakes import FakeClip, write_snapshot
from mbt.train import evaluation
from mbt.train.clips import open_share
from mbt.train.errors import UsageError
from mbt.train.main import main
from mbt.train.rendezvous import Processes
from mbt.train.snapshot import load_manifest

SMALL = [
    "--config.data.seconds=0.4",
    "--config.data.frames=2",
    "--config.data.crop=16",
    "--config.model.width=16",
    "--config.model.depth=1",
    "--config.model.heads=2",
    "--config.model.mlp_dim=16",
    "--config.model.fusion_layer=0",
    "--config.train.batch_size=4",
    "--config.train.eval_batch_size=3",
    "--config.train.steps=2",
]
NAMES = [f'clip, "{number}"' for number in range(4, 11)]  # a comma and quotes, as an id may have


def fake_clip(number: int, name: str) -> FakeClip:
    random = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (20, 24, 3), np.uint8)).save(file, "JPEG")
    mel = random.normal(-5, 2, (80, 128)).astype(np.float32)
    return FakeClip(id=name, jpegs=[file.getvalue()] * 20, size=(20, 24), mel=mel, labels=(number % 3,))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A trained run on a split of seven clips, beside a dataset with four of them."""
    folder = tmp_path_factory.mktemp("chosen")
    train = [fake_clip(number, f"train-{number}") for number in range(4)]
    test = [fake_clip(number, name) for number, name in enumerate(NAMES, 4)]
    write_snapshot(folder / "all", {"train": train, "test": test}, ("a", "b", "c"))
    write_snapshot(folder / "some", {"train": train, "test": test[1:5]}, ("a", "b", "c"))
    root = f"--config.data.root={folder / 'all'}"
    assert main(["train", "--config=demo", f"--workdir={folder / 'run'}", root, *SMALL]) == 0
    return folder / "run"


def write_list(path: pathlib.Path, rows: list[tuple[str, str]]) -> pathlib.Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("split", "id"), *rows])
    return path


def evaluate(run: pathlib.Path, capsys, *flags: str) -> tuple[int, dict, str]:
    capsys.readouterr()
    status = main(["evaluate", f"--workdir={run}", "--json", *flags])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else {}, err


def test_the_listed_clips_and_no_others(run, tmp_path, capsys):
    """Their scores are those of a dataset that holds nothing else."""
    chosen = write_list(tmp_path / "list.csv", [("test", name) for name in NAMES[1:5]] + [("train", "train-0")])
    status, result, err = evaluate(run, capsys, f"--clips={chosen}")
    assert status == 0
    assert "4 of the 4 clips of split test are in snapshot first" in err
    assert (result["clips"], result["missing"]) == (4, 0)
    assert result["clips_sha256"] == hashlib.sha256(chosen.read_bytes()).hexdigest()
    _, alone, _ = evaluate(run, capsys, f"--data_root={run.parent / 'some'}")
    scores = ("map", "top1", "top5", "clips", "classes")
    assert [result[name] for name in scores] == pytest.approx([alone[name] for name in scores])
    _, everything, _ = evaluate(run, capsys)
    assert everything["clips"] == 7 and "clips_sha256" not in everything
    written = run / "evaluations" / f"test-2views-{result['clips_sha256'][:12]}.json"
    assert json.loads(written.read_text()) == result


def test_the_order_of_the_list_changes_nothing(run, tmp_path, capsys):
    rows = [("test", name) for name in NAMES]
    _, all_listed, _ = evaluate(run, capsys, f"--clips={write_list(tmp_path / 'a.csv', rows[::-1])}")
    _, everything, _ = evaluate(run, capsys)
    assert all_listed == everything | {"clips_sha256": all_listed["clips_sha256"], "missing": 0}


def test_a_spreadsheet_may_have_written_the_list(run, tmp_path, capsys):
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbfsplit,id\r\n" + b'test,"clip, ""4"""\r\n\r\n')
    status, result, err = evaluate(run, capsys, f"--clips={path}")
    assert (status, result.get("clips")) == (0, 1), err


def test_missing_clips_are_refused_unless_allowed(run, tmp_path, capsys):
    chosen = write_list(tmp_path / "list.csv", [("test", name) for name in (*NAMES[:2], "vanished")])
    before = sorted((run / "evaluations").glob("*"))
    status, _, err = evaluate(run, capsys, f"--clips={chosen}")
    assert status == 2
    assert "2 of the 3 clips" in err and "'vanished' is not" in err and "--allow_missing" in err
    assert sorted((run / "evaluations").glob("*")) == before
    status, result, _ = evaluate(run, capsys, f"--clips={chosen}", "--allow_missing")
    assert (status, result["clips"], result["missing"]) == (0, 2, 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "No such file"),
        ("", "not a CSV of split,id"),
        ("id,split\na,test\n", "its first line is not split,id"),
        ("split,id\ntest,a,b\n", "not a CSV of split,id"),
        ('split,id\ntest,"a\n', "not a CSV of split,id"),
        ("split,id\ntest,caf\xe9\n", "not a CSV of split,id"),
        ("split,id\ntrain,train-0\n", "names no clip of split test"),
        ("split,id\ntest,vanished\n", "0 of the 1 clips"),
    ],
)
def test_other_files_are_refused(run, tmp_path, capsys, text, complaint):
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    status, _, err = evaluate(run, capsys, f"--clips={path}", "--allow_missing")
    assert status == 2
    assert complaint in err.replace("\n", " ")


def test_a_share_depends_on_ids_alone_and_is_part_of_a_larger_one(tmp_path):
    clips = [fake_clip(number, f"clip-{number}") for number in range(40)]
    shares = {}
    for num_shards in (1, 4):
        root = tmp_path / str(num_shards)
        write_snapshot(root, {"train": clips}, ("a", "b", "c"), num_shards=num_shards)
        split = load_manifest(str(root), "latest").splits["train"]
        for share in (0.25, 0.5):
            records = open_share(str(root), split, share)
            shares[num_shards, share] = set(records.ids())
            paths = [records.locate(number)[1].ids[records.locate(number)[2]] for number in range(len(records))]
            assert paths == records.ids()
    hashes = {clip.id: int(hashlib.sha256(clip.id.encode()).hexdigest()[:12], 16) / 16**12 for clip in clips}
    assert shares[1, 0.5] == shares[4, 0.5] == {name for name, place in hashes.items() if place < 0.5}
    assert shares[1, 0.25] == shares[4, 0.25] < shares[1, 0.5]
    assert 10 <= len(shares[1, 0.5]) <= 30


def test_training_takes_the_share(run, tmp_path, capsys):
    """One so small that no clip is left is refused, and nothing is written."""
    root = f"--config.data.root={run.parent / 'all'}"
    words = ["train", "--config=demo", f"--workdir={tmp_path / 'run'}", root, *SMALL, "--config.data.share=1e-9"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.data.share=1e-09: leaves none of the split's 4 clips" in line
    assert list(tmp_path.iterdir()) == []


def test_processes_that_were_asked_otherwise_are_refused(run):
    with socket.create_server(("127.0.0.1", 0)) as free:
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"

    def ask(process: int) -> str:
        words = {"split": None, "root": None, "processes": Processes(coordinator, 2, process, timeout_s=60)}
        with pytest.raises(UsageError) as refusal:
            evaluation.evaluate(run, views=process + 1, **words)
        return str(refusal.value)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reasons = list(pool.map(ask, range(2)))
    assert reasons == ["process 1 has another config or snapshot than process 0; start all with one command"] * 2
