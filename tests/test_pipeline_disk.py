"""A disk that is full or fails: no outcome of a clip, one line, a status that is not 0; the same command goes on."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import disk_faults
import pytest
from media_server import PRIVATE, serving

from mbt.pipeline import disk, download, ledger, local_files, storage
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.hosts import Hosts

needs_mounts = pytest.mark.skipif(bool(disk_faults.why_no_mounts()), reason=disk_faults.why_no_mounts() or "-")
needs_library = pytest.mark.skipif(bool(disk_faults.why_no_library()), reason=disk_faults.why_no_library() or "-")


@pytest.fixture
def limited():
    """limited(bytes) lets no file grow beyond that: a write that goes over it is short, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_short_write_is_followed_by_its_error(limited, tmp_path):
    limited(100)
    with open(tmp_path / "file", "wb", buffering=0) as file, pytest.raises(OSError) as caught:
        disk.write_all(file, bytes(150))
    assert caught.value.errno == errno.EFBIG and (tmp_path / "file").stat().st_size == 100


def test_a_download_that_the_disk_does_not_take_is_nothing_of_the_servers(limited, tmp_path):
    with serving() as server:
        server.files["x.mp4"] = bytes(300_000)
        limited(100_000)
        with pytest.raises(OSError) as caught:
            download.download(
                f"{server.url}/x.mp4", str(tmp_path / "x"), download.Limits(), hosts=Hosts(allow_private=True)
            )
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("use", ["write", "create", "upload"])
def test_what_cannot_be_written_names_the_file_and_leaves_nothing(limited, tmp_path, use):
    (tmp_path / "source").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    limited(100)
    path = str(tmp_path / "folder" / "file")
    if use == "write":
        with pytest.raises(OSError) as caught:
            storage.write(path, bytes(1000))
    elif use == "create":
        with pytest.raises(OSError) as caught, storage.create(path) as file:
            file.write(bytes(1000))
        storage.delete(path)
    else:
        with pytest.raises(OSError) as caught:
            local_files._copy(str(tmp_path / "source"), path)
    assert str(caught.value.filename).startswith(path)
    assert os.listdir(tmp_path / "folder") == []


def test_a_size_that_is_not_the_files_is_an_error(tmp_path):
    (tmp_path / "x").write_bytes(b"123")
    disk.check_size(str(tmp_path / "x"), 3)
    with pytest.raises(OSError, match="3 of 4 bytes"):
        disk.check_size(str(tmp_path / "x"), 4)


def test_an_error_is_said_with_the_folder_and_what_to_do(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "gone" / "file"))
    assert disk.said(error) == f"{tmp_path}: No space left on device: {disk._FULL}"
    assert "dmesg" in disk.said(OSError(errno.EIO, "x"), "/") and disk.is_trouble(error) and disk.is_full(error)
    assert disk.said(FileNotFoundError(2, "No such file", "x")) == "[Errno 2] No such file: 'x'"


def test_the_systems_error_is_found_where_a_traceback_ends_with_it():
    line = "OSError: [Errno 28] No space left on device: '/a: b/x.part' [while running 'Fetch/Fetch-ptransform-1']"
    found = disk.in_text(f"Traceback (most recent call last):\n  File x\nValueError: a\n\nDuring it:\n{line}\n\n")
    assert (found.errno, found.strerror, found.filename) == (28, "No space left on device", "/a: b/x.part")
    assert disk.in_text("OSError: [Errno 5] Input/output error").errno == errno.EIO
    gone = disk.in_text("FileNotFoundError: [Errno 2] No such file or directory: 'x'")
    assert gone.errno == errno.ENOENT
    for defect in (f"{line}\nThe above exception was the cause:\nmbt.x.OddError: [Errno", "TypeError: x", ""):
        assert disk.in_text(defect) is None


def test_a_breaker_that_cannot_be_written_stops_all_the_same(limited, tmp_path):
    url, folder = "http://host/x.mp4", str(tmp_path / "storms")
    breaker = Breaker(folder)
    limited(5)
    breaker.trip("throttled", "host")
    assert breaker.tripped(url) == "throttled"
    with pytest.raises(OSError, match="storms"):
        breaker.settle()
    assert Breaker(folder).tripped(url) is None
    limited(1000)  # there is room again
    breaker.settle()
    assert Breaker(folder).tripped(url) == "throttled"


@needs_mounts
@pytest.mark.parametrize("options", ["size=120k", "size=200k", "size=100m,nr_inodes=25"])
def test_a_full_disk_ends_fetching_and_no_clip_is_lost(options, clip_folder, write_csv, mbt_data, tmp_path):
    with serving() as server, disk_faults.small_disk(tmp_path / "disk", options) as small:
        data = (clip_folder / "0.mp4").read_bytes()
        names = [f"{number}.mp4" for number in range(24)]
        server.files |= dict.fromkeys(names, data)
        rows = [
            {"video_path": f"{server.url}/{name}", "start": 0, "end": 1, "label": "a", "id": name} for name in names
        ]
        words = [f"--annotations={write_csv(tmp_path / 'clips.csv', rows)}", f"--output={small}/out", PRIVATE]
        done = mbt_data("fetch", *words)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("mbt-data: ")]
        assert str(small) in line and "No space left on device: free some space" in line
        assert {row["outcome"] for row in ledger.state(f"{small}/out").to_pylist()} <= {"ok"}
        disk_faults.enlarge(small)
        assert mbt_data("fetch", *words).returncode == 0
        state = ledger.state(f"{small}/out").to_pylist()
        assert len(state) == 24 and {row["outcome"] for row in state} == {"ok"}


@needs_library
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fails_while_building_is_said_in_one_line(call, clip_folder, six_rows, write_csv, tmp_path):
    rows = [row | {"video_path": str(clip_folder / row["video_path"])} for row in six_rows]
    root = tmp_path / "out"
    words = ["build", f"--annotations={write_csv(tmp_path / 'clips.csv', rows)}", f"--output={root}", "--num_shards=1"]
    library = disk_faults.compiled(tmp_path)
    faults = disk_faults.environment(library, root / "tmp" / "shards", call, errno.EIO, at=1)
    command = [str(Path(sys.executable).with_name("mbt-data")), *words]
    done = subprocess.run(command, env=os.environ | faults, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"{root}/tmp: Input/output error: the disk or its cable fails" in done.stderr.replace("/shards", "")
    assert not (root / "snapshots").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
