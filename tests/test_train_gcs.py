"""Datasets on gs:// against an emulator: what is trained and evaluated is what a folder gives, on a bad network too."""

import json
import pathlib
import shutil
import tempfile

import numpy as np
import pytest
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError
from loading import LABELS, fake_clip, make_config, reader_of
from train_runs import train_command, write_dataset

from mbt.pipeline import storage as pipeline_storage
from mbt.schemas.fakes import write_snapshot
from mbt.train import gcs as train_gcs
from mbt.train import snapshot
from mbt.train.errors import RunError
from mbt.train.main import main
from mbt.train.records import eval_batches, train_batches

CLIPS = 6
ODD = "a b/50% [x]?#ä"


def upload(folder: pathlib.Path, root: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            pipeline_storage.write(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return root


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("whole")
    clips = [fake_clip(number) for number in range(CLIPS)]
    write_snapshot(root, {"train": clips, "test": clips[:5]}, LABELS, num_shards=2)
    return root


def assert_same_batches(one, other):
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs[name])


def test_a_run_and_its_evaluation_are_those_of_a_folder(gcs, tmp_path, capsys):
    root = write_dataset(tmp_path / "dataset")
    results = []
    for number, place in enumerate([str(root), upload(root, gcs.root("trained"))]):
        workdir = tmp_path / f"run-{number}"
        assert main(train_command(place, workdir, "--config.train.steps=20")) == 0
        capsys.readouterr()
        assert main(["evaluate", f"--workdir={workdir}", "--views=2", "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out) | {"workdir": ""})
        assert json.loads((workdir / "config.json").read_text())["data"]["root"] == place
    assert results[0] == results[1]
    for name in ("metrics.jsonl", "evaluations/test-2views.csv", "labels.json"):
        assert (tmp_path / "run-0" / name).read_bytes() == (tmp_path / "run-1" / name).read_bytes()
    assert len((tmp_path / "run-1" / "metrics.jsonl").read_text().splitlines()) == 25  # 20 steps and 5 evaluations


@pytest.mark.parametrize("short", ["pad", "loop"])
def test_names_of_any_kind_and_clips_shorter_than_the_window(gcs, local, short):
    root = upload(local, gcs.root(ODD))
    batches = []
    for place in (str(local), f"{root}/"):
        config = make_config(place, seconds=3.0, frames=4, short=short, sampling="class_balanced")
        batches.append(list(train_batches(reader_of(place, config), config)))
    assert_same_batches(*batches)


def test_a_changed_byte_is_a_damaged_record_as_in_a_folder(gcs, local, tmp_path, capfd):
    root = shutil.copytree(local, tmp_path / "damaged")
    path = root / "shards" / "train-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    batches, bad = [], []
    for place in (str(root), upload(root, gcs.root("damaged"))):
        config = make_config(place, seconds=2.4, frames=60)  # all of a clip
        reader = reader_of(place, config)
        batches.append(list(train_batches(reader, config)))
        (entry,) = reader.bad
        assert entry["shard"] == f"{place}/shards/train-00001.tfrecord"
        bad.append({name: entry[name] for name in ("record", "clip", "reason")})
    assert_same_batches(*batches)
    assert bad[0] == bad[1]
    assert capfd.readouterr().err.count("damaged record, left out: shard gs://bucket/damaged/shards/") == 1


def test_a_bad_network_changes_nothing(gcs, behind, local):
    root = upload(local, gcs.root("network"))
    config = make_config(local)
    expected = list(eval_batches(reader_of(local, config, "test"), config, views=2))
    faults: list[int | str] = [503, "cut", 429, 500, "cut", 502]
    with behind(gcs, faults):
        config = make_config(root)
        reader = reader_of(root, config, "test")
        faults += ["cut", 503]
        reader.records.ids()
        assert not faults
        faults += ["cut", 503] * 4  # what is left to ask for is of shards
        assert_same_batches(expected, eval_batches(reader, config, views=2))
    assert not faults and reader.bad == []


def test_parts_that_lie_near_come_together(gcs, behind, local, monkeypatch):
    root = upload(local, gcs.root("near"))
    config = make_config(root, seconds=2.4, frames=60)
    seen = []
    for near in (train_gcs.NEAR_BYTES, 0):
        monkeypatch.setattr(train_gcs, "NEAR_BYTES", near)
        with behind(gcs, []) as log:
            batches = list(eval_batches(reader_of(root, config, "test"), config, views=1))
        seen.append((batches, sum("tfrecord" in line for line in log)))
    assert_same_batches(seen[0][0], seen[1][0])
    asked = 2 * 3  # batches of two clips; the sixth place repeats a clip
    assert (seen[0][1], seen[1][1]) == (asked, 9 * asked)  # six pictures, which all are alike, and three seconds


def test_indices_that_are_mapped_again_come_once(gcs, behind, local, monkeypatch):
    root = upload(local, gcs.root("indices"))
    monkeypatch.setattr(snapshot, "MAPPED", 1)
    records = reader_of(root, make_config(root)).records
    before = copies_mapped()
    with behind(gcs, []) as log:
        assert [records.ids() for _ in range(3)] == [reader_of(local, make_config(local)).records.ids()] * 3
    assert len(log) == 2
    assert copies_mapped() <= before + 1


def copies_mapped() -> int:
    """How many times files without a name are mapped by this process."""
    maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    return sum(tempfile.gettempdir() in line and line.endswith("(deleted)") for line in maps)


def test_a_shard_that_vanished_ends_the_run(gcs, local):
    root = upload(local, gcs.root("vanished"))
    config = make_config(root)
    reader = reader_of(root, config)
    for number in range(2):
        pipeline_storage.delete(f"{root}/shards/train-0000{number}.tfrecord")
    gone = r"shard gs://bucket/vanished/shards/train-0000\d\.tfrecord, clip clip-\d: No such file or directory; run "
    with pytest.raises(RunError, match=gone):
        next(train_batches(reader, config))
    assert reader.bad == []


def test_a_store_that_stays_away_ends_the_run_and_is_no_damage(gcs, local, monkeypatch):
    root = upload(local, gcs.root("away"))
    config = make_config(root)
    reader = reader_of(root, config)
    reader.records.ids()
    monkeypatch.setattr(train_gcs, "RETRIES", 2)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(RunError, match=r"^shard gs://bucket/away/\S*, clip clip-\d: cannot be read: .*\d retries"):
        next(train_batches(reader, config))
    assert reader.bad == []


class Passing(Credentials):
    """Credentials whose server is away at first, in the ways that google-auth tells it."""

    def __init__(self, *away: Exception):
        super().__init__()
        self.away = list(away)

    def refresh(self, request):
        if self.away:
            raise self.away.pop(0)
        self.token = "token"


def test_tokens_are_asked_for_again(monkeypatch):
    monkeypatch.setattr(train_gcs, "PAUSES_S", (0.0,))
    of_machine = RefreshError("no answer")
    of_machine.__cause__ = TransportError("refused")
    credentials = Passing(TransportError("reset"), of_machine, RefreshError("503", retryable=True))
    assert train_gcs._Tokens(credentials)()["token"] == "token"
    with pytest.raises(RefreshError, match="invalid_grant"):
        train_gcs._Tokens(Passing(RefreshError("invalid_grant")))()


def refused(capsys, command: list[str]) -> str:
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_read_is_said_in_one_line(gcs, tmp_path, capsys, monkeypatch):
    root = upload(write_dataset(tmp_path / "dataset"), gcs.root("refused"))
    workdir = tmp_path / "run"
    assert "no snapshot there; make one with `mbt-data build --output=gs://bucket/none`" in refused(
        capsys, train_command("gs://bucket/none", workdir)
    )
    for place in ("s3://bucket/none", "gs://", "gs:///none"):
        line = refused(capsys, train_command(place, workdir))
        assert line.endswith(f"config.data.root={place}: must be a folder, or gs://BUCKET/FOLDER")
    pipeline_storage.delete(f"{root}/shards/train-00001.index")
    line = refused(capsys, train_command(root, workdir))
    assert "shard gs://bucket/refused/shards/train-00001.tfrecord is missing or not whole" in line
    pipeline_storage.delete(f"{root}/dataset.json")
    assert f"config.data.root={root}: " in refused(capsys, train_command(root, workdir))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"config.data.root={root}: cannot be read: Your default credentials" in refused(
        capsys, train_command(root, workdir)
    )
    assert not workdir.exists()


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_workdir_on_an_object_store_is_refused(gcs, command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--workdir=gs://bucket/run"])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert "--workdir: gs://bucket/run is on no disk" in line
