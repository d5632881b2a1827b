"""`mbt-data purge`: not a byte of a clip is left, every other record is as it was, and a kill does no harm."""

import base64
import contextlib
import csv
import functools
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from media_server import PRIVATE

from mbt.pipeline import fetch, fetching, ffmpeg, ledger, media, storage, tombstones
from mbt.pipeline.main import main
from mbt.pipeline.needles import FRAME, MEDIA, Needles
from mbt.pipeline.s3_client import client
from mbt.pipeline.verify import ALL, VerifyOptions, verify
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Manifest

PURGED = "clip-3"  # in one shard with clip-1, whose labels change


@pytest.fixture(scope="module")
def built(mbt_data, write_csv, clip_folder, six_rows, tmp_path_factory) -> Path:
    """Three snapshots of clips that were downloaded; the last one was deleted and left its shards as orphans."""
    folder = tmp_path_factory.mktemp("purge")
    with served(clip_folder) as url:
        rows = [row | {"video_path": f"{url}/{row['video_path']}"} for row in six_rows]
        for name, changed in {"a": {}, "b": {"label": "even"}, "c": {"label": "all"}}.items():
            write_csv(folder / "clips.csv", [rows[0], rows[1] | changed, *rows[2:]])
            build(mbt_data, folder, name)
    shutil.rmtree(folder / "out/snapshots/c")
    write_csv(folder / "clips.csv", rows)
    (folder / "ids.txt").write_text(f"{PURGED}\t\r\n nobody\n")  # blanks are no part of an id
    return folder


@contextlib.contextmanager
def served(folder: Path):
    """A server of the files in a folder; yields its URL."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def build(mbt_data, folder: Path, name: str, output: str = "out") -> dict:
    words = [f"--annotations={folder}/clips.csv", f"--output={folder}/{output}", "--name=clips", PRIVATE]
    done = mbt_data("build", *words, "--num_shards=2", f"--snapshot={name}", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def own(built, tmp_path) -> Path:
    """A copy, with a report that shows a frame."""
    folder = Path(shutil.copytree(built, tmp_path / "own"))
    (frame, *_), _ = pieces(folder / "out", "a", PURGED)
    page = f"<img src='data:image/jpeg;base64,{base64.b64encode(frame).decode()}'>"
    (folder / "out/snapshots/a/report.html").write_text(page)
    return folder


def purge(mbt_data, folder: Path, *words: str):
    return mbt_data("purge", f"--output={folder}/out", f"--clips={folder}/ids.txt", "--reason=takedown 7", *words)


def manifest_of(root: Path, name: str) -> Manifest:
    return Manifest.from_json((root / "snapshots" / name / "manifest.json").read_text())


def payloads(root: Path, name: str) -> dict[str, bytes]:
    """Clip id to the bytes of its record in a snapshot."""
    found = {}
    for split in manifest_of(root, name).splits.values():
        for shard in split.shards:
            data = (root / shard.path).read_bytes()
            index = shard_index.load((root / shard.index_path).read_bytes())
            for clip_id, row in zip(index.ids, index.records, strict=True):
                found[clip_id] = data[int(row["offset"]) :][: int(row["length"])]
    return found


def pieces(root: Path, name: str, clip_id: str) -> tuple[list[bytes], list[bytes]]:
    """Frames and spectrogram steps of a clip."""
    for split in manifest_of(root, name).splits.values():
        for shard in split.shards:
            index = shard_index.load((root / shard.index_path).read_bytes())
            if clip_id in index.ids:
                data, place = (root / shard.path).read_bytes(), index.ids.index(clip_id)
                cut = [data[int(at) :][: int(length)] for at, length, _ in [*index.frames(place), *index.steps(place)]]
                return cut[: len(index.frames(place))], cut[len(index.frames(place)) :]
    raise AssertionError(clip_id)


def media_of(root: Path, clip_id: str) -> list[Path]:
    attempts = [row for path in root.glob("ledger/*/*.parquet") for row in pq.read_table(path).to_pylist()]
    return [root / media for media in {row["media"] for row in attempts if row["clip_id"] == clip_id}]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def everything(root: Path) -> list[bytes]:
    """All that must not be found any more, in blocks of 4 KiB where it is media."""
    frames, steps = pieces(root, "a", PURGED)
    media = [path.read_bytes() for path in media_of(root, PURGED)]
    return [*frames, *steps, *(data[at : at + 4096] for data in media for at in range(0, len(data) - 4096, 4096))]


def rows_of(root: Path, name: str) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(root / "snapshots" / name / "clips.parquet").to_pylist()}


def test_a_dry_run_changes_nothing(own, mbt_data):
    before = contents(own / "out")
    done = purge(mbt_data, own)
    assert done.returncode == 0, done.stderr
    assert "3 records in 3 shard files, 1 media files" in done.stdout  # in a, in b and in the orphan
    assert "snapshots to amend: a, b" in done.stdout and "1 are not known here" in done.stdout
    assert "add --yes" in done.stdout
    assert contents(own / "out") == before


def test_nothing_is_left_and_all_else_is_as_it_was(own, mbt_data, write_csv):
    root = own / "out"
    wanted = everything(root)
    assert len(wanted) > 27
    records = {name: payloads(root, name) for name in "ab"}
    manifests = {name: manifest_of(root, name) for name in "ab"}
    done = purge(mbt_data, own, "--yes")
    assert done.returncode == 0, done.stderr
    assert "for 25 frames, 1 spectrogram steps" in done.stdout and "none is left" in done.stdout
    assert "search" in done.stderr  # a bar
    found = contents(root)
    assert not [path for path, data in found.items() for piece in wanted if piece in data]
    assert not [path for path in found if path.endswith("report.html") or path.startswith("purge")]
    assert not any(path.exists() for path in media_of(root, PURGED))
    for name in "ab":
        assert payloads(root, name) == {clip: data for clip, data in records[name].items() if clip != PURGED}
        check_amended(root, manifests[name], manifest_of(root, name))
        row = rows_of(root, name)[PURGED]
        assert (row["outcome"], row["reason"], row["source"], row["labels"]) == ("invalid", "purged", "", [])
    assert verify(VerifyOptions(root=str(root), snapshot=ALL)).problems == ()
    tombstones = json.loads((root / "tombstones.json").read_text())["clips"]
    assert set(tombstones) == {PURGED, "nobody"} and tombstones[PURGED]["reason"] == "takedown 7"


def check_amended(root: Path, before: Manifest, after: Manifest) -> None:
    (amendment,) = after.amended
    assert (amendment.reason, amendment.num_clips) == ("takedown 7", 1)
    assert (amendment.old_clips_sha256, amendment.new_clips_sha256) == (before.clips_sha256, after.clips_sha256)
    clips = (root / "snapshots" / after.snapshot / "clips.parquet").read_bytes()
    assert hashlib.sha256(clips).hexdigest() == after.clips_sha256
    (change,) = amendment.shards
    old, new = (
        {shard.path: shard.crc32c for split in manifest.splits.values() for shard in split.shards}
        for manifest in (before, after)
    )
    assert old[change.old_path] == change.old_crc32c and new[change.new_path] == change.new_crc32c
    assert {**old, change.new_path: change.new_crc32c}.items() >= new.items() and change.old_path not in new
    train = after.splits["train"]
    assert (train.num_clips, train.num_records, train.lost) == (4, 3, {"invalid/purged": 1})
    assert after.splits["test"] == before.splits["test"]


def test_the_amended_snapshot_is_that_of_a_build_without_the_clip(own, mbt_data, write_csv, six_rows, clip_folder):
    """Shards, sums and statistics too; and no later build brings the clip back, or builds anything."""
    root = own / "out"
    assert purge(mbt_data, own, "--yes").returncode == 0
    again = build(mbt_data, own, "again")
    assert (again["shards_built"], again["splits"]["train"]["lost"]) == (0, {"invalid/purged": 1})
    assert again["notes"] == []  # a purged clip is no bad row
    assert manifest_of(root, "again").splits == manifest_of(root, "a").splits


def test_purged_twice_ends_the_same(own, mbt_data):
    assert purge(mbt_data, own, "--yes").returncode == 0
    before = contents(own / "out")
    done = purge(mbt_data, own, "--yes")
    assert done.returncode == 0 and "snapshots to amend: none" in done.stdout
    assert contents(own / "out") == before


def test_a_second_purge_leaves_what_was_said_of_the_first(own, mbt_data):
    root = own / "out"
    assert purge(mbt_data, own, "--yes").returncode == 0
    (own / "ids.txt").write_text("clip-2\n")
    done = mbt_data("purge", f"--output={root}", f"--clips={own}/ids.txt", "--reason=takedown 8", "--yes")
    assert done.returncode == 0, done.stderr
    assert [(one.reason, one.num_clips) for one in manifest_of(root, "a").amended] == [
        ("takedown 7", 1),
        ("takedown 8", 1),
    ]
    rows = rows_of(root, "a")
    assert (rows[PURGED]["detail"], rows["clip-2"]["detail"]) == ("takedown 7", "takedown 8")
    assert verify(VerifyOptions(root=str(root), snapshot=ALL)).problems == ()


def test_readers_know_an_amended_snapshot(own, mbt_data):
    """The purged clip is one that was lost, with nothing known of it."""
    root = own / "out"
    assert purge(mbt_data, own, "--yes").returncode == 0
    build(mbt_data, own, "again")
    for words in (["diff", "a", "again"], ["show", "a"], ["list"], ["report", "--snapshot=a"]):
        done = mbt_data(*words, f"--output={root}")
        assert done.returncode == 0, done.stderr
    done = mbt_data("export", f"--output={root}", "--snapshot=a", "--layout=scenic", own / "exported")
    assert done.returncode == 0, done.stderr


def test_names_outside_of_root_are_said(own, mbt_data):
    """An export by hard links: its bytes are not gone with our name for them."""
    shard = next(path for path in (own / "out/shards").glob("train-*.tfrecord") if PURGED in str(path.read_bytes()))
    (own / "export").mkdir()
    (own / "export" / "train-00000-of-00002").hardlink_to(shard)
    done = purge(mbt_data, own)
    assert "1 of these files have other names outside of" in done.stdout and shard.name in done.stdout


def test_what_the_ledger_alone_knows_goes_too(own, mbt_data):
    """Media of a clip that never came into a snapshot, and whose row of success was lost with its worker."""
    root = own / "out"
    span = ("http://nowhere.invalid/late.mp4", 0, 1_000_000)
    with ledger.Writer(str(root), 9) as writer:
        row = {"id": "late", "source": span[0], "start_us": span[1], "end_us": span[2]}
        fetching.append(writer, row, 1, fetch.Fetched(outcome=Outcome.TRANSIENT, reason="timeout"))
    orphan = root / media.name(media.key(*span), "0123456789abcdef", 0, "mp4")
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"of this clip" * 500)
    (root / "snapshots/unfinished").mkdir()
    (root / "snapshots/unfinished/clips.parquet").write_bytes(b"of a build that was killed")
    (own / "ids.txt").write_text("late\n")
    done = purge(mbt_data, own, "--yes")
    assert done.returncode == 0 and "not known here" not in done.stdout
    assert not orphan.exists() and not (root / "snapshots/unfinished").exists()


# Kills itself before the n-th change of a file, for each n, in a copy of its own.
_KILLED = """
import os, shutil, signal, sys
from mbt.pipeline import purge
options = lambda root: purge.PurgeOptions(root=root, clip_ids=frozenset({"clip-3"}), reason="takedown 7", delete=True)

def killing(function, left):
    def call(*arguments, **named):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

n, killed = 0, True
while killed:
    root = shutil.copytree(sys.argv[1], f"{sys.argv[2]}/{n}")
    child = os.fork()
    if not child:
        left = [n]
        for name in ("replace", "unlink", "rmdir"):
            setattr(os, name, killing(getattr(os, name), left))
        purge.purge(options(root))
        os._exit(0)
    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
    n += 1
"""


def settled(root: Path) -> dict[str, object]:
    """All files, without the times that are in them."""
    found: dict[str, object] = dict(contents(root))
    for name in "ab":
        manifest = json.loads(found.pop(f"snapshots/{name}/manifest.json"))
        for amendment in manifest["amended"]:
            amendment.pop("time")
        found[name] = manifest
    found["tombstones.json"] = sorted(json.loads(found["tombstones.json"])["clips"])
    return found


@pytest.mark.slow
def test_killed_at_any_moment_the_snapshots_are_readable_and_it_ends_the_same(own, tmp_path, mbt_data):
    (own / "ids.txt").write_text(f"{PURGED}\n")
    wanted = everything(own / "out")
    others = {name: set(payloads(own / "out", name)) - {PURGED} for name in "ab"}
    (tmp_path / "killed").mkdir()
    subprocess.run([sys.executable, "-W", "ignore", "-c", _KILLED, own / "out", tmp_path / "killed"], check=True)
    roots = sorted((tmp_path / "killed").iterdir(), key=lambda path: int(path.name))
    assert len(roots) > 15
    expected = settled(roots[-1])  # the one that was not killed
    for root in roots[:-1]:
        for name in "ab":
            assert set(payloads(root, name)) - {PURGED} == others[name]
    told = 0
    for root in roots[:-1]:
        for name in "ab":
            if (root / "tombstones.json").exists() and PURGED in payloads(root, name):
                assert verify(VerifyOptions(root=str(root), snapshot=name)).problems, (root.name, name)
                told += 1
        finish(root)
        assert settled(root) == expected
    assert told
    assert not [path for path, data in contents(roots[0]).items() for piece in wanted if piece in data]


def finish(root: Path) -> None:
    from mbt.pipeline import purge as purging

    ids = frozenset({PURGED})
    options = purging.PurgeOptions(root=str(root), clip_ids=ids, reason="takedown 7", delete=True)
    _, proof = purging.purge(options)
    assert proof is not None and proof.left == ()


def test_another_clip_of_the_same_seconds_is_named(mbt_data, write_csv, clip_folder, six_rows, tmp_path):
    """Nothing is done until it is said that it goes too."""
    rows = [six_rows[0], six_rows[0] | {"id": "twin", "start": 0.4}, six_rows[1]]
    write_csv(tmp_path / "clips.csv", rows)
    words = [f"--annotations={tmp_path}/clips.csv", f"--media_root={clip_folder}", f"--output={tmp_path}/out"]
    assert mbt_data("build", *words, "--num_shards=1").returncode == 0
    (tmp_path / "ids.txt").write_text("clip-0\n")
    done = purge(mbt_data, tmp_path, "--yes")
    assert done.returncode == 1, done.stderr
    assert "1 other clips show a part of the same time of the same source: twin" in done.stdout
    done = purge(mbt_data, tmp_path, "--yes", "--overlapping=drop")
    assert done.returncode == 0, done.stderr
    assert f"sources on this machine stay where they are: {clip_folder}/0.mp4" in done.stdout
    assert "go too: twin" in done.stdout and "none is left" in done.stdout
    assert purge(mbt_data, tmp_path, "--yes").returncode == 0
    dead = tombstones.read(f"{tmp_path}/out")
    assert dead["twin"]["overlaps"] and "overlaps" not in dead["clip-0"]
    (tmp_path / "ids.txt").write_text("twin\n")
    flags = (f"--output={tmp_path}/out", f"--clips={tmp_path}/ids.txt", "--reason=named", "--yes")
    assert mbt_data("purge", *flags).returncode == 0
    named = tombstones.read(f"{tmp_path}/out")
    assert "overlaps" not in named["twin"] and named["twin"]["reason"] == "named"
    assert named["twin"]["spans"] == dead["twin"]["spans"] and named["clip-0"] == dead["clip-0"]


def test_a_clip_that_shows_the_very_same_frames_is_named(mbt_data, write_csv, clip_folder, six_rows, tmp_path):
    """Those of another source, of which nothing here knows that it is the same: they stay, and the proof says whose."""
    shutil.copytree(clip_folder, tmp_path / "clips")
    shutil.copy(tmp_path / "clips/0.mp4", tmp_path / "clips/twin.mp4")
    with open(tmp_path / "clips/twin.mp4", "ab") as file:  # another digest
        file.write(b"\0\0\0\x08free")
    rows = [six_rows[0], six_rows[0] | {"id": "twin", "video_path": "twin.mp4"}, six_rows[1]]
    write_csv(tmp_path / "clips.csv", rows)
    words = [f"--annotations={tmp_path}/clips.csv", f"--media_root={tmp_path}/clips", f"--output={tmp_path}/out"]
    assert mbt_data("build", *words, "--num_shards=1").returncode == 0
    (tmp_path / "ids.txt").write_text("clip-0\n")
    done = purge(mbt_data, tmp_path, "--yes")
    assert done.returncode == 0, done.stdout
    assert "clip twin, which stays, holds the same bytes" in done.stdout and "its own source shows" in done.stdout
    assert done.stdout.endswith("none is left but what stays\n")


def test_another_clip_of_the_very_same_span_is_in_the_way(own, mbt_data, write_csv, clip_folder):
    """The two have one file in the store; without the other it would be the only one to stay."""
    with open(own / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    twin = next(row for row in rows if row["id"] == PURGED) | {"id": "twin"}
    root = own / "out"
    with served(clip_folder) as url:
        rows = [row | {"video_path": f"{url}/{row['video_path'].rpartition('/')[2]}"} for row in [*rows, twin]]
        write_csv(own / "clips.csv", rows)
        build(mbt_data, own, "with-twin", output="twins")
        before = payloads(own / "twins", "with-twin")
    shutil.rmtree(root)
    (own / "twins").rename(root)
    assert purge(mbt_data, own, "--yes").returncode == 1
    done = purge(mbt_data, own, "--yes", "--overlapping=drop")
    assert done.returncode == 0, done.stdout
    assert "1 media files" in done.stdout and "go too: twin" in done.stdout
    gone = (PURGED, "twin")
    assert payloads(root, "with-twin") == {clip: data for clip, data in before.items() if clip not in gone}
    assert verify(VerifyOptions(root=str(root))).problems == ()
    again = build(mbt_data, own, "again")  # from a server that is gone
    assert (again["clips_decoded"], again["splits"]["train"]["records"]) == (0, 3)


def test_what_it_cannot_delete_is_said(own, mbt_data):
    """Somebody keeps a frame where no purge looks for one."""
    frames, _ = pieces(own / "out", "a", PURGED)
    (own / "out/notes").mkdir()
    (own / "out/notes/x.bin").write_bytes(b"abc" + frames[4] + b"def")
    done = purge(mbt_data, own, "--yes")
    assert done.returncode == 1
    assert f"left: {len(frames[4])} bytes at 3 of notes/x.bin (frames)" in done.stdout
    assert "a purge was interrupted" in mbt_data("verify", f"--output={own}/out").stdout
    (own / "out/notes/x.bin").unlink()
    assert purge(mbt_data, own, "--yes").returncode == 0
    assert mbt_data("verify", f"--output={own}/out", "--snapshot=all").returncode == 0


def test_an_ffmpeg_that_is_stopped_ends_it_and_the_same_command_goes_on(own, mbt_data, capsys, monkeypatch, tmp_path):
    stopped = tmp_path / "ffmpeg"
    stopped.write_text("#!/bin/sh\nkill -TERM $$\n")
    stopped.chmod(0o755)
    words = [f"--output={own}/out", f"--clips={own}/ids.txt", "--reason=r", "--yes"]
    with monkeypatch.context() as patched:
        patched.setattr(ffmpeg, "executable", lambda path=None: str(stopped))
        assert main(["purge", *words]) == 1
    said = capsys.readouterr().err
    assert "ffmpeg was stopped by signal 15" in said and "run the same command again" in said
    assert "none is left" in purge(mbt_data, own, "--yes").stdout


@pytest.mark.parametrize("damage", ["index", "table", "manifest"])
def test_a_damaged_snapshot_is_refused(own, mbt_data, damage):
    root = own / "out"
    shard = next(shard for shard in manifest_of(root, "a").splits["train"].shards if shard.num_records)
    names = {"table": "snapshots/a/clips.parquet", "manifest": "snapshots/a/manifest.json"}
    path = root / names.get(damage, shard.index_path)
    path.write_bytes(path.read_bytes()[:-3])
    before = contents(root)
    done = purge(mbt_data, own, "--yes")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert contents(root) == before


def test_flags(own, mbt_data):
    (own / "ids.txt").write_text("\n")
    done = purge(mbt_data, own)
    assert done.returncode == 2 and "names no clip" in done.stderr
    (own / "ids.txt").unlink()
    done = purge(mbt_data, own)
    assert done.returncode == 2 and "--clips=" in done.stderr


def test_the_search_finds_pieces_wherever_they_lie(tmp_path):
    """At the seams of the chunks in which a file is read too; and not what differs in a byte."""
    import numpy as np

    random = np.random.default_rng(0)
    piece = random.bytes(9000)
    needles = Needles.of([(FRAME, piece), (MEDIA, bytes(500)), (MEDIA, piece[:100])])
    assert (len(needles), needles.plain) == (2, 1)
    seam = 1 << 23
    data = bytearray(random.bytes(2 * seam + 100))
    for at in (0, seam - 8990, seam - 5, 2 * seam - 8900):
        copy = bytearray(data)
        copy[at : at + len(piece)] = piece
        (tmp_path / "file").write_bytes(copy)
        hits = {(hit.offset, hit.length) for hit in needles.search(str(tmp_path), "file")}
        assert hits == {(at, 9000), (at, 100)}
        copy[at + 7000] ^= 1
        (tmp_path / "file").write_bytes(copy)
        assert {(hit.offset, hit.length) for hit in needles.search(str(tmp_path), "file")} == {(at, 100)}


def test_the_whole_road_on_a_bucket(store, capsys, write_csv, clip_folder, six_rows, tmp_path):
    """Build, refresh, diff, verify, purge and gc on gs:// and s3://, media too, and what is said of deleted objects."""
    root = store.root("purged")
    words = [f"--annotations={tmp_path}/clips.csv", f"--output={root}", PRIVATE]

    def run(command: str, *flags: str) -> str:
        capsys.readouterr()
        assert main([command, *flags]) == 0, capsys.readouterr()
        return capsys.readouterr().out

    with served(clip_folder) as url:
        rows = [row | {"video_path": f"{url}/{row['video_path']}"} for row in six_rows]
        write_csv(tmp_path / "clips.csv", rows[:5])
        run("build", *words, "--num_shards=2")
        write_csv(tmp_path / "clips.csv", [rows[0] | {"video_path": f"{url}/gone.mp4"}, *rows[1:]])
        refreshed = json.loads(run("refresh", *words, "--older_than=0s", "--recheck=ok,gone", "--json"))
    assert refreshed["clips_decoded"] == 1 and refreshed["splits"]["train"]["lost"] == {"gone/http_404": 1}
    changes = run("diff", f"--output={root}", "latest~1", "latest")
    assert "1 gained" in changes and "1 lost" in changes
    assert "5 media files" in run("verify", f"--output={root}", "--snapshot=latest")
    storage.write(store.root("ids.txt"), f"{PURGED}\n".encode())
    purged = run("purge", f"--output={root}", f"--clips={store.root('ids.txt')}", "--reason=r", "--yes")
    assert "1 media files" in purged and "none is left" in purged
    assert ("soft delete" in purged) == (store.scheme == "gs")  # the bucket of s3 has no versions, and says so
    run("verify", f"--output={root}", "--snapshot=all")
    if store.scheme == "s3":
        client().create_multipart_upload(Bucket="bucket", Key="purged/shards/killed")
        assert "1  0.0 MB  uploads that were never finished" in run("gc", f"--output={root}", "--older_than=0s")
        run("gc", f"--output={root}", "--older_than=0s", "--yes")
    assert "nothing to delete" in run("gc", f"--output={root}", "--older_than=0s", "--yes")
