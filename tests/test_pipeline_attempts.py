"""Whose fault it is that a clip gives no record: real ffmpeg, and programs in its place that misbehave as it can."""

import stat
import threading
import time
from pathlib import Path

import hostile_media
import pytest

from mbt.pipeline import attempts, decode, memory, probe
from mbt.pipeline.decode import UnusableError
from mbt.pipeline.errors import WorkerTroubleError

pytestmark = pytest.mark.quick

SECOND = 1_000_000


@pytest.fixture(scope="module")
def blockers(ffmpeg_program, tmp_path_factory) -> dict[str, Path]:
    """The worst media that are known, without the slow ones."""
    folder = tmp_path_factory.mktemp("blockers")
    (folder / "made").mkdir()
    paths = {}
    for name, data in hostile_media.blockers(ffmpeg_program, folder / "made", slow=False).items():
        paths[name] = folder / name
        paths[name].write_bytes(data)
    return paths


@pytest.fixture
def program(ffmpeg_program, tmp_path):
    """program(text) is an executable that runs a shell script; `$FFMPEG` is the real one, `$RUNS` counts the runs."""

    def write(text: str) -> str:
        path = tmp_path / "ffmpeg"
        path.write_text(f"#!/bin/sh\nFFMPEG={ffmpeg_program}\necho run >> {tmp_path}/runs\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def tried(path: Path, program: str, time_limit_s: float = 60) -> decode.Decoded:
    return attempts.tried(lambda: decode.decode(str(path), 0, SECOND, program=program, time_limit_s=time_limit_s))


@pytest.mark.parametrize("name", ["title.mp4", f"{hostile_media.FATAL}.mp4"])
def test_what_a_file_says_of_memory_decides_nothing(blockers, make_media, ffmpeg_program, name):
    said = tried(blockers[name], ffmpeg_program)
    assert list(said.frames) == list(tried(blockers["plain.mp4"], ffmpeg_program).frames)
    assert probe.probe(str(blockers[name]), 0, SECOND, ffmpeg_program).duration_us == SECOND


def test_more_memory_than_allowed_is_the_clips_fault_in_the_probe_too(blockers, ffmpeg_program):
    for look in (tried, lambda *of: attempts.tried(lambda: probe.probe(str(of[0]), 0, SECOND, of[1]))):
        with pytest.raises(UnusableError) as found:
            look(blockers["stts.mp4"], ffmpeg_program)
        assert found.value.reason == "too_much_memory"


def test_a_refused_allocation_is_tried_alone_each_time_with_all_of_the_memory(blockers, program, tmp_path):
    refused = program(f'ulimit -v >> {tmp_path}/limits; ulimit -c >> {tmp_path}/cores; exec sh -c "exit 244"')
    with pytest.raises(UnusableError) as found:
        tried(blockers["plain.mp4"], refused)
    assert found.value.reason == "too_much_memory"
    share, whole = memory.SHARE_BYTES >> 10, memory.WHOLE_BYTES >> 10
    assert (tmp_path / "limits").read_text().split() == [
        str(share),
        *[str(whole)] * 4,
    ]  # the first try ran alone, too, when it had failed beside others
    assert set((tmp_path / "cores").read_text().split()) == {"0"}


def test_one_that_lacks_memory_beside_others_gets_it_alone(blockers, program, ffmpeg_program, tmp_path):
    lacking = program(f'if [ $(wc -l < {tmp_path}/runs) = 1 ]; then exit 244; fi; exec "$FFMPEG" "$@"')
    made = tried(blockers["plain.mp4"], lacking)
    assert list(made.frames) == list(tried(blockers["plain.mp4"], ffmpeg_program).frames) and runs(tmp_path) == 2


def test_out_of_memory_on_a_full_machine_passes(blockers, program, monkeypatch):
    monkeypatch.setattr(memory, "WHOLE_BYTES", 1 << 60)  # more than any machine has
    with pytest.raises(attempts.PassingError) as found:
        tried(blockers["plain.mp4"], program("exit 244"))
    assert found.value.reason == "out_of_memory"


@pytest.mark.parametrize("signal", ["SEGV", "ABRT", "BUS", "TRAP", "SYS"])
def test_a_decoder_that_crashes_three_times_is_the_clips_fault(blockers, program, signal):
    with pytest.raises(UnusableError) as found:
        tried(blockers["plain.mp4"], program(f"kill -{signal} $$"))
    assert found.value.reason == "decoder_crashed"


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_decoder_that_is_killed_is_the_machines_fault(blockers, program, signal):
    with pytest.raises(WorkerTroubleError, match="3 times"):
        tried(blockers["plain.mp4"], program(f"kill -{signal} $$"))


def test_a_program_that_does_not_start_is_the_machines_fault(blockers, tmp_path):
    (tmp_path / "ffmpeg").write_text("no program")
    with pytest.raises(WorkerTroubleError, match="does not start"):
        tried(blockers["plain.mp4"], str(tmp_path / "ffmpeg"))


@pytest.mark.parametrize("text", ["while :; do :; done", "while :; do echo endless; done >&2"])
def test_a_clip_that_uses_up_its_time_is_too_slow_at_once(blockers, program, tmp_path, text):
    with pytest.raises(attempts.PassingError) as found:
        tried(blockers["plain.mp4"], program(text), time_limit_s=-1.5)
    assert found.value.reason == "too_slow" and runs(tmp_path) == 1


@pytest.mark.parametrize("text", ["exec sleep 60", "exec sleep 60 >&- 2>&-"])
def test_a_clip_that_idles_is_tried_three_times(blockers, program, tmp_path, text):
    closing = "".join(f"exec {number}>&-; " for number in range(3, 10)) if "&-" in text else ""
    with pytest.raises(attempts.PassingError) as found:
        tried(blockers["plain.mp4"], program(closing + text), time_limit_s=-1.5)
    assert found.value.reason == "too_slow" and runs(tmp_path) == 3


def test_a_busy_machine_makes_no_clip_slow(blockers, program, ffmpeg_program):
    """Twice the limit passes, in a third of which the program works."""
    works = "n=0; while [ $n -lt 12 ]; do n=$((n+1)); sleep 0.1; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done"
    started = time.monotonic()
    made = tried(blockers["plain.mp4"], program(f'{works}; exec "$FFMPEG" "$@"'), time_limit_s=-1)
    assert time.monotonic() - started > 1 and len(made.frames) == 25


def test_one_is_alone_when_no_other_runs():
    running, most_beside, stop = set(), [], threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            with memory.turn() as limit:
                assert limit == memory.SHARE_BYTES
                running.add(number)
                time.sleep(0.002)
                running.discard(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        with memory.alone(), memory.turn() as limit:
            most_beside.append(len(running))
            assert limit == memory.WHOLE_BYTES
    stop.set()
    for thread in threads:
        thread.join()
    assert most_beside == [0] * 20
