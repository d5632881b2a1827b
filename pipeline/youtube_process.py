"""The process that runs yt-dlp: each line of JSON on its input is a job, each line of its output says how it went.

See `youtube.py`, which starts it. Only this module imports yt-dlp, and no worker imports this module.
"""

import contextlib
import functools
import importlib.metadata
import io
import json
import os
import queue
import resource
import shutil
import signal
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import yt_dlp
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

from mbt.pipeline import disk, youtube_check, youtube_ffmpeg, youtube_formats, youtube_range, youtube_secrets
from mbt.pipeline.outcomes import TWICE, StopError, classify, retry_after
from mbt.schemas.clip import Outcome

_SOCKET_TIMEOUT_S = 20.0
_TELL_EVERY_S = 0.25
_MAX_PAGE_BYTES = 64 << 20  # a watch page has 1 MB, the player's script 3 MB
_IGNORED_WARNINGS = ("ffmpeg not found",)  # on purpose: what yt-dlp reads itself, ffmpeg never reads from the network


def serve() -> None:
    """Answers jobs until its input ends; then ends this process and its children."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # ffmpeg would read what is meant for us
    os.dup2(null, 1)
    waiting: queue.SimpleQueue[dict] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs, waiting), daemon=True).start()
    while True:
        job = waiting.get()
        print(
            json.dumps(answer(job, lambda count: print(json.dumps({"bytes": count}), file=answers, flush=True))),
            file=answers,
            flush=True,
        )


def _listen(jobs: io.BufferedReader, waiting: "queue.SimpleQueue[dict]") -> None:
    """Hands jobs on. When the parent ends, its pipe does: then nothing of the job must stay, no file and no process."""
    folder = ""
    for line in jobs:
        job = json.loads(line)
        folder = job["folder"]
        waiting.put(job)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def answer(job: dict, tell: Callable[[int], None]) -> dict:
    """How a job went: the finished file, or `failure`, or `stop`; without any of the job's secrets."""
    listener = _Listener()
    hide = functools.partial(str)
    try:
        cookies = youtube_secrets.read_cookies(job["cookies"], job["cookies_text"])
        hide = functools.partial(youtube_secrets.hidden, youtube_secrets.secrets_of(cookies, job["proxy"]))
        with _private(job["folder"]), youtube_ffmpeg.logged(job["folder"]):
            return _download(job, cookies, listener, tell)
    except BaseException as error:
        try:
            _check_room(job["folder"])
            failure = classify(error, [*listener.said, *youtube_ffmpeg.statuses(job["folder"])])
        except StopError as stop:
            return {"stop": hide(str(stop))}
        waits = failure.retry_after_s if failure.retry_after_s is not None else listener.retry_after_s
        if failure.outcome not in (Outcome.BLOCKED, Outcome.TRANSIENT):
            waits = None
        return {"failure": asdict(replace(failure, detail=hide(failure.detail), retry_after_s=waits))}


def _check_room(folder: str) -> None:
    """Tells a disk that is full from what a server or a file did: yt-dlp and ffmpeg leave no more of it than words.

    Raises:
      StopError: it takes nothing.
    """
    try:
        disk.check_room(folder)
    except OSError as error:
        if disk.is_trouble(error):
            raise StopError(disk.said(error)) from error


class _Listener:
    """yt-dlp's logger: keeps what it warned of, and how long a server asked us to wait."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.retry_after_s: float | None = None

    def debug(self, message: object) -> None:
        """Most of what yt-dlp says; one of them is an error for us."""
        if "larger than max-filesize" in str(message):
            self.said.append(str(message))

    def warning(self, message: object) -> None:
        """Keeps it."""
        if not any(ignored in str(message) for ignored in _IGNORED_WARNINGS):
            self.said.append(str(message))

    def error(self, message: object) -> None:
        """Comes as an exception too."""


class _YoutubeDL(yt_dlp.YoutubeDL):
    """Tells the listener more than yt-dlp's own."""

    def write_debug(self, message, only_once=False):
        """Of its default clients, yt-dlp says only here that their formats lack a token."""
        if "PO Token" in message or "missing a URL" in message:
            self.params["logger"].warning(message)

    def urlopen(self, request):
        """Notices `Retry-After`: the errors that come of it may not have it any more."""
        try:
            response = super().urlopen(request)
        except HTTPError as error:
            if (wait_s := retry_after(error.response.headers)) is not None:
                self.params["logger"].retry_after_s = wait_s
            raise
        host = urllib.parse.urlsplit(response.url).hostname or ""
        if host.endswith("youtube.com") and _length(response.headers) > _MAX_PAGE_BYTES:  # it is read into memory
            response.close()
            raise youtube_check.refused(Outcome.TRANSIENT, "page_too_large", f"{host} sent more than a page", TWICE)
        return response


def _length(headers: Mapping[str, str]) -> int:
    value = headers.get("Content-Length") or ""
    return int(value) if value.isdecimal() else 0


def _download(job: dict, cookies: str | None, listener: _Listener, tell: Callable[[int], None]) -> dict:
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_bytes"], resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    meter = _Meter(job["max_bytes"], tell)
    with _YoutubeDL(parameters(job, cookies, listener, meter)) as downloader:
        url = f"https://www.youtube.com/watch?v={job['video']}"
        info = downloader.extract_info(url, download=False, process=False)
        youtube_check.check(info, job)
        if job["ask_only"]:
            return {"tools": tools()}
        ranged = youtube_range.wants_range(job, info)
        if ranged:
            downloader.params |= youtube_range.range_parameters(job, downloader.params["socket_timeout"])
        with _ffmpeg(job["ffmpeg"] if ranged else None):
            info = downloader.process_ie_result(info, download=True)
    downloads = info.get("requested_downloads") or [{}]
    files = [youtube_check.received(download, job, listener.said) for download in downloads]
    source_starts = youtube_ffmpeg.logged_starts(job["folder"]) if ranged else []
    name = files[0] if len(files) == 1 else youtube_ffmpeg.merge(files, job["ffmpeg"])
    starts_at_us = 0
    if ranged:
        starts_at_us = youtube_ffmpeg.start_of(name, job["ffmpeg"]) - min(source_starts, default=0)
    return {"name": name, "starts_at_us": starts_at_us, "tools": tools()}


def tools() -> str:
    """What takes part, with versions."""
    return f"yt-dlp {yt_dlp.version.__version__}, deno {importlib.metadata.version('deno')}"


def parameters(job: dict, cookies: str | None, listener: object, meter: Callable[[dict], None]) -> dict[str, Any]:
    """yt-dlp's parameters for a job."""
    settings: dict[str, Any] = {
        "allowed_extractors": ["youtube$"],
        "noplaylist": True,
        "format": lambda context: youtube_formats.choose(context["formats"]),
        "outtmpl": "%(vcodec).4s.%(ext)s",  # "avc1.mp4", "none.m4a"
        "paths": {"home": job["folder"]},
        "restrictfilenames": True,
        "cachedir": False,
        "js_runtimes": {"deno": {"path": deno()}},
        "logger": listener,
        "noprogress": True,
        "color": "never",
        "progress_hooks": [meter],
        "max_filesize": job["max_bytes"],
        "ratelimit": job["bytes_per_second"],
        "socket_timeout": min(_SOCKET_TIMEOUT_S, job["time_limit_s"]),
        # A second try at once, for a connection that was cut; what takes patience is for our caller.
        "retries": 1,
        "extractor_retries": 1,
        "fragment_retries": 1,
        "file_access_retries": 0,
        "skip_unavailable_fragments": False,
        "updatetime": False,
        "fixup": "never",
        # Comments, chapters and the like are what this data would be for: one request less.
        "extractor_args": {"youtube": {"player_skip": ["initial_data"], "skip": ["translated_subs"]}},
        "compat_opts": ["no-certifi"] if os.environ.get("SSL_CERT_FILE") else [],
    }
    if job["proxy"]:
        settings["proxy"] = job["proxy"]
    if cookies is not None:
        settings["cookiefile"] = io.StringIO(cookies)
    return settings


@functools.cache
def deno() -> str:
    """The JavaScript runtime: the one of the `deno` package.

    Raises:
      StopError: it is not there.
    """
    try:
        from deno import find_deno_bin

        return find_deno_bin()
    except (ImportError, FileNotFoundError) as error:
        raise StopError("YouTube needs a JavaScript runtime, and none is installed: pip install deno") from error


@contextlib.contextmanager
def _ffmpeg(program: str | None) -> Iterator[None]:
    """Lets yt-dlp have an ffmpeg, or none: parts of it look only here, not at `ffmpeg_location`."""
    token = FFmpegPostProcessor._ffmpeg_location.set(program)
    try:
        yield
    finally:
        FFmpegPostProcessor._ffmpeg_location.reset(token)


class _Meter:
    """yt-dlp's progress hook: tells how many bytes came, and stops what is too large."""

    def __init__(self, max_bytes: int, tell: Callable[[int], None]):
        self._max_bytes, self._tell = max_bytes, tell
        self._counts: dict[str, int] = {}
        self._told, self._told_at = 0, 0.0

    def __call__(self, status: dict) -> None:
        count = status.get("downloaded_bytes") or 0
        self._counts[status.get("filename") or ""] = count
        if max(count, status.get("total_bytes") or 0) > self._max_bytes:
            raise youtube_check.too_large(self._max_bytes)
        if status["status"] == "finished" or time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._report(sum(self._counts.values()))

    def _report(self, count: int) -> None:
        if count > self._told:
            self._tell(count - self._told)
            self._told = count
        self._told_at = time.monotonic()


@contextlib.contextmanager
def _private(folder: str) -> Iterator[None]:
    """Whatever yt-dlp, deno and ffmpeg keep beside the file they keep in the job's folder, which is deleted."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DENO_DIR", "TMPDIR"):
        os.environ[name] = folder
    os.environ["DENO_NO_UPDATE_CHECK"] = "1"
    tempfile.tempdir = folder
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir("/")
