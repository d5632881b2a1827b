"""Files on this machine, on gs:// and on s3://: the same promises, kept against emulators that are real servers."""

import contextlib
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mbt.pipeline import storage
from mbt.pipeline.s3_client import client

NAMES = ["a b", "ü", "a#b", "a?b", "a*b", "[ab]", "a%2Fb", "a+b", "q'\"", "line\nbreak", "{0}", "-x"]
_count = itertools.count()


@pytest.fixture(params=["local", "gcs", "s3"])
def root(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "root")
    return request.getfixturevalue(request.param).root(f"storage-{next(_count)}")


@pytest.fixture
def store_root(store) -> str:
    return store.root(f"storage-{next(_count)}")


def fill(root: str, names: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.write(storage.join(root, name), b"x"), names))


def python(program: str, *words: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", program, *words], text=True, **options)


def test_what_is_written_is_read_listed_and_deleted(root):
    path = storage.join(root, "folder", "name.bin")
    assert not storage.exists(path)
    storage.write(path, b"first")
    storage.write(path, b"second")
    with storage.create(storage.join(root, "folder", "more", "empty")):
        pass
    assert storage.exists(path) and storage.read(path) == b"second" and storage.size(path) == 6
    assert storage.read(storage.join(root, "folder", "more", "empty")) == b""
    assert not storage.exists(storage.join(root, "folder"))
    assert storage.size(storage.join(root, "folder", "more", "empty")) == 0
    for none in ("folder", "none", "folder/name.bin/below"):
        assert storage.size(storage.join(root, none)) is None
    assert storage.sizes(storage.join(root, "folder")) == {"name.bin": 6}
    assert storage.sizes(root) == {} == storage.sizes(storage.join(root, "none"))
    assert storage.folders(root) == ["folder"] and storage.folders(storage.join(root, "folder")) == ["more"]
    assert storage.folders(storage.join(root, "none")) == []
    storage.delete(path, path, storage.join(root, "none", "x"), storage.join(path, "below"))
    assert storage.sizes(storage.join(root, "folder")) == {}


def test_a_folder_is_deleted_with_all_below_and_nothing_beside(root):
    fill(root, ["tmp/1", "tmp/deep/er/2", "tmp2/3", "tmp-4"])
    storage.delete_folder(storage.join(root, "tmp"))
    storage.delete_folder(storage.join(root, "none"))
    assert storage.folders(root) == ["tmp2"] and storage.sizes(root) == {"tmp-4": 1}


def copy_of(path: str) -> None:
    with storage.local_copy(path):
        pass


@pytest.mark.parametrize("use", [storage.read, storage.open_file, copy_of])
def test_a_missing_file_is_named(root, use):
    with pytest.raises(FileNotFoundError, match="none"):
        use(storage.join(root, "none"))


def test_nothing_comes_of_a_missing_file(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        storage.publish(storage.join(root, "none"), storage.join(root, "final"))
    with pytest.raises(FileNotFoundError, match="none"):
        storage.upload(str(tmp_path / "none"), storage.join(root, "final"))
    assert storage.sizes(root) == {}


def test_names_are_only_names(root):
    # moto's routes have no line breaks; S3 takes them, and so does another server that this was tried on by hand.
    names = [name for name in NAMES if not ("\n" in name and root.startswith("s3"))]
    for name in names:
        storage.write(storage.join(root, name, name), name.encode())
    assert storage.folders(root) == sorted(names)
    for name in names:
        path, size = storage.join(root, name, name), len(name.encode())
        assert storage.read(path) == name.encode() and storage.sizes(storage.join(root, name)) == {name: size}
        storage.publish(path, path + "2")
        assert storage.sizes(storage.join(root, name)) == {name + "2": size}
    for gone, name in enumerate(names, start=1):
        storage.delete(storage.join(root, name, name + "2"))
        left = [other for other in names if storage.sizes(storage.join(root, other))]
        assert left == names[gone:]


def test_a_root_with_a_pattern_in_its_name_is_one_folder(tmp_path):
    for name in ("[x]", "x"):
        storage.write(storage.join(str(tmp_path / name), name), b"1")
    assert storage.sizes(str(tmp_path / "[x]")) == {"[x]": 1}
    storage.delete(str(tmp_path / "[x]" / "[x]"))
    assert storage.sizes(str(tmp_path / "x")) == {"x": 1}


def test_publishing_replaces_and_leaves_no_attempt(root):
    for text in (b"first", b"second"):
        attempt, final = storage.join(root, "tmp", "attempt"), storage.join(root, "new", "final")
        with storage.create(attempt) as file:
            file.write(text)
        storage.publish(attempt, final)
        assert storage.read(final) == text and not storage.exists(attempt)


def test_an_upload_moves_the_file(root, tmp_path):
    source, final = tmp_path / "media.mp4", storage.join(root, "media", "ab", "final.mp4")
    for text in (b"first", bytes(20 << 20)):
        source.write_bytes(text)
        storage.upload(str(source), final)
        assert storage.read(final) == text and not source.exists()
    assert list(storage.sizes(storage.join(root, "media", "ab"))) == ["final.mp4"]


def test_an_upload_crosses_file_systems(tmp_path):
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = Path(folder, "media")
        source.write_bytes(b"x")
        storage.upload(str(source), str(tmp_path / "media"))
        assert not source.exists()
    assert os.listdir(tmp_path) == ["media"] and (tmp_path / "media").read_bytes() == b"x"


def test_a_local_copy_is_the_file_itself_or_goes(root):
    path = storage.join(root, "clip.mp4")
    storage.write(path, b"x" * 1000)
    with storage.local_copy(path) as copy:
        assert Path(copy).read_bytes() == b"x" * 1000 and copy.endswith(".mp4")
        assert (copy == path) == storage.is_local(path)
    assert os.path.exists(copy) == storage.is_local(path)
    assert storage.exists(path)


def test_an_open_file_can_be_read_in_pieces(root):
    path = storage.join(root, "pieces")
    data = b"".join(number.to_bytes(4, "big") for number in range(5 << 20))  # 20 MiB: more than a chunk
    storage.write(path, data)
    with storage.open_file(path) as file:
        assert file.read(7) == data[:7]
        file.seek(17 << 20)
        assert file.read(10) == data[17 << 20 :][:10]
        file.seek(3)
        assert file.read() == data[3:] and file.read(1) == b""


def test_an_object_appears_when_it_is_closed_and_never_after_an_error(store_root):
    path = storage.join(store_root, "late")
    with storage.create(path) as file:
        file.write(bytes(20 << 20))
        assert not storage.exists(path)
    assert storage.sizes(store_root) == {"late": 20 << 20}
    with contextlib.suppress(ValueError), storage.create(storage.join(store_root, "never")) as file:
        file.write(bytes(20 << 20))
        raise ValueError
    assert list(storage.sizes(store_root)) == ["late"]


def test_a_file_that_is_dropped_unclosed_never_appears(store_root):
    if store_root.startswith("gs"):
        pytest.skip("the client of gs:// finishes what Python closes; nobody here drops a file")
    file = storage.create(storage.join(store_root, "dropped"))
    file.write(bytes(9 << 20))
    assert [found.path for found in storage.unfinished_uploads(store_root)] == ["dropped"]
    del file
    gc.collect()
    assert storage.sizes(store_root) == {} and not list(storage.unfinished_uploads(store_root))


def test_what_a_killed_upload_left_is_found_and_goes(s3):
    root = s3.root(f"storage-{next(_count)}")
    program = """
import os, sys
from mbt.pipeline import storage
file = storage.create(sys.argv[1] + "/tmp/a/killed")
file.write(bytes(9 << 20))
os._exit(1)
"""
    for _ in range(2):
        with python(program, root) as process:
            assert process.wait(100) == 1
    (left, again) = storage.unfinished_uploads(root)
    assert (left.path, left.bytes) == ("tmp/a/killed", 8 << 20) == (again.path, again.bytes)
    assert storage.sizes(f"{root}/tmp/a") == {} and not list(storage.unfinished_uploads(f"{root}/tm"))
    storage.abort_uploads(root, before=left.modified - 1)
    assert len(list(storage.unfinished_uploads(root))) == 2
    storage.delete_folder(f"{root}/tmp")
    assert not list(storage.unfinished_uploads(root))


def test_an_upload_that_ended_although_the_answer_was_lost_is_ours(s3, behind):
    path = s3.root(f"storage-{next(_count)}/lost")
    # S3 has no such upload any more when it is asked again; moto would say yes once more.
    with behind(s3, [None, None, None, "cut", 404]) as log, storage.create(path) as file:
        file.write(bytes(9 << 20))
    sent = [line.split()[0] for line in log]
    assert sent == ["POST", "PUT", "PUT", "POST", "POST", "HEAD"]
    assert storage.read(path) == bytes(9 << 20)


def test_an_upload_that_is_gone_without_a_file_is_an_error(s3, behind):
    path = s3.root(f"storage-{next(_count)}/aborted")
    with (
        behind(s3, [None, None, None, 404]),
        pytest.raises(storage.errors(), match="404"),
        storage.create(path) as file,
    ):
        file.write(bytes(9 << 20))
    assert not storage.exists(path)


def test_a_file_that_is_replaced_while_it_is_read_is_no_mixture(s3):
    path = s3.root(f"storage-{next(_count)}/replaced")
    storage.write(path, bytes(20 << 20))
    with storage.open_file(path) as file:
        assert file.read(5) == bytes(5)
        storage.write(path, b"1" * (20 << 20))
        file.seek(15 << 20)
        with pytest.raises(OSError, match="was replaced or deleted while it was read"):
            file.read(5)


def test_a_bucket_that_keeps_old_versions_says_so(s3):
    client().create_bucket(Bucket="versioned")
    assert not storage.keeps_deleted("s3://versioned/root") and not storage.keeps_deleted("/root")
    client().put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    assert storage.keeps_deleted("s3://versioned/root") and storage.keeps_deleted("s3://none/root")


ENDLESS = """
import sys
from mbt.pipeline import storage
for number in range(10**9):
    storage.write(storage.join(sys.argv[1], str(number % 3)), bytes([number % 256]) * (16 << 20))
    with storage.create(storage.join(sys.argv[1], "tmp", "attempt")) as file:
        for _ in range(16):
            file.write(bytes([number % 256]) * (1 << 20))
    storage.publish(storage.join(sys.argv[1], "tmp", "attempt"), storage.join(sys.argv[1], "published"))
    print(number, flush=True)
"""


@pytest.fixture
def strict_root(root, request) -> Iterator[str]:
    """Where nothing comes of half a request, as on the stores themselves: moto stores what it got."""
    if not root.startswith("s3://"):
        yield root
        return
    with request.getfixturevalue("behind")(request.getfixturevalue("s3"), []):
        yield root


def test_whatever_a_killed_process_left_is_whole(strict_root):
    root = strict_root
    for rounds in (1, 2):
        process = python(ENDLESS, root, stdout=subprocess.PIPE)
        with process:
            for _ in range(rounds):
                assert process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.013 * rounds)  # somewhere in the next one
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert set(storage.sizes(root)) <= {"0", "1", "2", "published"}
        for name in storage.sizes(root):
            data = storage.read(storage.join(root, name))
            assert len(data) == 16 << 20 and data == data[:1] * len(data)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    program = """
import resource, sys
from mbt.pipeline import storage
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    storage.write(sys.argv[1], bytes(2 << 20))
except OSError as error:
    print(error.strerror)
"""
    storage.write(str(tmp_path / "file"), b"old")
    with python(program, str(tmp_path / "file"), stdout=subprocess.PIPE) as process:
        assert "too large" in process.stdout.read().lower()
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"


MEMORY = """
import os, resource, shutil, sys
from mbt.pipeline import storage
root, local = sys.argv[1:]
def grown_to():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
storage.write(storage.join(root, "warm"), bytes(20 << 20))  # a first time fills pools and imports
with storage.open_file(storage.join(root, "warm")) as source, storage.create(storage.join(root, "warm2")) as sink:
    shutil.copyfileobj(source, sink)
before = grown_to()
with open(local, "wb") as file:
    os.truncate(file.fileno(), 128 << 20)
storage.upload(local, storage.join(root, "big"))
with storage.local_copy(storage.join(root, "big")) as copy:
    assert os.path.getsize(copy) == 128 << 20
with storage.open_file(storage.join(root, "big")) as source, storage.create(storage.join(root, "big2")) as sink:
    shutil.copyfileobj(source, sink)
storage.publish(storage.join(root, "big2"), storage.join(root, "big"))
print(grown_to() - before)
"""


def test_big_files_pass_through_little_memory(store_root, tmp_path):
    with python(MEMORY, store_root, str(tmp_path / "big"), stdout=subprocess.PIPE) as process:
        assert int(process.stdout.read()) < 64
    assert storage.sizes(store_root)["big"] == 128 << 20
    storage.delete_folder(store_root)


# google-cloud-storage drops the answer to a download that it then asks for again, without closing it.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", [429, 503, "cut"])
def test_a_busy_service_is_asked_again(store_root, store, behind, fault):
    data = os.urandom(3 << 20)
    path = storage.join(store_root, "name")
    uses = {
        "write": lambda: storage.write(path, data),
        "read": lambda: storage.read(path) == data,
        "sizes": lambda: storage.sizes(store_root) == {"name": len(data)},
        "publish": lambda: storage.publish(path, path + "2"),
        "exists": lambda: storage.exists(path + "2"),
    }
    if fault == "cut":
        storage.write(path, data)
        uses = {"read": uses["read"]}
    for name, use in uses.items():
        faults = [fault]
        with behind(store, faults) as log:
            assert use() is not False, name
        assert not faults and len(log) > 1
    gc.collect()  # here, where that is known


def test_what_is_forbidden_is_not_asked_again(store_root, store, behind):
    storage.exists(store_root)  # loads the store's module
    with behind(store, [403]) as log, pytest.raises(storage.errors(), match=r"403|Forbidden") as caught:
        storage.read(storage.join(store_root, "name"))
    assert len(log) == 1
    assert storage.said(caught.value).startswith(storage.STORES[store.scheme] + ": ")


def test_listings_come_in_pages_and_stay_at_their_level(store_root, store, behind):
    names = [f"{number:04d}" for number in range(1203)]
    fill(storage.join(store_root, "flat"), names)
    fill(storage.join(store_root, "deep"), [f"{name}/x" for name in names])
    with behind(store, []) as log:
        assert storage.sizes(storage.join(store_root, "flat")) == dict.fromkeys(names, 1)
        assert len(log) == 2 and all("maxResults=1000" in line or "list-type=2" in line for line in log)
        log.clear()
        assert storage.folders(storage.join(store_root, "deep")) == names
        assert storage.folders(store_root) == ["deep", "flat"]
        assert all(re.search(r"[?&]delimiter=%2F", line) for line in log)
        assert store.scheme == "s3" or all("fields=prefixes" in line for line in log)
    storage.delete_folder(storage.join(store_root, "flat"))
    assert storage.folders(store_root) == ["deep"]


def test_a_forked_process_makes_its_own_connections(store, store_root):
    client = {"gs": "gcs._client", "s3": "s3.client"}[store.scheme]
    program = f"""
import os, sys
from mbt.pipeline import {client.partition(".")[0]}, storage
paths = [storage.join(sys.argv[1], name) for name in ("child", "parent")]
for path in paths:
    storage.write(path, path[-6:].encode() * 50_000)
before = {client}()
child = os.fork()
assert ({client}() is before) == bool(child)
path = paths[bool(child)]
for _ in range(20):
    assert storage.read(path) == path[-6:].encode() * 50_000
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    with python(program, store_root, stderr=subprocess.PIPE) as process:
        _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0 and not complaint
