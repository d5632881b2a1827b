"""Files of a dataset, as training reads them."""

import os

import pytest

from mbt.train import storage

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("read", [storage.read, storage.mapped, lambda path: storage.read_ranges(path, [(0, 1)])])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe or a device"):
        read(str(tmp_path / "pipe"))


def test_a_file_is_read_whole_mapped_and_by_ranges(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    path = str(tmp_path / "file")
    assert storage.read(path) == storage.mapped(path).tobytes() == b"0123456789"
    assert storage.read_ranges(path, [(2, 3), (8, 5)]) == [b"234", b"89"]
