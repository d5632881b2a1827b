"""`mbt-data gc` deletes what nobody needs and nothing else; training on an old snapshot goes on meanwhile."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from mbt.pipeline import writer
from mbt.pipeline.verify import ALL, VerifyOptions, verify
from mbt.schemas.manifest import Manifest

DAYS = 86_400


@pytest.fixture(scope="module")
def built(mbt_data, write_csv, clip_folder, six_rows, tmp_path_factory) -> Path:
    """Two snapshots, `a` and `b`: between them one clip's labels changed."""
    folder = tmp_path_factory.mktemp("collect")
    write_csv(folder / "clips.csv", six_rows)
    build(mbt_data, folder, clip_folder, "a")
    write_csv(folder / "clips.csv", [six_rows[0] | {"label": "odd"}, *six_rows[1:]])
    build(mbt_data, folder, clip_folder, "b")
    return folder


def build(mbt_data, folder: Path, media: Path, name: str) -> None:
    words = [f"--annotations={folder}/clips.csv", f"--media_root={media}", f"--output={folder}/out"]
    done = mbt_data("build", *words, "--num_shards=2", f"--snapshot={name}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def root(built, tmp_path) -> Path:
    return Path(shutil.copytree(built / "out", tmp_path / "out"))


def needed(root: Path, *names: str) -> set[str]:
    manifests = [Manifest.from_json((root / "snapshots" / name / "manifest.json").read_text()) for name in names]
    shards = [shard for manifest in manifests for split in manifest.splits.values() for shard in split.shards]
    return {path for shard in shards for path in (shard.path, shard.index_path)}


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def age(root: Path, days: float) -> None:
    for path in root.rglob("*"):
        os.utime(path, times=(time.time() - days * DAYS,) * 2)


def leftovers(root: Path) -> set[str]:
    """What killed runs leave."""
    paths = {
        "tmp/run-000003/fetch.parquet",
        "tmp/shards/train-00000-of-00002-x.tfrecord",
        "snapshots/unfinished/clips.parquet",
        "snapshots/b/manifest.json.0123.part",
        "media/ab/ab-cd.mp4.0123.part",
        "shards/train-00000-of-00002-nobody.tfrecord",
    }
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"1234")
    return paths


def test_exactly_what_no_snapshot_needs_is_deleted(root, mbt_data):
    only_a = needed(root, "a") - needed(root, "b")
    assert len(only_a) == 2
    shutil.rmtree(root / "snapshots" / "a")
    garbage = only_a | leftovers(root)
    age(root, 2)
    before = files(root)
    dry = mbt_data("gc", f"--output={root}", "--json")
    assert dry.returncode == 0, dry.stderr
    found = json.loads(dry.stdout)
    assert set(found["paths"]) == garbage and not found["deleted"]
    assert found["shards"]["bytes"] == 4 + sum((root / path).stat().st_size for path in only_a)
    assert files(root) == before
    assert "nothing was deleted: add --yes" in mbt_data("gc", f"--output={root}").stdout
    assert mbt_data("gc", f"--output={root}", "--yes").returncode == 0
    assert files(root) == before - garbage
    assert verify(VerifyOptions(root=str(root), snapshot=ALL)).problems == ()
    assert "nothing to delete" in mbt_data("gc", f"--output={root}").stdout


def test_what_is_young_is_left_alone(root, mbt_data):
    leftovers(root)
    before = files(root)
    done = mbt_data("gc", f"--output={root}", "--yes")
    assert "6  left alone" in done.stdout and files(root) == before
    age(root, 0.1)
    assert mbt_data("gc", f"--output={root}", "--yes", "--older_than=1h").returncode == 0
    assert len(files(root)) == len(before) - 6


def test_a_snapshot_that_cannot_be_read_stops_it(root, mbt_data):
    """Nobody knows which shards it needs."""
    (root / "snapshots/a/manifest.json").write_text("{")
    age(root, 2)
    before = files(root)
    done = mbt_data("gc", f"--output={root}", "--yes")
    assert done.returncode == 2 and "snapshot a cannot be read" in done.stderr
    assert files(root) == before


def test_a_running_writer_stops_it(root, mbt_data):
    leftovers(root)
    age(root, 2)
    before = files(root)
    with writer.hold(str(root)):
        done = mbt_data("gc", f"--output={root}", "--yes")
    assert done.returncode == 2 and "is being written by" in done.stderr
    assert files(root) == before


@pytest.mark.parametrize("age_given", ["1", "x", "1w", "-1d"])
def test_ages(root, mbt_data, age_given):
    done = mbt_data("gc", f"--output={root}", f"--older_than={age_given}")
    assert done.returncode == 2 and "is not an age" in done.stderr


def test_training_on_a_goes_on_while_b_is_built(built, mbt_data, write_csv, clip_folder, six_rows, tmp_path):
    """A reader of snapshot `a` gives the same batches before and after `b` is built, and after gc."""
    import numpy as np

    from mbt.train.config import default_config, resolve
    from mbt.train.records import make_reader, train_batches
    from mbt.train.snapshot import Records, load_manifest

    write_csv(tmp_path / "clips.csv", six_rows)
    build(mbt_data, tmp_path, clip_folder, "a")
    root = str(tmp_path / "out")
    manifest = load_manifest(root, "a")
    config = default_config()
    config.data.update(root=root, snapshot="a", seconds=0.4, frames=2, crop=32)
    config.train.update(batch_size=2, steps=12)
    config = resolve(config, manifest)

    def batches():
        return train_batches(make_reader(Records(root, manifest.splits["train"]), config), config)

    expected = list(batches())
    running = batches()
    seen = [next(running) for _ in range(3)]
    write_csv(tmp_path / "clips.csv", [six_rows[0] | {"start": 0.2}, *six_rows[1:3]])
    build(mbt_data, tmp_path, clip_folder, "b")
    assert load_manifest(root, "latest").snapshot == "b"
    seen += [next(running) for _ in range(3)]
    assert mbt_data("gc", f"--output={root}", "--yes", "--older_than=0s").returncode == 0
    seen += list(running)
    assert len(seen) == len(expected) == 12
    for one, other in zip(seen, expected, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])
