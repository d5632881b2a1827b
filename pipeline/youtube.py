"""YouTube videos to files, by yt-dlp in processes of its own.

A process, because nothing else ends a server that trickles, a script that loops and an ffmpeg that hangs at the same
moment: it is killed with its children when time is up. A process is used again for the next video, since importing
yt-dlp takes more CPU than most downloads.
"""

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qs, urlsplit

from mbt.pipeline.outcomes import TWICE, Failure, FetchError, StopError, classify
from mbt.schemas.clip import Outcome

DOWNLOADS = ("auto", "whole", "range")
_VIDEOS_PER_PROCESS = 50  # yt-dlp's memory grows a little with each
_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_HOSTS = frozenset({"youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com"})
_SHORT_HOSTS = frozenset({"youtu.be", "www.youtu.be"})
_EMBED_HOSTS = frozenset({"youtube-nocookie.com", "www.youtube-nocookie.com"})
_FOLDERS = ("shorts", "embed", "live", "v")
# What a process may know of ours: proxies, certificates, the language; no keys and no settings of anything else.
_ENVIRONMENT = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH"),
)
# No PATH: yt-dlp would leave some downloads to an ffmpeg that it finds there. No plugins of the user's.
_FIXED = {"PATH": "/nonexistent", "YTDLP_NO_PLUGINS": "1"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to download.

    Attributes:
      cookies: a file in Netscape's format; it is read and never written.
      cookies_text: what it holds, where this machine has it in no file; `cookies` is then its name in messages.
      download: "whole", "range" (only the span, by ffmpeg) or "auto": whole, unless the video is long.
      bytes_per_second: limit of one download; ffmpeg, which reads ranges, knows none.
      time_limit_s: of one download, all in all.
      max_bytes: of the file.
      ffmpeg: the program.
    """

    cookies: str | None = None
    cookies_text: str | None = field(default=None, repr=False)
    download: str = "auto"
    bytes_per_second: int | None = None
    time_limit_s: float = 900.0
    max_bytes: int = 2 << 30
    ffmpeg: str

    def __post_init__(self):
        if self.download not in DOWNLOADS:
            raise ValueError(f"download={self.download!r}: one of {', '.join(DOWNLOADS)}")


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A file that was downloaded.

    Attributes:
      path: of the file.
      starts_at_us: what time of the video the file's zero is, in microseconds; 0 of a whole video. A file's zero is its
        earliest timestamp.
      bytes: its size.
      tools: what made it, with versions.
    """

    path: str
    starts_at_us: int
    bytes: int
    tools: str


def video_id(source: str) -> str | None:
    """The id in any usual form of a YouTube URL; None for everything else."""
    # urlsplit would forgive both.
    if not source.isascii() or any(character.isspace() or ord(character) < 32 for character in source):
        return None
    try:
        url = urlsplit(source)
        port, host = url.port, (url.hostname or "").lower()
    except ValueError:
        return None
    if url.scheme.lower() not in ("http", "https") or port not in (None, 80, 443) or "@" in url.netloc:
        return None
    found = _in_url(host, url.path, url.query)
    return found if found is not None and _ID.fullmatch(found) else None


def _in_url(host: str, path: str, query: str) -> str | None:
    parts = path.strip("/").split("/")
    if host in _SHORT_HOSTS:
        return parts[0] if len(parts) == 1 else None
    if host not in _HOSTS | _EMBED_HOSTS:
        return None
    if parts == ["watch"] and host in _HOSTS:
        values = parse_qs(query).get("v", [])
        return values[0] if len(values) == 1 else None
    folders = _FOLDERS if host in _HOSTS else ("embed",)
    return parts[1] if len(parts) == 2 and parts[0] in folders else None


def download(  # noqa: PLR0917 - a thread pool's callers give them all by place
    video: str,
    span_us: tuple[int, int] | None,
    folder: str,
    settings: Settings,
    proxy: str | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Downloaded:
    """Downloads a video, or at least a span of it, into a folder.

    Any number of threads may do so at a time. The folder gets the finished file and nothing else, whatever happens.

    Args:
      video: an id, as `video_id` returns it.
      span_us: (start, end) in microseconds; None for all of it.
      folder: where the file goes; it must exist.
      settings: limits and cookies.
      proxy: URL of an HTTP or SOCKS proxy; None for the environment's.
      on_bytes: called from this thread now and then with how many more bytes came.

    Raises:
      FetchError: with the outcome.
      StopError: the machine or the settings are at fault.
    """
    if not _ID.fullmatch(video):
        raise ValueError(f"{video!r} is not the id of a YouTube video")
    try:
        with _work(video, folder) as work:
            answer = _ask(_job(video, span_us, work, settings, proxy), settings.time_limit_s, on_bytes)
            return _settle(answer, work, folder)
    except OSError as error:  # of ours: yt-dlp's are in the answer
        raise FetchError(classify(error)) from error


def ask(video: str, settings: Settings, proxy: str | None = None) -> None:
    """Asks whether a video could be downloaded now, and downloads nothing.

    Raises:
      FetchError: it could not, with the outcome.
      StopError: the machine or the settings are at fault.
    """
    with tempfile.TemporaryDirectory(prefix="mbt-ask-") as folder, _work(video, folder) as work:
        answer = _ask(
            _job(video, None, work, settings, proxy) | {"ask_only": True}, settings.time_limit_s, lambda count: None
        )
        _raise_for(answer)


@contextlib.contextmanager
def _work(video: str, folder: str) -> Iterator[str]:
    """A folder for everything that is not finished."""
    work = tempfile.mkdtemp(prefix=f".youtube-{video}-", dir=os.path.abspath(folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _job(video: str, span_us: tuple[int, int] | None, work: str, settings: Settings, proxy: str | None) -> dict:
    cookies = settings.cookies
    if cookies and settings.cookies_text is None:
        cookies = os.path.abspath(cookies)
    paths = {"cookies": cookies, "ffmpeg": os.path.abspath(settings.ffmpeg), "folder": work}
    return asdict(settings) | paths | {"video": video, "span_us": span_us, "proxy": proxy, "ask_only": False}


def _raise_for(answer: dict) -> None:
    if stop := answer.get("stop"):
        raise StopError(stop)
    if failure := answer.get("failure"):
        raise FetchError(Failure(**failure | {"outcome": Outcome(failure["outcome"])}))


def _settle(answer: dict, work: str, folder: str) -> Downloaded:
    _raise_for(answer)
    name = os.path.basename(answer["name"])
    final = os.path.join(folder, os.path.basename(work).removeprefix(".") + os.path.splitext(name)[1])
    os.replace(os.path.join(work, name), final)
    return Downloaded(
        path=final, starts_at_us=answer["starts_at_us"], bytes=os.path.getsize(final), tools=answer["tools"]
    )


class _Process:
    """One process of yt-dlp, the leader of a group, which ends itself and its children when this process ends."""

    def __init__(self, environment: dict[str, str]):
        self.videos = 0
        self._popen = subprocess.Popen(
            [sys.executable, "-c", "from mbt.pipeline import youtube_process; youtube_process.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            env=environment,
        )

    def ask(self, job: dict, on_bytes: Callable[[int], None]) -> dict | None:
        """The answer to a job; None where the process ended instead."""
        stdin, stdout = self._popen.stdin, self._popen.stdout
        assert stdin is not None
        assert stdout is not None
        self.videos += 1
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()
        for line in stdout:
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote
            answer = json.loads(line)
            if "bytes" not in answer:
                return answer
            on_bytes(answer["bytes"])
        return None

    def kill(self) -> None:
        """Ends the process and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process, and waits for it."""
        self.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close() if pipe is not None else None


_lock = threading.Lock()
_idle: dict[tuple, list[_Process]] = {}  # by who owns them, and their environment


@contextlib.contextmanager
def _process() -> Iterator[_Process]:
    """A process for one job: one that has nothing to do, or a new one."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _FIXED
    key = (os.getpid(), *sorted(environment.items()))  # after a fork, the parent's are not ours
    with _lock:
        waiting = _idle.setdefault(key, [])
        process = waiting.pop() if waiting else None
    process = process or _Process(environment)
    try:
        yield process
    except BaseException:
        process.close()
        raise
    if process.videos >= _VIDEOS_PER_PROCESS:
        process.close()
    else:
        with _lock:
            waiting.append(process)


@atexit.register
def close() -> None:
    """Ends the processes that have nothing to do."""
    with _lock:
        mine = [process for key, processes in _idle.items() if key[0] == os.getpid() for process in processes]
        _idle.clear()
    for process in mine:
        process.close()


def _ask(job: dict, time_limit_s: float, on_bytes: Callable[[int], None]) -> dict:
    with _process() as process:
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(time_limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            answer = process.ask(job, on_bytes)
        finally:
            timer.cancel()
            timer.join()
        if answer is None or late.is_set():
            raise FetchError(_cut_off(late.is_set(), time_limit_s))
        return answer


def _cut_off(late: bool, time_limit_s: float) -> Failure:
    if late:
        reason, detail = "too_slow", f"not done after {time_limit_s:g} s"
    else:
        reason, detail = "process_died", "the process of yt-dlp ended, which a machine without free memory may cause"
    return Failure(outcome=Outcome.TRANSIENT, reason=reason, detail=detail, tries=TWICE)
