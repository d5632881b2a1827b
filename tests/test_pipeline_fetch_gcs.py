"""The road on gs://: fetch, status, import and build against an emulator, and their bytes against those of a folder."""

import json
from pathlib import Path

import pytest
from media_server import serving

from mbt.pipeline import ledger, media, storage


@pytest.fixture
def server(clip_folder):
    with serving() as running:
        for path in clip_folder.glob("*.mp4"):
            running.files[path.name] = path.read_bytes()
        yield running


@pytest.fixture
def mbt_data_on(gcs, mbt_data, tmp_path):
    def run(command: str, root: str, *words: str) -> dict:
        arguments = [f"--annotations={tmp_path}/clips.csv", f"--output={root}", "--json", *words]
        done = mbt_data(command, *arguments, env=gcs.env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_whole_road_on_gs(gcs, mbt_data_on, server, write_csv, clip_folder, tmp_path):
    names = [f"{number}.mp4" for number in range(4)]
    for name in names:
        storage.upload(copy(clip_folder / name, tmp_path / name), f"{gcs.root('videos')}/{name}")
    sources = [
        f"{server.url}/0.mp4",
        f"{server.url}/1.mp4",
        f"{gcs.root('videos')}/2.mp4",
        f"{gcs.root('videos')}/3.mp4",
    ]
    sources += [f"{server.url}/none.mp4", f"{gcs.root('videos')}/none.mp4"]
    rows = [
        {"video_path": source, "start": 0, "end": 1, "label": "a", "id": f"c{n}"} for n, source in enumerate(sources)
    ]
    write_csv(tmp_path / "clips.csv", rows)
    root = gcs.root("road")
    fetched = mbt_data_on("fetch", root)["splits"]["train"]
    assert (fetched["ok"], fetched["gone"], fetched["transient"]) == (4, 1, 1)
    assert len(media.listing(root)) == 4 and len(ledger.state(root)) == 6
    assert mbt_data_on("status", root)["splits"]["train"] == fetched
    server.requests.clear()
    built = mbt_data_on("build", root)
    assert built["splits"]["train"]["records"] == 4 and server.requests == []
    assert mbt_data_on("build", root)["new"] is False
    mbt_data_on("build", str(tmp_path / "local"))
    names = [path.name for path in (tmp_path / "local" / "shards").iterdir()]
    assert names and storage.sizes(f"{root}/shards") == {
        name: (tmp_path / "local" / "shards" / name).stat().st_size for name in names
    }
    for name in names:
        assert storage.read(f"{root}/shards/{name}") == (tmp_path / "local" / "shards" / name).read_bytes()
    assert not storage.folders(f"{root}/tmp")


def rows_of(sources: list[str]) -> list[dict]:
    return [
        {"video_path": source, "start": 0, "end": 1, "label": "a", "id": f"c{number}"}
        for number, source in enumerate(sources)
    ]


def copy(path: Path, target: Path) -> str:
    target.write_bytes(path.read_bytes())
    return str(target)


def test_refresh_diff_and_verify_on_gs(gcs, mbt_data, mbt_data_on, server, write_csv, tmp_path):
    write_csv(tmp_path / "clips.csv", rows_of([f"{server.url}/{number}.mp4" for number in range(5)]))
    root = gcs.root("refreshed")
    mbt_data_on("build", root, "--num_shards=2", "--snapshot=first")
    gone = server.files.pop("0.mp4")
    server.files["5.mp4"] = gone
    write_csv(tmp_path / "clips.csv", rows_of([f"{server.url}/{number}.mp4" for number in range(6)]))
    server.requests.clear()
    words = ["--older_than=0s", "--recheck=ok", "--removed=drop", "--snapshot=second"]
    refreshed = mbt_data_on("refresh", root, *words)
    assert refreshed["splits"]["train"]["records"] == 5 and refreshed["clips_decoded"] == 1
    assert server.requests == ["5.mp4"] and sorted(server.heads) == [f"{number}.mp4" for number in range(5)]
    for command in (["verify", "--snapshot=all"], ["diff", "first", "second"]):
        done = mbt_data(*command, f"--output={root}", "--json", env=gcs.env)
        assert done.returncode == 0, done.stderr
    split = json.loads(done.stdout)["splits"]["train"]
    assert "gone/http_404" in json.dumps(split)


def test_import_into_gs(gcs, mbt_data_on, server, write_csv, clip_folder, tmp_path):
    rows = [
        {"video_path": f"{server.url}/{n}.mp4", "start": 0, "end": 1, "label": "a", "id": f"c{n}"} for n in range(3)
    ]
    write_csv(tmp_path / "clips.csv", rows)
    root = gcs.root("adopted")
    found = mbt_data_on("import", root, str(clip_folder), "--pattern=stem")
    assert found["copies"] == 3 and found["splits"]["train"]["ok"] == 3
    assert len(media.listing(root)) == 3 and server.requests == []
    assert len(list(clip_folder.glob("*.mp4"))) == 6
