"""What has its name is on the disk: the order of flushing, and no way through symbolic links.

That a power cut undoes nothing is shown on a disk whose power is cut, by `tests/campaigns/disks.py`.
"""

import os

import pytest

from mbt.pipeline import durable, storage

pytestmark = pytest.mark.quick


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What is flushed, renamed and deleted, in order, by name."""
    del tmp_path  # is made before
    seen = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def flushed(file):
        seen.append(("flush", os.path.basename(os.readlink(f"/proc/self/fd/{file}"))))
        fsync(file)

    def renamed(old, new):
        seen.append(("rename", os.path.basename(new)))
        replace(old, new)

    def unlinked(path):
        seen.append(("delete", os.path.basename(path)))
        unlink(path)

    for name, call in (("fsync", flushed), ("replace", renamed), ("unlink", unlinked)):
        monkeypatch.setattr(os, name, call)
    return seen


def test_a_file_is_flushed_before_it_has_its_name_and_the_folder_after(calls, tmp_path):
    storage.write(str(tmp_path / "a" / "b" / "file"), b"x")
    *folders, (flush, part), renamed, last = calls
    # Folders that are new: each one's own folder holds its name.
    assert folders == [("flush", tmp_path.name), ("flush", "a")]
    assert flush == "flush" and part.startswith("file.") and part.endswith(".part")
    assert (renamed, last) == (("rename", "file"), ("flush", "b"))


def test_what_is_published_or_uploaded_is_flushed_first(calls, tmp_path):
    with storage.create(str(tmp_path / "attempt")) as file:
        file.write(b"x")
    (tmp_path / "arrived").write_bytes(b"y")
    (tmp_path / "to").mkdir()
    for name, use in (("attempt", storage.publish), ("arrived", storage.upload)):
        calls.clear()
        use(str(tmp_path / name), str(tmp_path / "to" / "final"))
        assert calls == [("flush", name), ("rename", "final"), ("flush", "to")]


def test_what_is_deleted_is_gone_for_good_and_each_folder_flushed_once(calls, tmp_path):
    for name in ("a/1", "a/2", "b/3"):
        storage.write(str(tmp_path / name), b"")
    calls.clear()
    storage.delete(*(str(tmp_path / name) for name in ("a/1", "a/2", "b/3", "none/4")))
    assert calls == [*(("delete", name) for name in "1234"), ("flush", "a"), ("flush", "b")]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "link").symlink_to("secret")
    with pytest.raises(OSError, match="link is a symbolic link, which is not followed for writing"):
        storage.create(str(tmp_path / "link"))
    storage.write(str(tmp_path / "link"), b"new")  # takes the place of the link itself
    assert (tmp_path / "secret").read_text() == "mine" and (tmp_path / "link").read_text() == "new"
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_that_is_not_there_has_nothing_to_flush(tmp_path):
    durable.flush_folder(str(tmp_path / "none"))
    durable.flush_folder("")
