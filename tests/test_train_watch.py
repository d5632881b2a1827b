"""Processes of a run that find each other, and end when one of them dies: real ones, without the training."""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mbt.train.relay import relay

PROGRAM = pathlib.Path(__file__).with_name("run_member.py")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def member(port):
    """member(me, ...) starts a process; none is left behind."""
    started = []

    def start(me: int, count: int = 2, **words) -> subprocess.Popen:
        words = {"port": port, "count": count, "me": me, "timeout_s": 60} | words
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, PROGRAM, json.dumps(words)], text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def meet(processes: list[subprocess.Popen]) -> None:
    assert [process.stdout.readline() for process in processes] == ["met\n"] * len(processes)


def told(process: subprocess.Popen, line: str = "") -> tuple[int, str]:
    """Gives a process a line, and waits; its exit status, and what it said on stderr."""
    if line:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    process.wait()
    return process.returncode, process.stderr.read().lstrip("\n")


def test_all_leave_and_nobody_is_missed(member):
    processes = [member(me, 3) for me in (2, 0, 1)]
    meet(processes)
    assert [told(process, "leave") for process in processes] == [(0, "")] * 3


@pytest.mark.parametrize(("count", "victim"), [(2, 0), (2, 1), (4, 0), (4, 2)])
def test_when_one_is_killed_the_others_say_which_and_end(member, count, victim):
    processes = [member(me, count) for me in range(count)]
    meet(processes)
    processes[victim].kill()
    ended = [told(process) for process in processes]
    where = "127.0.0.1" if victim == 0 else socket.gethostname()
    line = (
        f"mbt-train: process {victim} on {where} has died: killed, out of memory, or with its host; all others end; "
        "do it again\n"
    )
    assert ended.pop(victim) == (-signal.SIGKILL, "")
    assert ended == [(75, line)] * (count - 1)


@pytest.mark.parametrize("advice", ["hang", "fail"])
def test_what_keeps_from_asking_what_to_do_does_not_keep_the_process(member, advice):
    """Such as a file system that has gone with the host."""
    processes = [member(me, advice=advice) for me in range(2)]
    meet(processes)
    processes[0].kill()
    status, errors = told(processes[1])
    assert status == 75
    assert errors.startswith("mbt-train: process 0 on 127.0.0.1 has died")


@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_falls_silent_is_lost_and_told_so_when_it_wakes(member, victim):
    processes = [member(me, 3) for me in range(3)]
    meet(processes)
    processes[victim].send_signal(signal.SIGSTOP)
    for me, process in enumerate(processes):
        if me != victim:
            status, errors = told(process)
            assert status == 75
            assert f"process {victim} on " in errors and "gave no sign of life for 3 s" in errors
    processes[victim].send_signal(signal.SIGCONT)
    status, errors = told(processes[victim])
    assert status == 75
    assert f"this process, {victim} on " in errors


def test_a_job_that_is_suspended_as_a_whole_goes_on(member):
    processes = [member(me, silence_s=0.8) for me in range(2)]
    meet(processes)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(2)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    assert [told(process, "leave") for process in processes] == [(0, "")] * 2


@pytest.mark.parametrize("failing", [0, 2])
def test_when_one_fails_all_end_with_its_status_and_reason(member, failing):
    processes = [member(me, 3) for me in range(3)]
    meet(processes)
    assert told(processes[failing], "fail") == (1, "")
    for me, process in enumerate(processes):
        if me != failing:
            assert told(process) == (1, f"mbt-train: process {failing} ended: a record is damaged\n")


def test_a_reason_of_many_pages_is_cut(member):
    processes = [member(me, reason="ä" * 20_000) for me in range(2)]
    meet(processes)
    assert told(processes[1], "fail")[0] == 1
    status, errors = told(processes[0])
    assert status == 1
    assert errors.startswith("mbt-train: process 1 ended: ää") and errors.endswith("ää ...\n") and len(errors) < 3000


def test_who_does_not_come_is_named_to_those_who_did(member):
    processes = [member(me, 4, timeout_s=3) for me in (0, 2)]
    for process in processes:
        assert told(process) == (75, "processes 1, 3 did not come within 3 s\n")


def test_process_0_that_does_not_come_is_named(member, port):
    status, errors = told(member(1, timeout_s=1))
    assert status == 75
    assert errors.startswith(f"process 0 was not found at 127.0.0.1:{port} within 1 s (")


def test_one_that_died_while_it_waited_may_come_again(member):
    first, early = member(0, 3), member(1, 3)
    with pytest.raises(subprocess.TimeoutExpired):
        early.wait(2)
    early.kill()
    early.wait()
    processes = [first, member(1, 3), member(2, 3)]
    meet(processes)
    assert [told(process, "leave")[0] for process in processes] == [0, 0, 0]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"me": 1, "count": 3}, "process 1 was started as one of 3, process 0 as one of 2"),
        (
            {"me": 1, "run": "other"},
            "process 1 has another config or snapshot than process 0; start all with one command",
        ),
    ],
)
def test_what_is_not_one_run_is_refused_by_all(member, other, reason):
    for process in (member(0, 2), member(**other)):
        assert told(process) == (2, f"{reason}\n")


@pytest.mark.parametrize("number", [2, 99, -3])
def test_a_number_that_the_run_does_not_have_is_not_let_in(member, port, number):
    first = member(0, 2)
    with contextlib.closing(arrive(port)) as stranger:
        stranger.sendall(json.dumps({"join": number, "of": 2, "run": "run"}).encode() + b"\n")
        assert stranger.recv(1) == b""  # closed, with nothing said
    processes = [first, member(1, 2)]
    meet(processes)
    assert [told(process, "leave")[0] for process in processes] == [0, 0]


def arrive(port: int) -> socket.socket:
    """A connection to process 0, as soon as that listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_number_that_is_given_twice_is_refused_by_all(member):
    reason = "two processes were started as process 1; give each its own number\n"
    first, *others = member(0, 3), member(1, 3), member(1, 3)
    assert [told(process) for process in others] == [(2, reason)] * 2
    assert [told(process) for process in (member(2, 3), first)] == [(2, reason)] * 2  # whoever comes late, too


def test_a_port_that_is_taken_is_refused(member, port):
    with socket.create_server(("127.0.0.1", port)):
        status, errors = told(member(0))
    assert status == 2
    assert errors.startswith(f"coordinator 127.0.0.1:{port}: process 0 cannot listen there: Address already in use")


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\n\r\n", b"[" * 60_000 + b"\n", b"7\n", b'{"of": 9}\n', b"\x16\x03\x01\n", b""]
)
def test_strangers_are_not_minded(member, port, words):
    first = member(0)
    with connected(port) as stranger:
        stranger.sendall(words)
        second = member(1)
        meet([first, second])
    assert [told(process, "leave") for process in (first, second)] == [(0, "")] * 2


def connected(port: int) -> socket.socket:
    """A connection to a process that is about to listen."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.05)


def test_what_is_relayed_arrives_and_the_end_of_the_other_side_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer_once, args=(server,))
        answering.start()
        with socket.create_connection(("127.0.0.1", relay("127.0.0.1", server.getsockname()[1]))) as client:
            client.sendall(b"question")
            assert client.recv(100) == b"answer to question"
            answering.join()
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(100)


def answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"answer to " + connection.recv(100))
