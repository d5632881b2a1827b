"""What has its name is on the disk: the order of flushing, and no way through symbolic links.

That a power cut undoes nothing is shown on a disk whose power is cut, by `tests/campaigns/disks.py`.
"""

import pytest

from mbt.pipeline import leftovers, media, storage, writer
from mbt.schemas import durable


def test_a_file_is_flushed_before_it_has_its_name_and_the_folder_after(disk_calls, tmp_path):
    storage.write(str(tmp_path / "a" / "b" / "file"), b"x")
    *folders, (flush, part), renamed, last = disk_calls
    # Folders that are new: each one's own folder holds its name.
    assert folders == [("flush", tmp_path.name), ("flush", "a")]
    assert flush == "flush" and part.startswith("file.") and part.endswith(".part")
    assert (renamed, last) == (("rename", "file"), ("flush", "b"))


def test_what_is_published_or_uploaded_is_flushed_first(disk_calls, tmp_path):
    with storage.create(str(tmp_path / "attempt")) as file:
        file.write(b"x")
    (tmp_path / "arrived").write_bytes(b"y")
    (tmp_path / "to").mkdir()
    for name, use in (("attempt", storage.publish), ("arrived", storage.upload)):
        disk_calls.clear()
        use(str(tmp_path / name), str(tmp_path / "to" / "final"))
        assert disk_calls == [("flush", name), ("rename", "final"), ("flush", "to")]


def test_what_is_deleted_is_gone_for_good_and_each_folder_flushed_once(disk_calls, tmp_path):
    for name in ("a/1", "a/2", "b/3"):
        storage.write(str(tmp_path / name), b"")
    disk_calls.clear()
    storage.delete(*(str(tmp_path / name) for name in ("a/1", "a/2", "b/3", "none/4")))
    assert disk_calls == [*(("delete", name) for name in "1234"), ("flush", "a"), ("flush", "b")]


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


def test_a_tree_is_flushed_from_its_files_up(disk_calls, tmp_path):
    (tmp_path / "5" / "state").mkdir(parents=True)
    (tmp_path / "5" / "state" / "array").write_bytes(b"x")
    durable.flush_tree(tmp_path / "5")
    assert disk_calls == [("flush", name) for name in ("array", "state", "5", tmp_path.name)]


def test_a_file_that_lines_are_added_to_stays(disk_calls, tmp_path):
    with durable.appended(tmp_path / "lines") as file:
        file.write("1\n")
    with durable.appended(tmp_path / "lines") as file:
        file.write("2\n")
    assert (tmp_path / "lines").read_text() == "1\n2\n"
    assert disk_calls[0] == ("flush", tmp_path.name)


def test_a_folder_is_not_made_in_the_place_of_a_file(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            durable.make_folder(path)


def test_who_writes_a_dataset_makes_sure_of_its_folders_and_of_what_a_killed_command_left(disk_calls, tmp_path):
    root = tmp_path / "new" / "root"
    with writer.hold(str(root)):
        assert disk_calls[:2] == [("flush", tmp_path.name), ("flush", "new")]
    for folder in ("media/ab", "ledger/000001/storms", "shards", "snapshots/s"):
        (root / folder).mkdir(parents=True)
    disk_calls.clear()
    with writer.hold(str(root)):
        below = {"media", "ledger", "000001", "storms", "shards", "snapshots", "s"}
        assert {name for call, name in disk_calls if call == "flush"} == {"new", "root"} | below


def test_media_that_are_there_already_stay(disk_calls, tmp_path):
    for name in ("here", "again"):
        (tmp_path / name).write_bytes(b"film")
    media.store(str(tmp_path), "media/ab/film", str(tmp_path / "here"), keep=True)
    assert disk_calls[-2:] == [("rename", "film"), ("flush", "ab")] and (tmp_path / "here").exists()
    disk_calls.clear()
    media.store(str(tmp_path), "media/ab/film", str(tmp_path / "again"), keep=False)
    assert disk_calls == [("flush", "ab")]


def test_temporary_files_of_killed_processes_go_for_good(disk_calls, tmp_path):
    (tmp_path / "frames").touch()
    (tmp_path / "spool").mkdir()
    leftovers.delete([str(tmp_path / "frames"), str(tmp_path / "spool")])
    assert disk_calls == [("delete", "frames"), ("flush", tmp_path.name)]


def test_what_lies_in_several_stores_is_deleted_here_for_good(disk_calls, gcs, tmp_path):
    paths = [str(tmp_path / "report"), f"{gcs.root('durable')}/report"]
    for path in paths:
        storage.write(path, b"x")
    disk_calls.clear()
    storage.delete(*paths)
    assert disk_calls == [("delete", "report"), ("flush", tmp_path.name)] and not any(map(storage.exists, paths))
