"""`mbt-data fetch`, `import` and `status`, as a user runs them, against real servers."""

import collections
import contextlib
import json
import os
import re
import shutil
import struct
import threading
import time
import zlib
from pathlib import Path

import hostile_media
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_server import Running
from media_server import PRIVATE, serving

from mbt.pipeline import breaker, copies, ffmpeg, ledger, media, storms
from mbt.schemas.clip import Outcome

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture
def server(clip_folder):
    with serving() as running:
        for path in clip_folder.glob("*.mp4"):
            running.files[path.name] = path.read_bytes()
        yield running


@pytest.fixture
def clips(server, write_csv, tmp_path):
    """clips(paths) writes `clips.csv`: a row for each path on the server."""

    def write(paths: list[str], **columns) -> Path:
        rows = [
            {"video_path": f"{server.url}/{path}", "start": 0, "end": 1, "label": "a", "id": path} | columns
            for path in paths
        ]
        return write_csv(tmp_path / "clips.csv", rows)

    return write


def words(folder: Path, *more: str) -> list[str]:
    return [f"--annotations={folder}/clips.csv", f"--output={folder}/out", *more]


def ours(folder: Path, *more: str) -> list[str]:
    """Words for a command that fetches from this test's server."""
    return words(folder, PRIVATE, *more)


def outcomes(root: Path) -> dict[str, tuple[str, str]]:
    return {row["clip_id"]: (row["outcome"], row["reason"]) for row in ledger.state(str(root)).to_pylist()}


def stored(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "media").rglob("*") if path.is_file())


def test_every_failure_has_its_outcome_and_nothing_partial_is_stored(server, clips, mbt_data, tmp_path):
    server.files["page.mp4"] = b"<!doctype html><html>sorry</html>"
    expected = {
        "0.mp4": ("ok", ""),
        "cut_once/1.mp4": ("ok", ""),
        "page.mp4": ("unusable", "not_media"),
        "none.mp4": ("gone", "http_404"),
        "410/x.mp4": ("gone", "http_410"),
        "451/x.mp4": ("restricted", "http_451"),
        "403/x.mp4": ("blocked", "http_403"),
        "500/x.mp4": ("transient", "http_500"),
        "loop/x.mp4": ("transient", "redirect_loop"),
        "cut/2.mp4": ("transient", "cut_short"),
        "short/3.mp4": ("transient", "cut_short"),
        "huge/x.mp4": ("unusable", "too_large"),
    }
    clips(list(expected))
    done = mbt_data("fetch", *ours(tmp_path, "--json"))
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path / "out") == expected
    assert len(stored(tmp_path / "out")) == 2 and not (tmp_path / "out" / "tmp").exists()
    split = json.loads(done.stdout)["splits"]["train"]
    assert split["annotated"] == 12 and split["ok"] == 2 and split["transient"] == 4
    # Again, with the server well: only what is left is asked for.
    server.requests.clear()
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    assert {
        path for path in server.requests if not path.startswith(("403", "451", "500", "loop", "cut/", "short"))
    } == {"page.mp4"}


def test_a_storm_of_refusals_stops_the_run_and_loses_nothing(server, clips, mbt_data, tmp_path):
    names = [f"{number:03d}.mp4" for number in range(200)]
    server.files |= dict.fromkeys(names, server.files["0.mp4"])
    clips(names)
    server.refuse_from = 50
    for flags in ((), PROCESSES):
        done = mbt_data("build", *ours(tmp_path, *flags))
        assert done.returncode == 1 and "stopped early" in done.stderr and "429" in done.stderr, done.stderr
        assert len(server.requests) < 150
        kinds = collections.Counter(outcome for outcome, _ in outcomes(tmp_path / "out").values())
        assert 30 <= kinds["ok"] < 50 and set(kinds) == {"ok", "blocked"}
        assert not (tmp_path / "out" / "snapshots").exists() and not (tmp_path / "out" / "dataset.json").exists()
    server.refuse_from = None
    server.complete.clear()
    done = mbt_data("build", *ours(tmp_path, "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["records"] == 200
    assert set(server.complete.values()) == {1} and len(server.complete) < 170


@pytest.mark.parametrize("moments", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed_downloads_nothing_twice(server, clips, mbt_data, tmp_path, moments):
    names = [f"{number:03d}.mp4" for number in range(300)]
    server.files |= dict.fromkeys(names, server.files["0.mp4"])
    server.latency_s = 0.05
    clips(names)
    in_flight, seen = 0, 0
    for moment in range(moments):
        process = mbt_data.start("fetch", *ours(tmp_path))
        before = len(server.requests)
        wait_until(lambda: len(server.requests) >= before + 10 or process.poll() is not None)  # noqa: B023
        time.sleep(0.1 + 0.37 * moment % 1)
        kill(process)
        in_flight += server.at_a_time + 16  # asked for, or come and not yet stored
        rows = ledger.read(str(tmp_path / "out"))  # reads every file: none is torn
        assert len(rows) >= seen
        seen = len(rows)
        for name in stored(tmp_path / "out"):
            assert media.is_whole(name, media.digest_of(str(next((tmp_path / "out").rglob(name))))[0])
    done = mbt_data("fetch", *ours(tmp_path))
    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path / "out") == dict.fromkeys(names, ("ok", ""))
    assert len(server.requests) <= 300 + in_flight
    assert len(stored(tmp_path / "out")) == 300 and not (tmp_path / "out" / "tmp").exists()


def kill(process: Running) -> None:
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):  # it came to its end
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=300)
    assert not alive


def wait_until(true) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def test_two_parts_at_once_download_nothing_twice(server, clips, mbt_data, tmp_path):
    names = [f"{number:02d}.mp4" for number in range(60)]
    server.files |= dict.fromkeys(names, server.files["0.mp4"])
    server.gate.clear()
    clips(names)
    parts = [mbt_data.start("fetch", *ours(tmp_path, f"--part={part}/2")) for part in (1, 2)]
    wait_until(lambda: server.at_a_time == 8)  # the machine's budget, which the two share
    refused = mbt_data("fetch", *ours(tmp_path))
    assert refused.returncode == 2 and "is being written by process" in refused.stderr, refused.stderr
    server.gate.set()
    assert [part.wait(timeout=300) for part in parts] == [0, 0]
    assert collections.Counter(server.requests) == dict.fromkeys(names, 1)
    assert outcomes(tmp_path / "out") == dict.fromkeys(names, ("ok", ""))


def test_downloads_at_a_time_are_the_machines(server, clips, mbt_data, tmp_path):
    names = [f"{number:02d}.mp4" for number in range(30)]
    server.files |= dict.fromkeys(names, server.files["0.mp4"])
    server.latency_s = 0.1
    clips(names)
    assert mbt_data("fetch", *ours(tmp_path, "--downloads=3", *PROCESSES)).returncode == 0
    assert server.most_at_a_time == 3


def test_a_budget_of_attempts_begins_with_what_was_never_tried(server, clips, mbt_data, tmp_path):
    clips(["500/a.mp4", "0.mp4", "1.mp4"])
    for _ in range(3):
        assert mbt_data("fetch", *ours(tmp_path, "--max_attempts=1")).returncode == 0
    assert len(outcomes(tmp_path / "out")) == 3


def test_many_clips_of_one_long_source_are_fetched_once_and_cut(
    server, clips, make_media, mbt_data, write_csv, tmp_path
):
    long = make_media(tmp_path / "long.mp4", seconds=60, options=("-g", "50"))
    server.files["long.mp4"] = long.read_bytes()
    clips(["long.mp4"])
    spans = [(3, 5), (20.5, 22), (57, 60), (61, 62)]
    rows = [
        {"video_path": f"{server.url}/long.mp4", "start": start, "end": end, "label": "a", "id": f"c{start}"}
        for start, end in spans
    ]
    write_csv(tmp_path / "clips.csv", rows)
    assert mbt_data("build", *ours(tmp_path)).returncode == 0
    assert server.requests == ["long.mp4"]
    assert len(stored(tmp_path / "out")) == 3
    assert sum(path.stat().st_size for path in (tmp_path / "out" / "media").rglob("*.mp4")) < long.stat().st_size / 2
    assert outcomes(tmp_path / "out")["c61"] == ("unusable", "start_past_end")
    # The same clips, read from the file itself, are the same picture by picture.
    whole = tmp_path / "whole"
    whole.mkdir()
    write_csv(whole / "clips.csv", [row | {"video_path": str(long)} for row in rows])
    assert mbt_data("build", *ours(whole)).returncode == 0
    assert frames(tmp_path / "out") == frames(whole / "out")


def frames(root: Path) -> dict[str, list[bytes]]:
    """The pictures and spectrograms of every record, without what names its source."""
    import tensorflow as tf

    found = {}
    for path in sorted((root / "shards").glob("*.tfrecord")):
        for payload in tf.data.TFRecordDataset(str(path)):
            example = tf.train.SequenceExample.FromString(payload.numpy())
            name = example.context.feature["example/id"].bytes_list.value[0].decode()
            lists = example.feature_lists.feature_list
            found[name] = [
                *(feature.bytes_list.value[0] for feature in lists["image/encoded"].feature),
                *(feature.SerializeToString() for feature in lists["melspec/feature/floats"].feature),
            ]
    return found


HOSTILE = {
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXTINF:10,\n{other}/0.mp4\n",
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{other}/0.mp4\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile /etc/passwd\nfile {other}/0.mp4\n",
    "dash.mpd": '<?xml version="1.0"?><MPD><Period><BaseURL>{other}/0.mp4</BaseURL></Period></MPD>',
    "svg.mp4": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{other}/0.mp4"/></svg>',
}


def test_hostile_media_reach_nothing_else(server, clips, clip_folder, make_media, mbt_data, tmp_path):
    with serving() as other:
        other.files["0.mp4"] = server.files["0.mp4"]
        elsewhere = f"http://localhost:{other.server_port}"
        for name, text in HOSTILE.items():
            server.files[name] = text.format(other=other.url).encode()
        server.files["drefs.mp4"] = with_external_references(server.files["0.mp4"], clip_folder / "1.mp4")
        server.files["bomb.png"] = png(60_000, 60_000)
        bomb = make_media(tmp_path / "bomb.mkv", size="16384x8", seconds=0.04)
        server.files["bomb.mkv"] = bomb.read_bytes().replace((16384).to_bytes(2, "big"), (60_000).to_bytes(2, "big"))
        clips([*HOSTILE, "drefs.mp4", "bomb.png", "bomb.mkv", f"to/x?{elsewhere}/0.mp4"])
        done = mbt_data("build", *ours(tmp_path, "--allow_loss=1"))
        assert done.returncode == 1 and "no clip would be a record" in done.stderr, done.stderr
        assert other.requests == []
    found = outcomes(tmp_path / "out")
    assert found.pop(f"to/x?{elsewhere}/0.mp4") == ("transient", "bad_redirect")
    assert {outcome for outcome, _ in found.values()} == {"unusable"}, found
    assert stored(tmp_path / "out") == []


def with_external_references(mp4: bytes, target: Path) -> bytes:
    """An MP4 whose samples lie in another file: QuickTime aliases in place of "in this file" (its `dref` atoms).

    The alias has the layout that ffmpeg reads: 150 bytes of names and levels, then (type, length, text) with 2 a path.
    """
    name = str(target).encode()
    alias = bytes(150) + struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + b"\xff\xff\0\0"
    entry = struct.pack(">I", len(alias) + 12) + b"alis" + bytes(4) + alias
    own = b"\0\0\0\x0curl \0\0\0\x01"
    parents = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"]
    assert mp4.index(b"moov") > mp4.index(b"mdat")  # so that what grows moves no sample
    while (at := mp4.find(own)) >= 0:
        data = bytearray(mp4)
        for parent in parents:
            head = mp4.rindex(parent, 0, at) - 4
            (size,) = struct.unpack_from(">I", data, head)
            struct.pack_into(">I", data, head, size + len(entry) - len(own))
        data[at : at + len(own)] = entry
        mp4 = bytes(data)
    return mp4


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG that promises this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_hostile_ids_touch_nothing_outside(server, mbt_data, tmp_path):
    ids = [
        "../../up",
        "/abs",
        "a/b",
        'q"uote',
        "-rf",
        "$(touch x)",
        "con",
        "Case",
        "case",
        "CASE",
        "x" * 300,
        "ä\u202e",
    ]
    lines = ["video_path,start,end,label,id"]
    lines += [
        f'{server.url}/{n % 6}.mp4,0,{0.5 + n / 100},a,"{i.replace(chr(34), chr(34) * 2)}"' for n, i in enumerate(ids)
    ]
    lines += [f"{server.url}/0.mp4,0,1,a,nul\0byte", f"http://u:secret@{server.url[7:]}/0.mp4,0,1,a,login"]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    done = mbt_data("build", *ours(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {name for name, (outcome, _) in outcomes(tmp_path / "out").items() if outcome == "ok"} == set(ids)
    assert {path.name for path in tmp_path.iterdir()} == {"clips.csv", "out"}
    assert len({name.lower() for name in stored(tmp_path / "out")}) == len(ids)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path


def test_status_counts_and_knows_what_is_left(server, clips, mbt_data, tmp_path):
    clips(["0.mp4", "none.mp4", "500/x.mp4", "403/x.mp4"], split="eval")
    before = mbt_data("status", *words(tmp_path))
    assert before.returncode == 2 and "nothing was ever fetched" in before.stderr
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    clips(["0.mp4", "none.mp4", "500/x.mp4", "403/x.mp4", "new.mp4"], split="eval")
    status = json.loads(mbt_data("status", *words(tmp_path, "--json")).stdout)
    split = status["splits"]["eval"]
    names = ("annotated", "ok", "gone", "transient", "blocked", "not_tried")
    assert [split[name] for name in names] == [5, 1, 1, 1, 1, 1]
    assert status["left"] == 3 and status["seconds_left"] > 0
    text = mbt_data("status", *words(tmp_path)).stdout
    assert "eval: 5 annotated" in text and "20.00 %  gone" in text and "gone/http_404" in text and "never tried" in text


@pytest.mark.parametrize("name", copies.PATTERNS)
def test_import_gives_the_records_of_fetching(name, server, write_csv, mbt_data, tmp_path):
    """Of clips whose source is the very file: once fetched, once adopted under the names that labs use."""
    ids = [f"abcdefghi{number:02d}" for number in range(3)]
    rows = [
        {"video_path": f"{server.url}/{clip}.mp4", "start": 0, "end": 1, "label": "a", "id": f"id-{number}"}
        for number, clip in enumerate(ids)
    ]
    folder = tmp_path / "copies" / "inner"
    folder.mkdir(parents=True)
    for number, row in enumerate(rows):
        body = server.files[f"{number}.mp4"]
        server.files[f"{ids[number]}.mp4"] = body
        path = copies.PATTERNS[name].format(
            ytid=ids[number], stem=ids[number], id=row["id"], start=0, end=1, start_ms=0, end_ms=1000, ext="mp4"
        )
        (folder / path).write_bytes(body)
    for kind in ("fetched", "adopted"):
        (tmp_path / kind).mkdir()
        write_csv(tmp_path / kind / "clips.csv", rows)
    assert mbt_data("build", *ours(tmp_path / "fetched")).returncode == 0
    server.requests.clear()
    done = mbt_data("import", tmp_path / "copies", f"--pattern={name}", *words(tmp_path / "adopted"))
    assert done.returncode == 0 and "3 clips have a copy" in done.stdout, (done.stdout, done.stderr)
    assert mbt_data("build", *ours(tmp_path / "adopted")).returncode == 0
    assert server.requests == []
    shards = [
        {path.name: path.read_bytes() for path in tmp_path.glob(f"{kind}/out/shards/*")}
        for kind in ("fetched", "adopted")
    ]
    assert shards[0] == shards[1] and shards[0]


def test_a_lab_copy_without_a_time_is_the_video_or_the_clip(make_media, mbt_data, tmp_path):
    (tmp_path / "copies").mkdir()
    make_media(tmp_path / "copies" / "abcdefghi00.mp4", seconds=8)
    make_media(tmp_path / "copies" / "abcdefghi01.mp4", seconds=2)
    (tmp_path / "copies" / "abcdefghi02.mp4").write_bytes(b"nothing")
    page = "https://www.youtube.com/watch?v="
    lines = ["video_path,start,end,label,id", *(f"{page}abcdefghi0{n},5,7,a,{n}" for n in range(3))]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    done = mbt_data("import", tmp_path / "copies", "--pattern=youtube", *words(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = {row["clip_id"]: row for row in ledger.state(str(tmp_path / "out")).to_pylist()}
    # A bad copy says nothing about its clip.
    assert [(rows[name]["outcome"], rows[name]["reason"]) for name in "012"] == [
        ("ok", ""),
        ("ok", ""),
        ("transient", "bad_copy"),
    ]
    assert [rows[name]["media_start_us"] for name in "01"] == [0, 5_000_000]


def test_a_second_copy_is_tried_where_the_first_is_bad_and_links_are_followed(make_media, mbt_data, tmp_path):
    lab, disk = tmp_path / "copies", tmp_path / "disk"
    (lab / "a").mkdir(parents=True)
    (lab / "a" / "abcdefghi00.mp4").write_bytes(b"nothing")  # the first by name
    (disk / "inner").mkdir(parents=True)
    make_media(disk / "inner" / "abcdefghi00.mp4", seconds=2)
    make_media(disk / "abcdefghi01.mp4", seconds=2)
    (lab / "b").symlink_to(disk)
    (disk / "inner" / "round").symlink_to(lab)  # and round again
    page = "https://www.youtube.com/watch?v="
    lines = ["video_path,start,end,label,id", *(f"{page}abcdefghi0{n},0,1,a,{n}" for n in range(2))]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    done = mbt_data("import", lab, "--pattern=youtube", *words(tmp_path))
    assert done.returncode == 0 and "2 clips have a copy" in done.stdout, (done.stdout, done.stderr)
    rows = {row["clip_id"]: row for row in ledger.state(str(tmp_path / "out")).to_pylist()}
    assert [rows[name]["outcome"] for name in "01"] == ["ok", "ok"]


def test_a_folder_whose_name_is_not_utf8_is_refused_in_one_line(make_media, mbt_data, tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"Gr\xf6\xdfe")
    os.mkdir(folder)
    (tmp_path / "clips.csv").write_text("video_path,start,end,label\na.mp4,0,1,a\n")
    make_media(tmp_path / "a.mp4", seconds=1)
    shutil.copy(tmp_path / "a.mp4", os.path.join(folder, b"a.mp4"))
    for flag in ("media_root", "output"):
        given = {"media_root": str(tmp_path), "output": str(tmp_path / "out"), flag: os.fsdecode(folder)}
        flags = [f"--{name}={value}" for name, value in given.items()]
        done = mbt_data("build", f"--annotations={tmp_path}/clips.csv", *flags)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert f"--{flag}=" in done.stderr and "is not UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        (["fetch", "--cookies=none"], "--cookies=none: no such file"),
        (["fetch", "--proxies=proxies"], "not a proxy"),
        (["fetch", "--part=3/2"], "--part"),
        (["fetch", "--bandwidth=much"], "--bandwidth"),
        (["fetch", "--downloads=0"], "--downloads"),
        (["fetch", "--runner=FlinkRunner", "--flink_master=localhost:1"], "--max_fetch_workers"),
        (["import", "none", "--pattern=youtube"], "none: no such folder"),
        (["import", ".", "--pattern={when}.mp4"], "{when} is not known"),
        (["import", ".", "--pattern=x.mp4"], "it needs a field"),
        (["import", ".", "--pattern=youtube"], "holds no file named like"),
        (["status", "--stray"], "unknown flag --stray"),
        (["fetch", "--dowloads=3"], "unknown flag --dowloads=3 (--dowloads: did you mean --downloads?)"),
        (["fetch", "--direct_num_worker=3"], "(--direct_num_worker: did you mean --direct_num_workers?)"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(mbt_data, clips, tmp_path, words_, message):
    clips(["0.mp4"])
    (tmp_path / "proxies").write_text("user:secret@nowhere")
    done = mbt_data(*words_, "--annotations=clips.csv", "--output=out", cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert message in line and "secret" not in line and not (tmp_path / "out").exists()


def test_doubt_becomes_loss_only_after_days(tmp_path):
    def attempt(run: int, day: int, outcome: str = "transient", reason: str = storms.DOUBT) -> None:
        row = dict.fromkeys(("attempt_id", "detail", "digest", "media", "signature", "tools"), "")
        row |= {"clip_id": "c", "run": run, "attempt": 1, "time": day * 86_400_000_000, "source": "s", "bytes": 0}
        row |= {"start_us": 0, "end_us": 1, "media_start_us": 0, "outcome": outcome, "reason": reason}
        path = tmp_path / "ledger" / f"{run:06d}" / "w-00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row], ledger.ATTEMPTS), path)

    def newest() -> str:
        return ledger.state(str(tmp_path)).to_pylist()[0]["outcome"]

    for run, day in ((1, 1), (2, 1), (3, 2)):
        attempt(run, day)
        assert newest() == "transient"
    attempt(4, 3, "ok", "")
    attempt(5, 4)
    assert newest() == "transient"  # it was there on day 3
    attempt(6, 5)
    attempt(7, 6, "transient", "timeout")
    attempt(8, 7)
    assert newest() == "gone"


def test_a_breaker_trips_on_refusals_and_tells_others(tmp_path):
    first, second = (breaker.Breaker(str(tmp_path / "work")) for _ in range(2))
    for number in range(storms.FEWEST):
        first.record(f"http://host/well-{number}", Outcome.OK, "", "")
        first.record(f"http://host/lost-{number}", Outcome.TRANSIENT, "http_500", "x")
    for number in range(11):
        first.record(f"http://host/{number}", Outcome.BLOCKED, "http_429", "HTTP 429")
        assert first.tripped("http://host/x") is None
    for number in range(11, 31):
        first.record(f"http://host/{number}", Outcome.BLOCKED, "http_429", "HTTP 429")
    assert "HTTP 429" in first.tripped("http://host/x") and "host" in first.tripped("http://host/x")
    assert first.tripped("http://other/x") is None
    time.sleep(0.01)
    assert second.tripped("http://host/y") == first.tripped("http://host/x")
    first.trip("the disk is full")
    assert first.tripped("http://other/x") == "the disk is full"
    assert set(breaker.read(str(tmp_path / "work")).values()) == {
        first.tripped("http://other/x"),
        second.tripped("http://host/y"),
    }


def test_a_bad_copy_says_nothing_about_its_clip(server, clips, mbt_data, tmp_path):
    """Nor does an earlier loss keep a good one out; links are followed, and what is in the store is a file."""
    clips(["0.mp4", "1.mp4", "none.mp4", "3.mp4"])
    assert mbt_data("fetch", *ours(tmp_path, "--max_attempts=3")).returncode == 0
    found = outcomes(tmp_path / "out")
    assert ("gone", "http_404") in found.values()
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "2.real").write_bytes(server.files["2.mp4"])
    (folder / "none.mp4").symlink_to("2.real")
    (folder / "3.mp4").write_bytes(server.files["3.mp4"][:500])
    (folder / "0.mp4").write_bytes(b"")
    server.requests.clear()
    done = mbt_data("import", folder, "--pattern=stem", *words(tmp_path))
    assert done.returncode == 0 and server.requests == [], done.stderr
    found = outcomes(tmp_path / "out")
    assert found["none.mp4"] == ("ok", "") and found["0.mp4"] == ("ok", "")
    assert "3.mp4" not in found or found["3.mp4"] == ("transient", "bad_copy") or found["3.mp4"] == ("ok", "")
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    assert set(outcomes(tmp_path / "out").values()) == {("ok", "")}
    assert not any(path.is_symlink() for path in (tmp_path / "out" / "media").rglob("*"))


def test_media_damaged_in_the_store_are_fetched_again(server, clips, mbt_data, tmp_path):
    clips(["0.mp4", "1.mp4", "2.mp4"])
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    damaged = sorted((tmp_path / "out" / "media").rglob("*.mp4"))[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    server.requests.clear()
    done = mbt_data("build", *ours(tmp_path, "--num_shards=1", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["records"] == 3
    assert len(server.requests) == 1 and damaged.read_bytes() == whole


def test_many_media_damaged_in_one_shard_are_fetched_again_together(server, clips, mbt_data, tmp_path):
    """And the counts are those of the whole command, though the other shard was there in the second round."""
    films = list(server.files.values())
    names = [f"clip{number}.mp4" for number in range(16)]
    server.files |= {name: films[number % len(films)] for number, name in enumerate(names)}
    clips(names)
    assert mbt_data("build", *ours(tmp_path, "--num_shards=2")).returncode == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "out" / "media").rglob("*.mp4")}
    (table,) = (tmp_path / "out" / "snapshots").glob("*/clips.parquet")
    rows = pq.read_table(table, columns=["id", "shard"]).to_pylist()
    shards = [[row["id"] for row in rows if row["shard"] == shard] for shard in range(2)]
    damaged = max(shards, key=len)
    assert len(damaged) >= 8 and min(shards)
    for name in damaged:
        path = store_path(tmp_path / "out", name)
        path.write_bytes(path.read_bytes()[:-1])
    shutil.rmtree(tmp_path / "out" / "shards")
    server.requests.clear()
    done = mbt_data("build", *ours(tmp_path, "--json"))
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["splits"]["train"]["records"] == built["clips_decoded"] == 16 and built["shards_built"] == 2
    assert sorted(server.requests) == sorted(damaged)
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "media").rglob("*.mp4")} == whole


def store_path(root: Path, clip: str) -> Path:
    (path,) = [row["media"] for row in ledger.state(str(root)).to_pylist() if row["clip_id"] == clip]
    return root / path


def test_media_that_are_damaged_each_time_cost_no_other_clip(server, clips, mbt_data, tmp_path):
    names = [f"{number}.mp4" for number in range(6)]
    clips(names)
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    bad = store_path(tmp_path / "out", "0.mp4")
    whole, done = bad.stat().st_size, threading.Event()

    def damage() -> None:
        while not done.wait(0.01):
            with contextlib.suppress(FileNotFoundError):
                if bad.stat().st_size == whole:
                    os.truncate(bad, whole - 1)

    damaging = threading.Thread(target=damage)
    damaging.start()
    try:
        built = mbt_data("build", *ours(tmp_path, "--json"))
    finally:
        done.set()
        damaging.join()
    assert built.returncode == 0, built.stderr
    train = json.loads(built.stdout)["splits"]["train"]
    assert (train["records"], train["lost"]) == (5, {"transient/damaged": 1})
    again = mbt_data("build", *ours(tmp_path, "--json"))
    assert json.loads(again.stdout)["splits"]["train"]["records"] == 6


def test_few_clips_that_are_all_refused_are_not_published(clips, mbt_data, tmp_path):
    clips(["429/0.mp4", "429/1.mp4", "429/2.mp4"])
    done = mbt_data("build", *ours(tmp_path))
    assert done.returncode == 1 and "train would lack 3 of 3 clips" in done.stderr, done.stderr
    assert "http_429" in done.stderr and "--sleep, --cookies and --proxies help" in done.stderr
    assert not (tmp_path / "out" / "snapshots").exists()


def test_the_probe_and_the_build_say_the_same_of_media_that_want_too_much(
    server, clips, mbt_data, ffmpeg_program, tmp_path
):
    """And a tag or a name that speaks of memory costs no clip, nor does one clip cost another of its source."""
    (tmp_path / "made").mkdir()
    made = hostile_media.blockers(ffmpeg_program, tmp_path / "made", slow=False)
    for name in ("title.mp4", "stts.mp4"):
        server.files[name] = made[name]
    clips(["title.mp4", "stts.mp4"])
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    expected = {"title.mp4": ("ok", ""), "stts.mp4": ("unusable", "too_much_memory")}
    assert outcomes(tmp_path / "out") == expected
    done = mbt_data("build", *ours(tmp_path))
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "out" / "snapshots").glob("*/clips.parquet")
    rows = pq.read_table(table).to_pylist()
    assert {row["id"]: (row["outcome"], row["reason"]) for row in rows} == expected


def test_a_clip_that_cannot_be_probed_here_costs_no_other_of_its_source(server, clips, mbt_data, tmp_path):
    """The decoder is killed on the span from 0.5 s on, which is read from a tenth before; the server is not blamed."""
    clips(["0.mp4"])
    with open(tmp_path / "clips.csv", "a", encoding="utf-8") as file:
        file.write(f"{server.url}/0.mp4,0.5,1,a,late\n")
    program = tmp_path / "ffmpeg"
    real = ffmpeg.executable()
    program.write_text(f'#!/bin/sh\ncase "$*" in *"-ss 0.400000"*) kill -9 $$;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    mbt_data("build", *ours(tmp_path, f"--ffmpeg={program}"))
    found = outcomes(tmp_path / "out")
    assert found == {"0.mp4": ("ok", ""), "late": ("transient", "probe_failed")}


def test_the_limit_of_time_holds_for_probing_too(server, clips, mbt_data, tmp_path):
    """What is said is the CPU time that the decoder took: the limit, and twice the length of the clip."""
    clips(["0.mp4"])
    program = tmp_path / "ffmpeg"
    real = ffmpeg.executable()
    program.write_text(f'#!/bin/sh\ncase "$*" in *spool*) while :; do :; done;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    mbt_data("build", *ours(tmp_path, f"--ffmpeg={program}", "--clip_time_limit=1"))
    (found,) = ledger.state(str(tmp_path / "out")).to_pylist()
    assert (found["outcome"], found["reason"]) == ("transient", "too_slow")
    said = re.search(r"time limit, (\d+) s of CPU time", found["detail"])
    assert said and 3 <= int(said[1]) < 60, found["detail"]  # a busy machine looks late; without the flag it is 122


def test_devices_and_pipes_are_no_media(mbt_data, write_csv, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ["/dev/zero", "pipe.mp4"]
    write_csv(tmp_path / "clips.csv", [{"video_path": name, "start": 0, "end": 1, "label": "a"} for name in names])
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    assert set(outcomes(tmp_path / "out").values()) == {("invalid", "not_a_file")}


def test_a_damaged_ledger_file_is_named_and_left_out(server, clips, mbt_data, tmp_path):
    clips(["0.mp4"])
    assert mbt_data("fetch", *ours(tmp_path)).returncode == 0
    (tmp_path / "out" / "ledger" / "000001" / "torn.parquet").touch()
    done = mbt_data("status", *words(tmp_path, "--json"))
    assert done.returncode == 0 and "torn.parquet is damaged" in done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["ok"] == 1
