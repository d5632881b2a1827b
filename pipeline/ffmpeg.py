"""One ffmpeg process: which binary, pinned to what, run inside which limits."""

import contextlib
import dataclasses
import fcntl
import functools
import os
import re
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from mbt.pipeline import reaper

MEMORY_LIMIT_BYTES = 3 << 30  # address space; 16 reference frames of 16 megapixels need 0.5 GiB
LOG_PART_BYTES = 1 << 17  # a broken file can log for ever: its beginning and its end are kept
_PIPE_BYTES = 1 << 20  # the largest that Linux grants without privileges
_NAP_S = 0.004  # lets several JPEGs gather, where the pipe holds them: a wake-up for each costs 3 % of the whole build
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS)

# Float audio decoders sum in the order of the widest vectors at hand, so their last bits differ from CPU to CPU.
# Without everything from AVX on, each x86-64 machine of the last fifteen years computes alike; it costs nothing
# measurable, because the video side is integer arithmetic (docs/determinism.md).
CPU_FLAGS = "-avx512icl-avx512-avx2-fma3-fma4-xop-avx"


class FfmpegMissingError(RuntimeError):
    """There is no ffmpeg to run at the given place."""


class WorkerTroubleError(RuntimeError):
    """This machine failed (time, memory, disk), not the input: the shard wants another try."""


class DecoderCrashError(WorkerTroubleError):
    """ffmpeg crashed. If it does so again and again, that is the input's doing."""


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


def run(program: str, arguments: Sequence[str], *, outputs: int, byte_limit: int, time_limit_s: float) -> Run:
    """Runs ffmpeg and collects what it writes.

    Args:
      program: the executable.
      arguments: its command line; `{0}`, `{1}`... stand for the pipes of the outputs.
      outputs: number of pipes.
      byte_limit: for all outputs together.
      time_limit_s: wall clock.

    Raises:
      WorkerTroubleError: the time limit passed, memory ran out, or the process was killed.
      OverflowError: more than `byte_limit` bytes came.
    """
    pipes = [os.pipe() for _ in range(outputs)]
    ends = [write_end for _, write_end in pipes]
    command = [program, *(argument.format(*(f"pipe:{end}" for end in ends)) for argument in arguments)]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=ends,
            process_group=reaper.group(),
            env={"PATH": os.defpath, "AV_LOG_FORCE_NOCOLOR": "1"},
        )
    except OSError as error:
        for read_end, _ in pipes:
            os.close(read_end)
        raise WorkerTroubleError(f"{program} does not start: {error}") from error
    finally:
        for end in ends:
            os.close(end)
    assert process.stderr is not None
    _limit_memory(process.pid)
    readers = [read_end for read_end, _ in pipes]
    with process:
        try:
            *collected, log = _drain([*readers, process.stderr.fileno()], byte_limit, time.monotonic() + time_limit_s)
        except BaseException:
            process.kill()
            raise
        finally:
            for reader in readers:
                os.close(reader)
    return _finished(process.returncode, tuple(collected), bytes(log).decode(errors="replace"))


def _limit_memory(process: int) -> None:
    # From here, a moment after the start: code between fork and exec, where limits are usually set, can abort or hang
    # in a process that has threads (gRPC's fork handlers do).
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process, resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
            resource.prlimit(process, resource.RLIMIT_CORE, (0, 0))


def _enlarge(pipe: int) -> bool:
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES) >= _PIPE_BYTES
    except (AttributeError, OSError):
        return False  # not Linux, or past the user's quota for pipe memory; the default size is only slower


def _drain(readers: list[int], byte_limit: int, deadline: float) -> list[bytearray]:
    """Reads all pipes to their ends; the last one is the log."""
    collected = [bytearray() for _ in readers]
    log = collected[-1]
    enlarged = [_enlarge(reader) for reader in readers]
    nap_s = _NAP_S if all(enlarged) else 0.0
    chunk = memoryview(bytearray(_PIPE_BYTES))
    with selectors.DefaultSelector() as selector:
        for reader, buffer in zip(readers, collected, strict=True):
            selector.register(reader, selectors.EVENT_READ, buffer)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                raise WorkerTroubleError("ffmpeg ran into the time limit")
            time.sleep(nap_s)
            for key, _ in ready:
                received = os.readv(key.fd, [chunk])
                key.data.extend(chunk[:received])
                if not received:
                    selector.unregister(key.fd)
            if len(log) > 3 * LOG_PART_BYTES:
                del log[LOG_PART_BYTES:-LOG_PART_BYTES]
            if sum(len(buffer) for buffer in collected[:-1]) > byte_limit:
                raise OverflowError(byte_limit)
    return collected


def _finished(returncode: int, outputs: tuple[bytearray, ...], log: str) -> Run:
    if "Cannot allocate memory" in log or "malloc of size" in log:
        raise WorkerTroubleError(f"ffmpeg ran out of its {MEMORY_LIMIT_BYTES >> 30} GiB of memory")
    if -returncode in _CRASHES:
        raise DecoderCrashError(f"ffmpeg crashed with signal {-returncode}")
    if returncode < 0:
        raise WorkerTroubleError(f"ffmpeg was stopped by signal {-returncode}")
    return Run(returncode, outputs, log)
