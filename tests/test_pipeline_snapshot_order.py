"""A clock that was set back: the new snapshot is the newest all the same, for all that read it."""

import json

from mbt.pipeline import catalogue, snapshot
from mbt.schemas.manifest import MANIFEST_FILE
from mbt.train.snapshot import load_manifest


def test_a_clock_that_was_set_back_hides_no_snapshot(mbt_data, clip_folder, six_rows, write_csv, tmp_path):
    root = str(tmp_path / "out")
    rows = [row | {"video_path": str(clip_folder / row["video_path"])} for row in six_rows]
    for name, some in (("z", rows[:2]), ("m", rows[:4]), ("a", rows)):
        words = [f"--annotations={write_csv(tmp_path / 'clips.csv', some)}", f"--output={root}", "--num_shards=1"]
        done = mbt_data("build", *words, f"--snapshot={name}")
        assert done.returncode == 0, done.stderr
        if name == "z":
            path = tmp_path / "out" / "snapshots" / "z" / MANIFEST_FILE
            manifest = json.loads(path.read_text()) | {"created": "2999-12-31T23:59:59.999999+00:00"}
            path.write_text(json.dumps(manifest))
    assert [manifest.snapshot for manifest in catalogue.snapshots(root)] == ["z", "m", "a"]
    assert snapshot.latest(root).snapshot == "a" == load_manifest(root, "latest").snapshot
    assert snapshot.latest(root).created == "3000-01-01T00:00:00.000001+00:00"  # the moment after the one before
    assert "snapshot a: " in mbt_data("verify", f"--output={root}").stdout
