"""Decoded clips wait for room, the one whose turn it is never does, and the shard comes out the same."""

import concurrent.futures
import contextlib
import time
from pathlib import Path

import hostile_media
import psutil
import pytest

from mbt.pipeline import media, memory, plan
from mbt.pipeline.shard import Builder


def test_a_clip_waits_for_room_unless_it_is_its_turn():
    room = memory.Room(100)
    first, second, third = (memory.Place(room) for _ in range(3))
    assert first.try_to_take(60) and second.try_to_take(40) and not third.try_to_take(1)
    first.call()  # and what it took is others'
    assert first.try_to_take(1000) and third.try_to_take(60) and not third.try_to_take(1)
    second.begin_anew()
    assert third.try_to_take(40)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(third.take, 1)
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(timeout=0.2)
        third.call()
        waiting.result(timeout=10)


def test_who_waits_for_room_that_nobody_wants_any_more_ends():
    place = memory.Place(memory.Room(0))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(place.take, 1)
        place.abandon()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(timeout=10)


def rows_of(paths: list[Path], seconds: float = 1) -> list[dict]:
    """As a plan has them, for a `Builder`."""
    common = {"start_us": 0, "end_us": round(seconds * 1_000_000), "media_start_us": 0, "media": "", "outcome": "ok"}
    common |= {"labels": ["a"], "label_indices": [0]}
    rows = [
        common | {"id": f"clip-{n}", "source": str(path), "digest": media.digest_of(str(path))[0]}
        for n, path in enumerate(paths)
    ]
    return [plan.with_digests(row, "identity", "/") for row in rows]


def shard(root: Path, rows: list[dict], program: str, threads: int = 3) -> bytes:
    made = Builder(root=str(root), dataset_name="d", media_root="/", program=program, threads=threads, time_limit_s=60)
    made.rebuild("shard", rows, None)
    return (root / "shards" / "shard.tfrecord").read_bytes()


@pytest.fixture
def little_room(monkeypatch):
    """Room for a fraction of a clip."""
    memory.room.cache_clear()
    monkeypatch.setattr(memory, "ROOM_BYTES_PER_THREAD", 5000)
    yield
    memory.room.cache_clear()


@pytest.mark.parametrize("kind", ["plain", "titled"])
def test_little_room_changes_no_byte(make_media, ffmpeg_program, tmp_path, little_room, kind):
    """Clips whose title makes each of them run again alone, while others wait for room with an ffmpeg open, too."""
    title = hostile_media.FATAL if kind == "titled" else "none"
    paths = [
        make_media(tmp_path / f"{n}.mp4", audio=f"sine=frequency={300 + n}", options=("-metadata", f"title={title}"))
        for n in range(5)
    ]
    rows = rows_of(paths)
    small = shard(tmp_path / "small", rows, ffmpeg_program)
    assert small == shard(tmp_path / "one", rows, ffmpeg_program, threads=1) and len(small) > 10 * 5000


def test_a_shard_that_fails_leaves_nobody_waiting(make_media, ffmpeg_program, tmp_path, little_room):
    paths = [make_media(tmp_path / f"{n}.mp4") for n in range(4)]
    rows = rows_of(paths)
    paths[0].unlink()
    with pytest.raises(RuntimeError, match="was there when the build began"):
        shard(tmp_path, rows, ffmpeg_program)
    assert not [child for child in psutil.Process().children(recursive=True) if "ffmpeg" in child.name()]


@pytest.mark.slow
def test_records_of_hundreds_of_megabytes_take_a_bounded_amount(ffmpeg_program, tmp_path, mbt_data, write_csv):
    """Four files of 0.9 MB, each a record of 237 MB: more threads hold no more of them."""
    for number in range(4):
        (tmp_path / f"{number}.mov").write_bytes(hostile_media.wide(ffmpeg_program, 350 - number))
    rows = [{"video_path": f"{n}.mov", "start": 0, "end": 14, "label": "a", "id": n} for n in range(4)]
    write_csv(tmp_path / "clips.csv", rows)
    where = [f"--annotations={tmp_path}/clips.csv", f"--media_root={tmp_path}", f"--output={tmp_path}/out"]
    running = mbt_data.start("build", *where, "--num_shards=1")
    top, peak = psutil.Process(running.pid), 0
    while running.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, top.memory_info().rss)
        time.sleep(0.02)
    assert running.wait() == 0
    assert peak < 2300 << 20, f"{peak >> 20} MiB"
