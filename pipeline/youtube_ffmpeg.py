"""What ffmpeg does to the files of a YouTube video, and what it says of them."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence

from mbt.pipeline.outcomes import TWICE, StopError
from mbt.pipeline.youtube_check import refused
from mbt.schemas.clip import Outcome

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts"

_STATUS = re.compile(r"HTTP error (\d{3})")
_START = re.compile(r"^ +Duration: .*, start: (-?\d+)\.(\d{6})", re.MULTILINE)


def merge(files: Sequence[str], ffmpeg: str) -> str:
    """One file of picture and sound, with the times they had: MP4 keeps them exactly, Matroska would round them."""
    reading = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS]
    inputs = [word for name in files for word in (*reading, "-i", f"file:{name}")]
    writing = ["-map", "0:v:0", "-map", "1:a:0", "-c", "copy", "-map_metadata", "-1", "-fflags", "+bitexact"]
    if run(ffmpeg, ["-v", "error", "-copyts", *inputs, *writing, "-f", "mp4", "file:merged.mp4"]).returncode:
        raise refused(Outcome.TRANSIENT, "not_media", "picture and sound cannot be put into one file", TWICE)
    return "merged.mp4"


def start_of(name: str, ffmpeg: str) -> int:
    """The first timestamp of a file, in microseconds."""
    reading = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS]
    log = run(ffmpeg, ["-hide_banner", *reading, "-i", f"file:{name}"]).stderr.decode(errors="replace")
    starts = _starts(log)
    if not starts:
        raise refused(Outcome.TRANSIENT, "range_failed", "nothing came of the span", TWICE)
    return starts[0]


def logged_starts(folder: str) -> list[int]:
    """The first timestamps of what ffmpeg read for this job, in microseconds."""
    return _starts(_read_log(folder))


def _starts(log: str) -> list[int]:
    """The first timestamps of ffmpeg's inputs, as its log has them, in microseconds."""
    return [int(whole + fraction) for whole, fraction in _START.findall(log)]


def run(ffmpeg: str, arguments: Sequence[str]) -> subprocess.CompletedProcess:
    """Runs ffmpeg to its end, and keeps what it says.

    Raises:
      StopError: it does not start.
    """
    environment = {"PATH": os.defpath, "AV_LOG_FORCE_NOCOLOR": "1"}
    command = [ffmpeg, "-nostdin", *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=False, env=environment)
    except OSError as error:
        raise StopError(f"ffmpeg does not start: {ffmpeg}: {error.strerror}") from error


@contextlib.contextmanager
def logged(folder: str) -> Iterator[None]:
    """Our standard error, and so that of ffmpeg when yt-dlp runs it, in a file of the job's."""
    before = os.dup(2)
    log = os.open(_log_path(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def statuses(folder: str) -> list[str]:
    """The HTTP errors that ffmpeg met: yt-dlp says only that it failed."""
    try:
        return [f"HTTP Error {status}" for status in _STATUS.findall(_read_log(folder))]
    except FileNotFoundError:
        return []


def _read_log(folder: str) -> str:
    with open(_log_path(folder), encoding="utf-8", errors="replace") as file:
        return file.read()


def _log_path(folder: str) -> str:
    return os.path.join(folder, "log")
