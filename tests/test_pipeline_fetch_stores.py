"""The road on gs:// and on s3://, against emulators, and its bytes against those of a folder on this machine."""

import json
from pathlib import Path

import pytest
from media_server import PRIVATE, serving

from mbt.pipeline import ledger, media, storage
from mbt.pipeline.main import main


@pytest.fixture
def server(clip_folder):
    with serving() as running:
        for path in clip_folder.glob("*.mp4"):
            running.files[path.name] = path.read_bytes()
        yield running


@pytest.fixture
def answer(capsys):
    """Runs a command in this process, where everything is imported; returns what it prints for machines."""

    def answer(*words: str, status: int = 0) -> dict:
        capsys.readouterr()
        assert main([*words, "--json"]) == status, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return answer


@pytest.fixture
def on(answer, tmp_path):
    """Runs a command on a dataset, with the annotations of this test."""
    return lambda command, root, *words: answer(
        command,
        f"--annotations={tmp_path}/clips.csv",
        f"--output={root}",
        *([PRIVATE] if command != "status" else []),
        *words,
    )


def test_fetch_build_verify_and_repair(store, on, answer, server, write_csv, clip_folder, tmp_path):
    videos = put(store, clip_folder, "videos", ["2.mp4", "3.mp4"])
    sources = [f"{server.url}/0.mp4", f"{server.url}/1.mp4", f"{videos}/2.mp4", f"{videos}/3.mp4"]
    sources += [f"{server.url}/none.mp4", f"{videos}/none.mp4"]
    write_csv(tmp_path / "clips.csv", rows_of(sources))
    root = store.root("road")
    fetched = on("fetch", root)["splits"]["train"]
    assert (fetched["ok"], fetched["gone"], fetched["transient"]) == (4, 1, 1)
    assert len(media.listing(root)) == 4 and len(ledger.state(root)) == 6
    assert on("status", root)["splits"]["train"] == fetched
    server.requests.clear()
    built = on("build", root, "--allow_loss=0.2")
    assert built["splits"]["train"]["records"] == 4 and server.requests == []
    assert on("build", root)["new"] is False
    on("build", str(tmp_path / "local"), "--allow_loss=0.2")
    same_shards(root, tmp_path / "local")
    assert not storage.folders(f"{root}/tmp")

    shard = next(name for name in storage.sizes(f"{root}/shards") if name.endswith(".tfrecord"))
    data = bytearray(storage.read(f"{root}/shards/{shard}"))
    data[len(data) // 2] ^= 1
    storage.write(f"{root}/shards/{shard}", bytes(data))
    damage = answer("verify", f"--output={root}", status=1)["problems"]
    assert [problem["file"] for problem in damage] == [f"shards/{shard}"] and len(damage[0]["clips"]) == 1
    answer("verify", f"--output={root}", "--repair")
    same_shards(root, tmp_path / "local")


def test_refresh_diff_and_verify(store, on, answer, server, write_csv, tmp_path):
    write_csv(tmp_path / "clips.csv", rows_of([f"{server.url}/{number}.mp4" for number in range(5)]))
    root = store.root("refreshed")
    on("build", root, "--num_shards=2", "--snapshot=first")
    gone = server.files.pop("0.mp4")
    server.files["5.mp4"] = gone
    write_csv(tmp_path / "clips.csv", rows_of([f"{server.url}/{number}.mp4" for number in range(6)]))
    server.requests.clear()
    words = ["--older_than=0s", "--recheck=ok", "--removed=drop", "--snapshot=second"]
    refreshed = on("refresh", root, *words)
    assert refreshed["splits"]["train"]["records"] == 5 and refreshed["clips_decoded"] == 1
    assert server.requests == ["5.mp4"] and sorted(server.heads) == [f"{number}.mp4" for number in range(5)]
    answer("verify", "--snapshot=all", f"--output={root}")
    split = answer("diff", "first", "second", f"--output={root}")["splits"]["train"]
    assert "gone/http_404" in json.dumps(split)


def test_import_from_a_store_into_it_by_annotations_that_lie_there(store, answer, server, write_csv, clip_folder):
    copies = put(store, clip_folder, "copies", ["0.mp4", "1.mp4", "2.mp4"])
    lists, root = store.root("lists/day=1"), store.root("adopted")
    text = "".join(f"{server.url}/{n}.mp4,0,1,a,c{n}\n" for n in range(3))
    storage.write(f"{lists}/clips.csv", f"video_path,start,end,label,id\n{text}".encode())
    words = [f"--annotations=train={lists}/clips.csv", f"--output={root}"]
    found = answer("import", copies, "--pattern=stem", *words)
    assert found["copies"] == 3 and found["splits"]["train"]["ok"] == 3
    assert len(media.listing(root)) == 3 and server.requests == []
    assert sorted(storage.sizes(copies)) == ["0.mp4", "1.mp4", "2.mp4"]


def test_worker_processes_find_s3_by_beams_flags(s3_emulator, mbt_data, clip_folder, write_csv, tmp_path):
    write_csv(tmp_path / "clips.csv", rows_of([f"{clip_folder}/0.mp4", f"{clip_folder}/1.mp4"]))
    root = s3_emulator.root("flags")
    flags = [f"--s3_endpoint_url={s3_emulator.url}", "--s3_access_key_id=a", "--s3_secret_access_key=b"]
    words = [f"--annotations={tmp_path}/clips.csv", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    nobody = {name: "/dev/null" for name in s3_emulator.env if name.endswith("_FILE")} | {"AWS_REGION": "us-east-1"}
    done = mbt_data("build", *words, f"--output={root}", *flags, env=nobody)
    assert done.returncode == 0, done.stderr
    checked = mbt_data("verify", f"--output={root}", *flags, env=nobody)
    assert checked.returncode == 0 and "2 records" in checked.stdout


def same_shards(root: str, local: Path) -> None:
    names = [path.name for path in (local / "shards").iterdir()]
    assert names and storage.sizes(f"{root}/shards") == {
        name: (local / "shards" / name).stat().st_size for name in names
    }
    for name in names:
        assert storage.read(f"{root}/shards/{name}") == (local / "shards" / name).read_bytes()


def rows_of(sources: list[str]) -> list[dict]:
    return [
        {"video_path": source, "start": 0, "end": 1, "label": "a", "id": f"c{number}"}
        for number, source in enumerate(sources)
    ]


def put(store, folder: Path, name: str, files: list[str]) -> str:
    for file in files:
        storage.write(f"{store.root(name)}/{file}", (folder / file).read_bytes())
    return store.root(name)
