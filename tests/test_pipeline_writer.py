"""One writer at a time: real processes, on this machine's file system and on gs://."""

import contextlib
import itertools
import multiprocessing
import os
import pathlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mbt.pipeline import storage, writer

_count = itertools.count()

# Run by a process that a fork server makes, which has imported what takes seconds to import.
HOLD = """
import os, signal, sys
from mbt.pipeline import writer
os.environ.update(env)
sys.argv = ["/usr/bin/mbt-data", "fetch", "--cookies=secret"]
signal.signal(signal.SIGTERM, lambda *_: (writer.let_go(), os._exit(143)))
try:
    with writer.hold(root, writer.Part.parse(part), take_over=False):
        child = os.fork() if forks else None
        if child == 0:
            signal.pause()
        pipe.send(child or "holding")
        pipe.recv()
except writer.WriterError as error:
    pipe.send(f"{type(error).__name__}: {error}")
"""


class Command:
    """A process that holds a part until it is told to end."""

    def __init__(self, root: str, part: str, forks: bool, env: dict[str, str]):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mbt.pipeline.writer", "mbt.pipeline.gcs", "mbt.pipeline.s3"])
        self.pipe, theirs = context.Pipe()
        names = {"root": root, "part": part, "forks": forks, "env": env, "pipe": theirs}
        self.process = context.Process(target=exec, args=(HOLD, names), daemon=True)
        self.process.start()
        theirs.close()
        self.pid = self.process.pid

    def says(self) -> str | int:
        assert self.pipe.poll(60)
        return self.pipe.recv()

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join(60)
        assert self.process.exitcode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)
        assert self.process.exitcode == -signal.SIGKILL


@pytest.fixture(params=["local", "gcs", "s3"])
def root(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "root")
    return request.getfixturevalue(request.param).root(f"writer-{next(_count)}")


@pytest.fixture
def start():
    """Starts a command."""
    with contextlib.ExitStack() as stack:

        def start(root: str, part: str = "1/1", *, forks: bool = False) -> Command:
            command = Command(root, part, forks, dict(os.environ))
            stack.callback(command.pipe.close)
            stack.callback(command.process.close)
            stack.callback(command.process.join, 60)
            stack.callback(command.process.kill)
            return command

        yield start


@pytest.fixture
def holding(start):
    """Starts a command that comes to hold its part."""

    def holding(root: str, part: str = "1/1") -> Command:
        command = start(root, part)
        assert command.says() == "holding"
        return command

    return holding


def refused(root: str, part: str = "1/1", **options) -> str:
    with pytest.raises(writer.HeldError) as caught, writer.hold(root, writer.Part.parse(part), **options):
        pytest.fail("it was not refused")
    return str(caught.value)


def test_a_second_writer_is_refused_and_told_who_holds(root, holding, start):
    first = holding(root)
    message = refused(root)
    assert message.startswith(
        f"{root} is being written by process {first.pid} on {os.uname().nodename} (mbt-data fetch)"
    )
    assert f", since {time.strftime('%Y-', time.gmtime())}" in message and "--take_over" in message
    assert start(root).says() == f"HeldError: {message}"
    assert refused(root) == message  # a refused command changes nothing
    first.end()
    with writer.hold(root):
        pass


def test_a_refused_command_leaves_nothing(root):
    with contextlib.suppress(ValueError), writer.hold(root):
        assert list(storage.sizes(root)) == [".writer"]
        raise ValueError
    assert storage.sizes(root) == {}
    assert not os.path.exists(root)


def test_a_folder_that_was_there_stays(tmp_path):
    with writer.hold(str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == [] and tmp_path.is_dir()


def test_of_many_at_once_one_holds(root, start):
    commands = [start(root) for _ in range(5)]
    assert sorted(command.says()[:7] for command in commands) == ["HeldErr"] * 4 + ["holding"]


def test_a_lock_that_its_holder_removes_meanwhile_is_not_taken(tmp_path):
    def work(_: int) -> int:
        with contextlib.suppress(writer.HeldError), writer.hold(str(tmp_path / "root")):
            with open(tmp_path / "working", "x"):
                os.sched_yield()
            os.unlink(tmp_path / "working")
            return 1
        return 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(3000))) > 0


@pytest.mark.parametrize("make", [pathlib.Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "link"])
def test_what_is_in_the_place_of_the_folder_is_refused(tmp_path, make):
    make(tmp_path / "root")
    for root in (tmp_path / "root", tmp_path / "root" / "below"):
        with pytest.raises(writer.WriterError, match="root"), writer.hold(str(root)):
            pass


def test_parts_of_the_same_number_run_at_once_and_nothing_else(root, holding):
    first, _ = holding(root, "1/2"), holding(root, "2/2")
    for part in ("1/2", "1/1", "1/3"):
        assert f"part 1/2 of {root} is being written by process {first.pid} " in refused(root, part)
    assert sorted(storage.sizes(root)) == [".writer-1-of-2", ".writer-2-of-2"]
    first.end()
    assert "part 2/2" in refused(root, "1/3") and "part 2/2" in refused(root)
    with writer.hold(root, writer.Part(1, 2)):
        pass


def test_the_whole_excludes_a_part(root, holding):
    whole = holding(root)
    assert refused(root, "1/2").startswith(f"{root} is being written by process {whole.pid} ")
    assert list(storage.sizes(root)) == [".writer"]


def test_of_parts_that_exclude_each_other_at_most_one_holds(root, start):
    for _ in range(5):
        commands = [start(root, part) for part in ("1/2", "1/3", "1/1")]
        said = [command.says()[:7] for command in commands]
        assert set(said) <= {"HeldErr", "holding"} and said.count("holding") <= 1
        for command in commands:
            command.process.kill()
            command.process.join(60)
        storage.delete_folder(root)


def test_a_killed_writer_of_a_local_folder_is_in_nobodys_way(tmp_path, holding):
    for part in ("1/1", "1/2", "1/1"):
        holding(str(tmp_path), part).kill()
    with writer.hold(str(tmp_path)):
        refused(str(tmp_path), "1/2")
    assert not storage.exists(str(tmp_path / ".writer"))


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_launcher(tmp_path, start):
    launcher = start(str(tmp_path), forks=True)
    worker = launcher.says()
    try:
        refused(str(tmp_path))
        launcher.kill()
        os.kill(worker, 0)  # it is alive
        with writer.hold(str(tmp_path)):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_killed_writer_of_a_bucket_is_taken_over(store, holding):
    root = store.root("writer-killed")
    for part, next_part in (("1/1", "1/1"), ("1/2", "1/1"), ("1/1", "1/2"), ("1/2", "1/2"), ("1/2", "1/3")):
        dead = holding(root, part)
        dead.kill()
        assert f"process {dead.pid} " in refused(root, next_part)
        with writer.hold(root, writer.Part.parse(next_part), take_over=True):
            assert f"process {os.getpid()} " in refused(root, next_part)
        assert storage.sizes(root) == {}


def test_taking_over_leaves_other_parts_alone(root, holding):
    displaced, other = holding(root, "1/2"), holding(root, "2/2")
    with writer.hold(root, writer.Part(1, 2), take_over=True):
        assert f"process {other.pid} " in refused(root, "2/2")
        assert sorted(storage.sizes(root)) == [".writer-1-of-2", ".writer-2-of-2"]
        displaced.end()  # it was alive after all, and must not release its successor's lock
        assert f"process {os.getpid()} " in refused(root, "1/2")
    assert list(storage.sizes(root)) == [".writer-2-of-2"]


def test_taking_over_what_is_free_is_just_holding_it(root):
    with writer.hold(root, take_over=True):
        refused(root)
    assert storage.sizes(root) == {}


def test_a_handler_of_signals_lets_go(root, holding):
    command = holding(root)
    command.process.terminate()
    command.process.join(60)
    assert command.process.exitcode == 143
    assert storage.sizes(root) == {}


def test_a_lock_that_was_made_although_the_answer_was_lost_is_ours(store, behind):
    root = store.root("writer-lost")
    with behind(store, [None, "cut"] if store.scheme == "s3" else ["cut"]) as log:  # S3 is first asked what is there
        with writer.hold(root):
            pass
        made, asked_again, *_, removed = [line for line in log if line.split()[0] not in ("GET", "HEAD")]
        assert made == asked_again and made.split()[0] == {"gs": "POST", "s3": "PUT"}[store.scheme]
        assert store.scheme == "s3" or "ifGenerationMatch=0" in made
        assert removed.startswith("DELETE")
        assert store.scheme == "s3" or "ifGenerationMatch=" in removed
    assert storage.sizes(root) == {}


def test_what_cannot_be_written_is_said(gcs, s3, tmp_path):
    (tmp_path / "file").write_text("x")
    for root, reason in (
        (str(tmp_path / "file"), "exists|directory"),
        ("gs://no-such-bucket/x", "404"),
        ("s3://no-such-bucket/x", "NoSuchBucket"),
    ):
        with pytest.raises(writer.WriterError, match=f"--output={root}: .*({reason})"), writer.hold(root):
            pass


def test_a_damaged_lock_is_held_by_somebody(store):
    root = store.root("writer-damaged")
    storage.write(f"{root}/.writer", b"\xff{")
    assert f"{root} is being written by another process. " in refused(root)
    with writer.hold(root, take_over=True):
        pass
    assert storage.sizes(root) == {}


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_store_that_ignores_conditions_is_warned_of(store, behind, caplog):
    root = store.root("writer-careless")
    with behind(store, [], drop=("If-None-Match", "If-Match")), writer.hold(root):
        (record,) = caplog.records
        assert record.getMessage().startswith(f"{root}/.writer: this store writes over an object although")
        refused(root)
    assert storage.sizes(root) == {}


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", " 1/2", "1/2\n", "²/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ValueError, match="the first of two is 1/2"):
        writer.Part.parse(text)


def test_only_our_own_files_are_locks():
    assert [writer.is_lock(name) for name in (".writer", ".writer-1-of-2", ".writer-x", "writer", ".writers")] == [
        True,
        True,
        False,
        False,
        False,
    ]
