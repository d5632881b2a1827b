"""The commands that read a dataset, on object stores."""

import json
import shutil

import pytest
import tensorflow as tf

from mbt.pipeline import storage
from mbt.pipeline.main import main


def test_a_bucket_that_is_not_there_is_said_in_one_line(store, capsys):
    for command in ("list", "verify"):
        main([command, f"--output={store.scheme}://no-such-bucket/root"])
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("mbt-data: ")
    assert main(["list", f"--output={store.scheme}://no-such-bucket/root"]) == 1
    name = {"gs": "Google Cloud Storage: 404", "s3": "S3: An error occurred (NoSuchBucket)"}[store.scheme]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mbt-data: {name}")


@pytest.mark.parametrize("root", ["hdfs://host/root", "s3a://bucket/root", "gs://", "file:///root"])
@pytest.mark.parametrize("command", ["list", "verify"])
def test_a_store_that_there_is_none_of_is_refused(root, command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, f"--output={root}"])
    assert ended.value.code == 2
    assert "names no bucket" in (said := capsys.readouterr().err) or "neither a path of this machine nor" in said


def test_a_dataset_on_an_object_store_is_read(store, write_csv, clip_folder, six_rows, tmp_path, capsys):
    media = shutil.copytree(clip_folder, tmp_path / "media")
    write_csv(tmp_path / "clips.csv", six_rows)
    root = store.root("read")
    for name in ("one", "two"):
        words = [f"--annotations={tmp_path}/clips.csv", f"--media_root={media}", f"--output={root}", "--num_shards=2"]
        assert main(["build", *words, f"--snapshot={name}", "--allow_loss=1"]) == 0
        (media / "1.mp4").unlink(missing_ok=True)

    def answer(*words: str) -> dict:
        capsys.readouterr()
        assert main([*words, f"--output={root}", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert [line["records"] for line in answer("list")["snapshots"]] == [6, 5]
    assert answer("show", "latest")["splits"]["train"]["lost"] == {"transient/missing": 1}
    changes = answer("diff", "one", "two", f"--common={root}/common.csv")
    assert changes["splits"]["train"]["lost"]["count"] == 1
    assert storage.read(f"{root}/common.csv").count(b"\n") == 6
    (beside,) = answer("report")["paths"]
    assert beside == f"{root}/snapshots/two/report.html" and b"data:image/jpeg" in storage.read(beside)
    answer("export", "--layout=scenic", store.root("scenic"), "--link=copy")
    answer("export", "--layout=scenic", str(tmp_path / "scenic"), "--link=copy")
    names = sorted(path.name for path in (tmp_path / "scenic").glob("*-of-*"))
    assert sum(1 for _ in tf.data.TFRecordDataset([str(tmp_path / "scenic" / name) for name in names])) == 5
    for name in names:
        assert storage.read(store.root(f"scenic/{name}")) == (tmp_path / "scenic" / name).read_bytes()
    assert main(["export", "--layout=scenic", str(tmp_path / "linked"), f"--output={root}"]) == 2
    assert "say --link=copy" in capsys.readouterr().err
