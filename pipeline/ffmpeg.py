"""One ffmpeg process: which binary, pinned to what, run inside which limits."""

import dataclasses
import errno
import fcntl
import functools
import os
import re
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mbt.pipeline import memory, reaper
from mbt.pipeline.errors import WorkerTroubleError
from mbt.pipeline.patience import Patience

MEMORY_LIMIT_BYTES = memory.WHOLE_BYTES
MAX_BLOCK_BYTES = 1 << 28  # what ffmpeg may ask for at once; a picture of 16 megapixels has 128 MiB at most
LOG_PART_BYTES = 1 << 17  # a broken file can log for ever: two parts of its beginning and one of its end are kept
_PIPE_BYTES = 1 << 20  # the largest that Linux grants without privileges
_NAP_S = 0.004  # lets several JPEGs gather, where the pipe holds them: a wake-up for each costs 3 % of the whole build
_SIGNALS_OF_CRASHES = "SIGSEGV SIGABRT SIGFPE SIGILL SIGBUS SIGTRAP SIGSYS"
_CRASHES = tuple(getattr(signal, name) for name in _SIGNALS_OF_CRASHES.split())
_NO_MEMORY = 256 - errno.ENOMEM  # ffmpeg's exit status
_NOT_STARTED = (126, 127)  # the shell's exit statuses
# In the log these say that a decoder may have gone without memory. An input can say so too: it costs one more run.
_MEMORY_WORDS = (os.strerror(errno.ENOMEM), "alloc")
# Limits are set before the program begins: in 0.06 s a file can have taken everything. By a shell, for code between
# fork and exec can abort or hang in a process that has threads (gRPC's fork handlers do). Stacks of threads count.
_LIMITED = 'ulimit -c 0; ulimit -S -s 8192 2>/dev/null; ulimit -v "$0" && exec "$@"'

# Float audio decoders sum in the order of the widest vectors at hand, so their last bits differ from CPU to CPU.
# Without everything from AVX on, each x86-64 machine of the last fifteen years computes alike; it costs nothing
# measurable, because the video side is integer arithmetic (docs/determinism.md).
CPU_FLAGS = "-avx512icl-avx512-avx2-fma3-fma4-xop-avx"

# Is told each part of an output as it comes; what it raises stops the process.
Heed = Callable[[bytes], None]
NOBODY: Mapping[int, Callable[[], Heed]] = {}


class FfmpegMissingError(RuntimeError):
    """There is no ffmpeg to run at the given place."""


class DecoderCrashError(WorkerTroubleError):
    """ffmpeg crashed. If it does so again and again, that is the input's doing."""


class OutOfMemoryError(WorkerTroubleError):
    """ffmpeg wanted more than all of its memory. If it does so again and again, that is the input's doing."""


INPUT_FAULTS = (DecoderCrashError, OutOfMemoryError)


class StoppedError(Exception):
    """The caller has read enough of the log, which this holds, and stopped the process."""

    def __init__(self, log: str):
        super().__init__("stopped")
        self.log = log


@dataclasses.dataclass(frozen=True)
class Run:
    """What one ffmpeg process left behind."""

    returncode: int
    outputs: tuple[bytearray, ...]
    log: str


@functools.cache
def executable(path: str | None = None) -> str:
    """The ffmpeg to run: `path`, or the one embedded in imageio-ffmpeg.

    Raises:
      FfmpegMissingError: it is not there.
    """
    if path is None:
        import imageio_ffmpeg

        # Not get_ffmpeg_exe(): that may fall back on whatever is on PATH, whose bytes differ.
        binaries = Path(imageio_ffmpeg.__file__).parent / "binaries"
        found = sorted(binaries.glob("ffmpeg-*")) if binaries.is_dir() else []
        if not found:
            raise FfmpegMissingError("imageio-ffmpeg has no ffmpeg for this platform: give one by --ffmpeg=PATH")
        return str(found[0])
    if not os.access(path, os.X_OK) or not os.path.isfile(path):
        raise FfmpegMissingError(f"--ffmpeg={path}: no such program")
    return os.path.abspath(path)


@functools.cache
def version(path: str | None = None) -> str:
    """The version word that `ffmpeg -version` prints.

    Raises:
      FfmpegMissingError: it does not run, or is something else.
    """
    program = executable(path)
    try:
        text = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise FfmpegMissingError(f"{program} does not run: {error}") from error
    if not (match := re.match(r"ffmpeg version (\S+)", text)):
        raise FfmpegMissingError(f"{program} is not ffmpeg")
    return match[1]


def run(
    program: str,
    arguments: Sequence[str],
    *,
    outputs: int,
    byte_limit: int,
    time_limit_s: float,
    stop: Callable[[str], bool] | None = None,
    heed: Mapping[int, Callable[[], Heed]] = NOBODY,
) -> Run:
    """Runs ffmpeg and collects what it writes.

    It runs beside others, within a share of the memory. Where it may have gone without some, or was stopped, it runs
    again alone with all of it, and what comes of that counts.

    Args:
      program: the executable.
      arguments: its command line; `{0}`, `{1}`... stand for the pipes of the outputs.
      outputs: number of pipes.
      byte_limit: for all outputs together.
      time_limit_s: of CPU time, or without using any.
      stop: asked each time that the beginning of the log has grown; whether that says enough.
      heed: by the number of an output, makes what is told each part of that as it comes, for every process anew.

    Raises:
      StoppedError: it does.
      WorkerTroubleError: the time limit passed, memory ran out, or the process was killed.
      OverflowError: more than `byte_limit` bytes came.
    """
    makers = dict(heed)
    if stop is not None:
        makers[outputs] = functools.partial(_asking, stop)
    start = functools.partial(
        _limited_run,
        program,
        arguments,
        outputs=outputs,
        byte_limit=byte_limit,
        time_limit_s=time_limit_s,
        heed=makers,
    )
    with memory.turn() as address_space:
        ended = start(address_space=address_space)
    if address_space < memory.WHOLE_BYTES and (ended.is_full or _may_have_lacked_memory(ended.run)):
        memory.place().begin_anew()
        with memory.alone(), memory.turn() as address_space:
            ended = start(address_space=address_space)
    _check(ended, program)
    return ended.run


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A run, and whether it came up to its limit of memory."""

    run: Run
    is_full: bool


def _limited_run(
    program: str,
    arguments: Sequence[str],
    *,
    outputs: int,
    byte_limit: int,
    time_limit_s: float,
    heed: Mapping[int, Callable[[], Heed]],
    address_space: int,
) -> _Ended:
    pipes = [os.pipe() for _ in range(outputs)]
    ends = [write_end for _, write_end in pipes]
    words = [argument.format(*(f"pipe:{end}" for end in ends)) for argument in arguments]
    try:
        process = subprocess.Popen(
            [*_limits(address_space), program, "-max_alloc", str(MAX_BLOCK_BYTES), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=ends,
            process_group=reaper.group(),
            # One arena: each more takes 64 MiB of address space, and how many there are depends on the machine.
            env={"PATH": os.defpath, "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "1"},
        )
    except OSError as error:
        for read_end, _ in pipes:
            os.close(read_end)
        raise WorkerTroubleError(f"{program} does not start: {error}") from error
    finally:
        for end in ends:
            os.close(end)
    assert process.stderr is not None
    readers = [read_end for read_end, _ in pipes]
    meter = memory.Meter(process.pid)
    with process:
        try:
            watch = Patience(process.pid, time_limit_s)
            told = {number: make() for number, make in heed.items()}
            *collected, log = _drain([*readers, process.stderr.fileno()], byte_limit, watch, meter, told)
            _wait(process, watch)
        except BaseException:
            process.kill()
            raise
        finally:
            for reader in readers:
                os.close(reader)
    run = Run(process.returncode, tuple(collected), _text(log))
    return _Ended(run, meter.has_reached(address_space))


def _asking(stop: Callable[[str], bool]) -> Heed:
    """Asks about the beginning of the log, each time that it has grown."""
    log = bytearray()

    def heed(part: bytes) -> None:
        if len(log) > 2 * LOG_PART_BYTES:
            return
        log.extend(part)
        if len(log) <= 2 * LOG_PART_BYTES and stop(_text(log)):
            raise StoppedError(_text(log))

    return heed


def _text(log: bytearray) -> str:
    return log.decode(errors="replace")


def _limits(address_space: int) -> list[str]:
    """The words before a command that limit it."""
    return ["/bin/sh", "-c", _LIMITED, str(address_space >> 10)] if hasattr(resource, "prlimit") else []


def _wait(process: subprocess.Popen, watch: Patience) -> None:
    while True:
        try:
            process.wait(watch.left_s())
            return
        except subprocess.TimeoutExpired:
            watch.check()


def _enlarge(pipe: int) -> bool:
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES) >= _PIPE_BYTES
    except (AttributeError, OSError):
        return False  # not Linux, or past the user's quota for pipe memory; the default size is only slower


def _drain(
    readers: list[int],
    byte_limit: int,
    watch: Patience,
    meter: memory.Meter,
    told: Mapping[int, Heed],
) -> list[bytearray]:
    """Reads all pipes to their ends; the last one is the log."""
    collected = [bytearray() for _ in readers]
    log = collected[-1]
    enlarged = [_enlarge(reader) for reader in readers]
    nap_s = _NAP_S if all(enlarged) else 0.0
    chunk = memoryview(bytearray(_PIPE_BYTES))
    with selectors.DefaultSelector() as selector:
        for number, reader in enumerate(readers):
            selector.register(reader, selectors.EVENT_READ, number)
        while selector.get_map():
            ready = selector.select(watch.left_s())
            watch.check()
            meter.look()
            time.sleep(nap_s)
            # The log first: what it says was said before what came of it.
            for key in sorted((key for key, _ in ready), key=lambda key: -key.data):
                buffer = collected[key.data]
                received = os.readv(key.fd, [chunk])
                buffer.extend(chunk[:received])
                if not received:
                    selector.unregister(key.fd)
                if buffer is not log and memory.take_room(received):
                    watch.begin_anew()
                if key.data in told:
                    told[key.data](bytes(chunk[:received]))
            if len(log) > 4 * LOG_PART_BYTES:  # what is dropped here lies in the middle, however it comes
                del log[2 * LOG_PART_BYTES : -LOG_PART_BYTES]
            if sum(len(buffer) for buffer in collected[:-1]) > byte_limit:
                raise OverflowError(byte_limit)
    if len(log) > 3 * LOG_PART_BYTES:
        del log[2 * LOG_PART_BYTES : -LOG_PART_BYTES]
    return collected


def _may_have_lacked_memory(run: Run) -> bool:
    """Whether another run, with more memory, may end otherwise."""
    return run.returncode < 0 or run.returncode == _NO_MEMORY or any(word in run.log for word in _MEMORY_WORDS)


def _check(ended: _Ended, program: str) -> None:
    """Raises where a run says nothing of the input, or that it wants too much. No text of an input decides that."""
    status = ended.run.returncode
    if status == _NO_MEMORY or (ended.is_full and _may_have_lacked_memory(ended.run)):
        raise OutOfMemoryError(f"ffmpeg wanted more memory than it may have, {memory.WHOLE_BYTES >> 30} GiB")
    if -status in _CRASHES:
        raise DecoderCrashError(f"ffmpeg crashed with signal {-status}")
    if status < 0:
        raise WorkerTroubleError(f"ffmpeg was stopped by signal {-status}")
    if status in _NOT_STARTED:
        raise WorkerTroubleError(f"{program} does not start")
