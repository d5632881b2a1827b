"""Sources that stay where they are: regular files of an allowed size, whatever else a row may name."""

import os
import socket
import threading
from pathlib import Path

import pytest

from mbt.pipeline import fetch, local_files
from mbt.schemas import regular

pytestmark = pytest.mark.quick

LIMIT = 1 << 20


def ended(path: str | Path) -> tuple[str, str]:
    """Outcome and reason, within seconds."""
    found: list[fetch.Fetched] = []
    thread = threading.Thread(target=lambda: found.append(fetch.local(str(path), LIMIT)), daemon=True)
    thread.start()
    thread.join(20)
    assert found, f"{path} is still being read"
    return found[0].outcome.value, found[0].reason


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
        names = ("pipe.mp4", "link.mp4", "folder.mp4", "socket.mp4")
        for path in (*(tmp_path / name for name in names), "/dev/zero", "/dev/tty", "/dev/null"):
            assert ended(path) == ("invalid", "not_a_file"), path


@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/status", "/proc/cpuinfo"])
def test_a_file_without_a_size_is_empty(path):
    if not os.access(path, os.R_OK):
        pytest.skip(f"no {path} to read here")
    assert ended(path) == ("unusable", "empty")


def test_a_file_larger_than_a_download_may_be_is_refused_by_its_size(tmp_path):
    (tmp_path / "sparse.mp4").touch()
    os.truncate(tmp_path / "sparse.mp4", 100 << 30)
    assert ended(tmp_path / "sparse.mp4") == ("unusable", "too_large")
    (tmp_path / "exact.mp4").write_bytes(bytes(LIMIT))
    assert ended(tmp_path / "exact.mp4") == ("ok", "")


def test_a_link_to_a_file_is_as_good_as_the_file(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"abc")
    (tmp_path / "b.mp4").symlink_to("a.mp4")
    first, second = (fetch.local(str(tmp_path / name), LIMIT) for name in ("a.mp4", "b.mp4"))
    assert (first.digest, first.bytes) == (second.digest, second.bytes) and first.bytes == 3


def test_files_of_a_dataset_that_are_pipes_are_refused_by_whoever_reads_them(tmp_path):
    os.mkfifo(tmp_path / "index")
    for read in (local_files.read, local_files.open_file, regular.read, regular.open_descriptor):
        with pytest.raises(regular.NotAFileError, match="pipe"):
            read(str(tmp_path / "index"))
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        with pytest.raises(regular.NotAFileError):
            regular.open_file(str(tmp_path))
    assert not descriptors or len(os.listdir("/proc/self/fd")) == descriptors
