"""The commands that read a dataset, on an object store."""

import json
import shutil

import tensorflow as tf

from mbt.pipeline import storage
from mbt.pipeline.main import main


def test_a_bucket_that_is_not_there_is_said_in_one_line(gcs, capsys):
    assert main(["list", "--output=gs://no-such-bucket/root"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mbt-data: Google Cloud Storage: 404")


def test_a_dataset_on_an_object_store_is_read(gcs, mbt_data, write_csv, clip_folder, six_rows, tmp_path, capsys):
    media = shutil.copytree(clip_folder, tmp_path / "media")
    write_csv(tmp_path / "clips.csv", six_rows)
    root = gcs.root("read")
    for name in ("one", "two"):
        words = [f"--annotations={tmp_path}/clips.csv", f"--media_root={media}", f"--output={root}", "--num_shards=2"]
        done = mbt_data("build", *words, f"--snapshot={name}", env=gcs.env)
        assert done.returncode == 0, done.stderr
        (media / "1.mp4").unlink(missing_ok=True)

    def answer(*words: str) -> dict:
        assert main([*words, f"--output={root}", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert [line["records"] for line in answer("list")["snapshots"]] == [6, 5]
    assert answer("show", "latest")["splits"]["train"]["lost"] == {"transient/missing": 1}
    changes = answer("diff", "one", "two", f"--common={root}/common.csv")
    assert changes["splits"]["train"]["lost"]["count"] == 1
    assert storage.read(f"{root}/common.csv").count(b"\n") == 6
    (beside,) = answer("report")["paths"]
    assert beside == f"{root}/snapshots/two/report.html" and b"data:image/jpeg" in storage.read(beside)
    answer("export", "--layout=scenic", gcs.root("scenic"), "--link=copy")
    answer("export", "--layout=scenic", str(tmp_path / "scenic"), "--link=copy")
    names = sorted(path.name for path in (tmp_path / "scenic").glob("*-of-*"))
    assert sum(1 for _ in tf.data.TFRecordDataset([str(tmp_path / "scenic" / name) for name in names])) == 5
    for name in names:
        assert storage.read(gcs.root(f"scenic/{name}")) == (tmp_path / "scenic" / name).read_bytes()
    assert main(["export", "--layout=scenic", str(tmp_path / "linked"), f"--output={root}"]) == 2
    assert "say --link=copy" in capsys.readouterr().err
