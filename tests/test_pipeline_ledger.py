"""The ledger's files: few of them once a writer is done, and whole to whoever reads meanwhile."""

import threading

from mbt.pipeline import ledger


def append(writer: ledger.Writer, *clips: str) -> None:
    for clip in clips:
        writer.append(clip_id=clip, attempt=1, source=clip, start_us=0, end_us=1, outcome="ok", digest="d")


def files(root) -> int:
    return len(list(root.glob("ledger/*/*.parquet")))


def clips(root) -> list[str]:
    return sorted(ledger.read(str(root), ["clip_id"])["clip_id"].to_pylist())


def test_a_writer_that_ends_leaves_one_file(tmp_path):
    with ledger.Writer(str(tmp_path), 1) as writer:
        for number in range(5):
            append(writer, f"{number}")
            writer.flush()
        assert files(tmp_path) == 5  # which a kill would leave
        assert clips(tmp_path) == list("01234")
    assert files(tmp_path) == 1
    assert clips(tmp_path) == list("01234")


def test_what_is_full_is_not_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "FLUSH_ROWS", 4)
    with ledger.Writer(str(tmp_path), 1) as writer:
        append(writer, *"abcd")
        (full,) = tmp_path.glob("ledger/*/*.parquet")
        for clip in "efghi":
            append(writer, clip)
            writer.flush()
        assert files(tmp_path) == 3  # the full one, one of four, and one of one
    assert full.exists() and files(tmp_path) == 3
    assert clips(tmp_path) == list("abcdefghi")


def test_a_reader_meanwhile_misses_nothing(tmp_path):
    """Whatever was flushed when the reader began is there, in one file or another."""
    done = threading.Event()
    wrong: list[set[str]] = []
    flushed: set[str] = set()

    def read() -> None:
        while not done.is_set():
            before = set(flushed)
            if missed := before - set(clips(tmp_path)):
                wrong.append(missed)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for run in range(1, 40):
            with ledger.Writer(str(tmp_path), 1) as writer:
                for number in range(5):
                    append(writer, f"{run}-{number}")
                    writer.flush()
                    flushed.add(f"{run}-{number}")
    finally:
        done.set()
        reader.join()
    assert not wrong
    assert len(clips(tmp_path)) == 39 * 5
