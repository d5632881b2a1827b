"""`mbt-data refresh`: what is online is asked cheaply, and only what changed is built."""

import concurrent.futures
import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from fake_youtube import FakeYouTube, Video
from media_server import PRIVATE, serving

from mbt.pipeline import ledger
from mbt.pipeline.verify import ALL, VerifyOptions, verify
from mbt.schemas.manifest import Manifest
from mbt.schemas.tfrecord import read_records


@pytest.fixture
def server(clip_folder):
    with serving() as running:
        running.films = [(clip_folder / f"{number}.mp4").read_bytes() for number in range(6)]
        yield running


@pytest.fixture
def write_clips(server, write_csv, tmp_path):
    """write_clips({name: label}) writes the CSV."""

    def write(labels: dict[str, str], query: str = "") -> None:
        rows = [
            {"video_path": f"{server.url}/{name}.mp4{query}", "start": 0, "end": 1, "label": label, "id": name}
            for name, label in labels.items()
        ]
        write_csv(tmp_path / "clips.csv", rows)

    return write


@pytest.fixture
def run(mbt_data, tmp_path):
    def run(command: str, *words: str, output: str = "out", env: dict | None = None) -> dict:
        files = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/{output}"]
        files += [PRIVATE] if command != "status" else []
        done = mbt_data(command, *files, "--json", *words, env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


NOW = "--older_than=0s"


def manifests(root: Path) -> list[Manifest]:
    found = [Manifest.from_json(path.read_text()) for path in root.glob("snapshots/*/manifest.json")]
    return sorted(found, key=lambda manifest: manifest.created)


def shards(root: Path, manifest: Manifest) -> dict[str, str]:
    """Content of every file that a snapshot names."""
    paths = [
        path for split in manifest.splits.values() for shard in split.shards for path in (shard.path, shard.index_path)
    ]
    return {path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths}


def standing(root: Path, manifest: Manifest) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(root / "snapshots" / manifest.snapshot / "clips.parquet").to_pylist()
    return {row["id"]: (row["outcome"], row["reason"]) for row in rows}


def test_a_refresh_follows_the_world(server, write_clips, run, tmp_path):
    labels = {f"clip{number}": "ab"[number % 2] for number in range(8)}
    for number in range(7):
        server.files[f"clip{number}.mp4"] = server.films[number % 6]
    write_clips(labels)  # clip7 is not there yet
    run("build", "--num_shards=4")
    server.requests.clear()
    # Two vanish, one comes, one is relabelled, one is new.
    del server.files["clip0.mp4"], server.files["clip1.mp4"]
    server.files["clip7.mp4"], server.files["clip8.mp4"] = server.films[1], server.films[2]
    write_clips(labels | {"clip2": "c", "clip8": "a"})
    kept = run("refresh", NOW, "--recheck=ok,gone")
    assert sorted(server.requests) == ["clip7.mp4", "clip8.mp4"]
    assert sorted(server.heads) == sorted(f"clip{number}.mp4" for number in range(7))
    assert kept["splits"]["train"]["records"] == 9 and kept["clips_decoded"] <= 3
    first, second = manifests(tmp_path / "out")
    assert second.parent == first.snapshot and (first.parent is None)
    status = run("status")
    assert status["no_longer_online"] == 2 and status["splits"]["train"]["ok"] == 9
    # The paper's rule: only what is online now.
    server.heads.clear()
    dropped = run("refresh", NOW, "--recheck=ok", "--removed=drop")
    assert dropped["splits"]["train"] == {"clips": 9, "records": 7, "lost": {"gone/http_404": 2}}
    assert dropped["clips_decoded"] == 0 and "clip0.mp4" not in server.requests
    third = manifests(tmp_path / "out")[-1]
    assert standing(tmp_path / "out", third)["clip0"] == ("gone", "http_404")
    # A build from nothing in the same state has the same shards.
    run("build", "--num_shards=4", output="anew")
    (anew,) = manifests(tmp_path / "anew")
    names = {Path(path).name.rpartition("-")[0]: digest for path, digest in shards(tmp_path / "anew", anew).items()}
    mine = {Path(path).name.rpartition("-")[0]: digest for path, digest in shards(tmp_path / "out", third).items()}
    assert anew.labels == ("a", "b", "c") and names == mine
    # They come back: what was fetched is not fetched again.
    server.files["clip0.mp4"] = server.files["clip1.mp4"] = server.films[0]
    server.requests.clear()
    back = run("refresh", NOW, "--recheck=gone", "--removed=drop")
    assert back["splits"]["train"]["records"] == 9 and server.requests == []


def test_age_and_state_decide_who_is_asked(server, write_clips, run):
    server.files["there.mp4"] = server.films[0]
    write_clips({"there": "a", "none": "a"})
    run("build", "--num_shards=1")
    server.requests.clear()
    run("refresh", "--older_than=1d", "--recheck=ok,gone,transient")
    assert server.requests == server.heads == []
    run("refresh", NOW, "--recheck=ok")
    assert server.heads == ["there.mp4"] and server.requests == []
    run("refresh", NOW, "--recheck=gone")
    assert server.requests == ["none.mp4"]


@pytest.mark.parametrize("key", [None, "DATAAPIKEY", "wrong"])
def test_youtube_is_asked_as_cheaply_as_it_can_be(make_media, mbt_data, tmp_path, key):
    film = make_media(tmp_path / "film.mp4", seconds=3)
    ids = [f"video{number:06d}" for number in range(5)]
    lines = ["video_path,start,end,label,id"]
    lines += [f"https://www.youtube.com/watch?v={name},0,2,a,{name}" for name in ids]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out"]
    if key:
        (tmp_path / "key").write_text(key + "\n")
        words.append(f"--youtube_api_key={tmp_path}/key")
    with FakeYouTube(default=Video(formats={18: film}, seconds=3)) as fake:
        environment = fake.environment() | {"REQUESTS_CA_BUNDLE": fake.ca_file}
        assert mbt_data("build", *words, "--num_shards=1", env=environment).returncode == 0
        lost = Video(playability={"status": "ERROR", "reason": "This video has been removed by the uploader"})
        fake.videos[ids[0]] = lost
        fake.counts.clear()
        done = mbt_data("refresh", *words, NOW, "--recheck=ok", "--removed=drop", "--json", env=environment)
        assert done.returncode == 0, done.stderr
        assert fake.counts["media"] == 0
        # yt-dlp is asked where there is doubt only: about the one that is lost, or about all if the key is no good.
        asked = {None: (5, 0, 1), "DATAAPIKEY": (0, 1, 1), "wrong": (0, 1, 5)}[key]
        assert (fake.counts["oembed"], fake.counts["data_api"], fake.counts["watch"]) == asked
    assert json.loads(done.stdout)["splits"]["train"]["lost"] == {"gone/removed_by_uploader": 1}
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"DATAAPIKEY" not in path.read_bytes()


def old_and_new(server, write_clips, run) -> None:
    """A snapshot of twelve clips, and a world that has changed since."""
    for number in range(15):
        server.files[f"clip{number}.mp4"] = server.films[number % 6]
    write_clips({f"clip{number}": "a" for number in range(12)})
    run("build", "--num_shards=4")
    del server.files["clip0.mp4"], server.files["clip1.mp4"]
    write_clips({f"clip{number}": "ab"[number % 2] for number in range(15)})


# A refresh that kills itself when it is about to touch a file below ROOT for the n-th time; says how often it did.
_KILLED = """
import os, signal, sys
from mbt.pipeline.main import main
root, last = sys.argv[1], int(sys.argv[2])
count = 0

def hook(event, arguments):
    global count
    if event.partition(".")[0] in ("open", "os", "shutil", "subprocess") and root in repr(arguments):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
assert main(sys.argv[3:]) == 0
print(count)
"""


@pytest.fixture
def refresh_until(mbt_data, tmp_path):
    def run(root: Path, last: int) -> subprocess.CompletedProcess:
        words = ["refresh", f"--annotations={tmp_path}/clips.csv", f"--output={root}", PRIVATE, NOW, "--removed=drop"]
        return mbt_data.python(_KILLED, root, last, *words)

    return run


def read_throughout(root: Path, old: Manifest, before: dict[str, str], stop: threading.Event) -> int:
    """Reads all of the old snapshot again and again, and whatever other one there is; how often."""
    times = 0
    while not stop.wait(0.01) or not times:
        assert shards(root, old) == before
        for manifest in manifests(root):
            for split in manifest.splits.values():
                for shard in split.shards:
                    with open(root / shard.path, "rb") as file:
                        assert sum(1 for _ in read_records(file)) == shard.num_records
        times += 1
    return times


@contextlib.contextmanager
def reading(root: Path, old: Manifest, before: dict[str, str]):
    """Reads for as long as the block takes, which ends with what went wrong in that."""
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        times = pool.submit(read_throughout, root, old, before, stop)
        try:
            yield
        finally:
            stop.set()
        assert times.result() > 0


@pytest.mark.parametrize("moments", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_the_old_snapshot_stays_and_the_new_one_is_whole(
    server, write_clips, run, refresh_until, tmp_path, moments
):
    """At random moments from the first file touched to the last; the next refresh ends as if nothing had been."""
    old_and_new(server, write_clips, run)
    (old,) = manifests(tmp_path / "out")
    before = shards(tmp_path / "out", old)
    whole = Path(shutil.copytree(tmp_path / "out", tmp_path / "whole"))
    done = refresh_until(whole, 0)
    assert done.returncode == 0, done.stderr
    total = int(done.stdout.splitlines()[-1])
    expected = manifests(whole)[-1]
    assert expected.splits["train"].num_records == 13 and total > 100
    random, statuses = Random(0), []
    for moment in range(moments):
        root = Path(shutil.copytree(tmp_path / "out", tmp_path / f"killed-{moment}"))
        with reading(root, old, before):
            last = 1 + int(total * (moment + random.random()) / moments)
            statuses.append(refresh_until(root, last).returncode)
        assert verify(VerifyOptions(root=str(root), snapshot=ALL)).problems == ()
        assert run("refresh", NOW, "--removed=drop", output=root.name)["splits"]["train"]["records"] == 13
        newest = manifests(root)[-1]
        assert (newest.splits, shards(root, newest)) == (expected.splits, shards(whole, expected))
        assert shards(root, old) == before
        shutil.rmtree(root)
    assert statuses[:-1] == [-signal.SIGKILL] * (moments - 1)  # the last may come to its end before its moment


QUERY = "?a.b=1"  # so that the URL does not end like the file


def test_media_may_be_deleted_once_they_are_in_shards(server, write_clips, run, tmp_path):
    for number in range(6):
        server.files[f"clip{number}.mp4"] = server.films[number]
    labels = {f"clip{number}": "a" for number in range(5)}
    write_clips(labels, QUERY)
    root = tmp_path / "out"
    run("build", "--num_shards=2", "--keep_media=no")
    assert not list((root / "media").rglob("*.mp4"))
    server.requests.clear()
    assert run("build", "--keep_media=no")["new"] is False and server.requests == []
    # A new clip and a new label: what the shards hold is taken from there.
    write_clips(labels | {"clip1": "b", "clip5": "a"}, QUERY)
    built = run("build", "--keep_media=no")
    assert server.requests == [f"clip5.mp4{QUERY}"] and built["clips_decoded"] == 1 and built["clips_relabelled"] == 1
    # Where they do not have it, it is fetched again.
    newest = manifests(root)[-1]
    for split in newest.splits.values():
        for shard in split.shards:
            (root / shard.path).unlink()
            (root / shard.index_path).unlink()
    server.requests.clear()
    built = run("build", "--keep_media=no")
    assert sorted(server.requests) == [f"clip{number}.mp4{QUERY}" for number in range(6)]
    assert built["splits"]["train"]["records"] == 6 and not list((root / "media").rglob("*.mp4"))
    run("build", "--num_shards=2", output="anew")
    (anew,) = manifests(tmp_path / "anew")
    mine = shards(root, manifests(root)[-1])
    assert shards(tmp_path / "anew", anew) == mine


def test_media_that_are_in_no_shard_any_more_are_not_deleted(server, write_clips, run, tmp_path):
    for number in range(2):
        server.files[f"clip{number}.mp4"] = server.films[number]
    write_clips({f"clip{number}": "a" for number in range(2)})
    run("build", "--num_shards=1")
    del server.files["clip0.mp4"]
    words = (NOW, "--recheck=ok", "--keep_media=no")
    assert run("refresh", *words, "--removed=drop")["splits"]["train"]["records"] == 1
    assert len(list((tmp_path / "out" / "media").rglob("*.mp4"))) == 1
    assert run("refresh", *words, "--removed=keep")["splits"]["train"]["records"] == 2
    assert not list((tmp_path / "out" / "media").rglob("*.mp4"))


def test_a_refresh_fetches_again_what_it_must_make_anew(server, write_clips, run, mbt_data, tmp_path):
    """Whatever the age of the newest word; and while that fails, nothing is published."""
    for number in range(3):
        server.files[f"clip{number}.mp4"] = server.films[number]
    write_clips({f"clip{number}": "a" for number in range(3)})
    run("build", "--num_shards=1", "--keep_media=no")
    for path in (tmp_path / "out" / "shards").iterdir():
        path.unlink()
    server.refuse_from, server.refuse_with = 1, 503
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", PRIVATE]
    for _ in range(2):  # the failure is a new word on the clips; that does not make them lost either
        refused = mbt_data("refresh", *words)
        assert refused.returncode == 1 and "nothing was published" in refused.stderr, refused.stderr
        assert len(manifests(tmp_path / "out")) == 1
    server.refuse_from = None
    assert run("build")["splits"]["train"]["records"] == 3
    for path in [*(tmp_path / "out" / "shards").iterdir(), *(tmp_path / "out" / "media").rglob("*.mp4")][:3]:
        path.write_bytes(path.read_bytes()[:100])
    assert run("refresh")["splits"]["train"]["records"] == 3


@pytest.mark.parametrize("status", [404, 503])
def test_a_clip_stays_whose_media_are_lost_and_do_not_come_again(server, write_clips, run, tmp_path, status):
    """Its record is in a shard; only where that is lost too, and the source is gone for good, the clip is."""
    for number in range(3):
        server.files[f"clip{number}.mp4"] = server.films[number]
    write_clips({f"clip{number}": "a" for number in range(3)})
    run("build", "--num_shards=1")
    root = tmp_path / "out"
    shutil.rmtree(root / "media")
    server.refuse_from, server.refuse_with = len(server.requests) + 1, status
    kept = run("refresh")
    assert kept["new"] is False and kept["splits"]["train"]["records"] == 3
    assert run("status")["media_missing"] == 3
    if status == 404:
        for path in (root / "shards").iterdir():
            path.unlink()
        server.refuse_from = None
        del server.files["clip0.mp4"]
        lost = run("build")["splits"]["train"]
        assert (lost["records"], lost["lost"]) == (2, {"gone/http_404": 1})
        attempts = ledger.read(str(root), ["clip_id", "run", "attempt"])  # numbered on, though fetched twice in a run
        assert len(attempts.group_by(attempts.column_names).aggregate([])) == len(attempts)


def test_a_refresh_that_reaches_nobody_says_so(clip_folder, write_csv, mbt_data, tmp_path):
    files = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out"]
    with serving() as server:
        server.files = {"a.mp4": (clip_folder / "0.mp4").read_bytes()}
        write_csv(
            tmp_path / "clips.csv",
            [{"video_path": f"{server.url}/a.mp4", "start": 0, "end": 1, "label": "x", "id": "a"}],
        )
        assert mbt_data("build", *files, PRIVATE).returncode == 0
    done = mbt_data("refresh", *files, PRIVATE, NOW)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 clips that were asked for again gave no answer, such as 'a' (transient, connection)" in done.stdout
    status = mbt_data("status", *files).stdout
    assert "1 clips are kept whose sources did not answer" in status
    assert "not online" not in status


def test_a_fetch_that_got_nothing_is_no_success(clip_folder, write_csv, mbt_data, tmp_path):
    with serving() as server:
        url = f"{server.url}/a.mp4"
    write_csv(tmp_path / "clips.csv", [{"video_path": url, "start": 0, "end": 1, "label": "x", "id": "a"}])
    files = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out"]
    done = mbt_data("fetch", *files, PRIVATE)
    assert done.returncode == 1 and "1 clips left to try" in done.stdout
    refused = mbt_data("fetch", *files)
    assert "private_host: --allow_private_hosts lets rows name hosts of your own network" in refused.stdout
