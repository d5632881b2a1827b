"""The ledger's files, few of them once a writer is done; its newest word, where an engine did the same work twice."""

import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbt.pipeline import ledger

pytestmark = pytest.mark.quick


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


def test_a_timed_flush_that_fails_is_made_up_for_by_the_next(tmp_path, monkeypatch):
    (tmp_path / "ledger").touch()  # in the place of its folder
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.05)
    with ledger.Writer(str(tmp_path), 1) as writer:
        append(writer, *"ab")
        time.sleep(0.5)
        (tmp_path / "ledger").unlink()
        deadline = time.monotonic() + 60
        while not files(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert clips(tmp_path) == ["a", "b"]


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


def write(root: Path, writer: str, *attempts: tuple[int, str]) -> None:
    """A worker's file: (number, outcome) of each attempt for the clip `c`."""
    rows = []
    for number, outcome in attempts:
        row = dict.fromkeys(("attempt_id", "digest", "media", "signature", "tools"), "")
        row |= {"clip_id": "c", "run": 1, "attempt": number, "time": 0, "source": "s", "bytes": 0}
        row |= {"start_us": 0, "end_us": 1, "media_start_us": 0, "outcome": outcome, "reason": writer, "detail": ""}
        rows.append(row | ({"digest": f"of {writer}", "media": f"media/{writer}"} if outcome == "ok" else {}))
    path = root / "ledger" / "000001" / f"{writer}-00000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, ledger.ATTEMPTS), path)


def newest(root: Path) -> tuple[str, str]:
    (row,) = ledger.state(str(root)).to_pylist()
    return row["outcome"], row["media"] or row["reason"]


@pytest.mark.parametrize(("dead", "alive"), [("a", "b"), ("b", "a")])  # files are read in the order of their names
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_what_the_second_worker_stored_stands(tmp_path, dead, alive, failures):
    write(tmp_path, dead, *((number, "transient") for number in range(1, failures + 1)))
    write(tmp_path, alive, (1, "transient"), (2, "ok"))
    assert newest(tmp_path) == ("ok", f"media/{alive}")


@pytest.mark.parametrize(("dead", "alive"), [("a", "b"), ("b", "a")])
def test_what_the_dead_worker_stored_stands(tmp_path, dead, alive):
    """The second one was refused, and did not know."""
    write(tmp_path, dead, (1, "ok"))
    write(tmp_path, alive, (1, "blocked"), (2, "blocked"))
    assert newest(tmp_path) == ("ok", f"media/{dead}")


def test_a_later_round_of_the_same_run_has_the_last_word(tmp_path):
    write(tmp_path, "a", (1, "transient"), (2, "transient"))
    write(tmp_path, "b", (1, "ok"))
    write(tmp_path, "c", (ledger.ROUND + 1, "gone"))
    assert newest(tmp_path) == ("gone", "c")


def test_without_media_the_last_attempt_counts(tmp_path):
    write(tmp_path, "a", (1, "blocked"), (2, "transient"))
    write(tmp_path, "b", (1, "gone"))
    assert newest(tmp_path) == ("transient", "a")
