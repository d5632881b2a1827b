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
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import yt_dlp
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

from mbt.pipeline.outcomes import ONCE, TWICE, Failure, FetchError, StopError, classify, retry_after
from mbt.schemas.clip import MICROSECONDS, Outcome

# benchmarks/youtube_cut.py: a whole download and a local cut take as long as ffmpeg's ranged reads where the video has
# one to two minutes. Of the two, the whole needs fewer requests, and goes on where it was cut.
WHOLE_UP_TO_S = 120
RANGE_MARGIN_US = MICROSECONDS  # on both sides of the span, for decoders and filters that look around

SHORTER_SIDE = 256  # what the records hold
ENOUGH = 360  # more only costs
GOOD_SOUND_KBPS = 128  # records hold 16 kHz mono
PROTOCOLS = ("https", "http", "m3u8_native", "http_dash_segments")  # all read by yt-dlp itself
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts"

_SOCKET_TIMEOUT_S = 20.0
# YouTube sends slowly what is asked for without an end: yt-dlp's own limit on a request is 10 MiB
# (https://github.com/yt-dlp/yt-dlp/issues/17612).
_REQUEST_BYTES = 4 << 20
_TELL_EVERY_S = 0.25
_MAX_PAGE_BYTES = 64 << 20  # a watch page has 1 MB, the player's script 3 MB
_SECRET_CHARACTERS = 6  # a shorter cookie value hides nothing, and would be found in every text
_STATUS = re.compile(r"HTTP error (\d{3})")
_TABS = 6  # before the value, in a line of a cookies file
_START = re.compile(r"^ +Duration: .*, start: (-?\d+)\.(\d{6})", re.MULTILINE)
_HEADS = (b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"free", b"mdat")
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
        cookies = _cookies(job["cookies"], job["cookies_text"])
        hide = functools.partial(_hidden, _secrets(cookies, job["proxy"]))
        with _private(job["folder"]), _log(job["folder"]):
            return _download(job, cookies, listener, tell)
    except BaseException as error:
        try:
            failure = classify(error, [*listener.said, *_statuses(job["folder"])])
        except StopError as stop:
            return {"stop": hide(str(stop))}
        waits = failure.retry_after_s if failure.retry_after_s is not None else listener.retry_after_s
        if failure.outcome not in (Outcome.BLOCKED, Outcome.TRANSIENT):
            waits = None
        return {"failure": asdict(replace(failure, detail=hide(failure.detail), retry_after_s=waits))}


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
            raise _refused(Outcome.TRANSIENT, "page_too_large", f"{host} sent more than a page", TWICE)
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
        _check(info, job)
        if job["ask_only"]:
            return {"tools": tools()}
        ranged = wants_range(job, info)
        if ranged:
            downloader.params |= _range_parameters(job)
        with _ffmpeg(job["ffmpeg"] if ranged else None):
            info = downloader.process_ie_result(info, download=True)
    files = [_received(download, job, listener) for download in info.get("requested_downloads") or [{}]]
    source_starts = _starts(_read_log(job["folder"])) if ranged else []
    name = files[0] if len(files) == 1 else _merge(files, job["ffmpeg"])
    starts_at_us = 0
    if ranged:
        starts_at_us = _start_of(name, job["ffmpeg"]) - min(source_starts, default=0)
    return {"name": name, "starts_at_us": starts_at_us, "tools": tools()}


def tools() -> str:
    """What takes part, with versions."""
    return f"yt-dlp {yt_dlp.version.__version__}, deno {importlib.metadata.version('deno')}"


def parameters(job: dict, cookies: str | None, listener: object, meter: Callable[[dict], None]) -> dict[str, Any]:
    """yt-dlp's parameters for a job."""
    settings: dict[str, Any] = {
        "allowed_extractors": ["youtube$"],
        "noplaylist": True,
        "format": lambda context: choose(context["formats"]),
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


def choose(formats: Sequence[dict]) -> list[dict]:
    """The formats to download: one file with picture and sound, or one of each; [] where there are no such.

    Enough for records with a shorter side of 256 pixels: the smallest from 256 pixels on, one file before two (fewer
    requests) among all up to 360.
    """
    usable = [form for form in formats if form.get("protocol") in PROTOCOLS and not form.get("has_drm")]
    pictures = [form for form in usable if form.get("vcodec") != "none" and form.get("url")]
    sounds = [form for form in usable if form.get("vcodec") == "none" and form.get("acodec") not in (None, "none")]
    if not sounds:
        pictures = [form for form in pictures if form.get("acodec") != "none"]
    if not pictures:
        return []
    picture = min(pictures, key=_cost)
    return [picture] if picture.get("acodec") != "none" else [picture, max(sounds, key=_worth)]


def _cost(picture: dict) -> tuple:
    sides = [side for side in (picture.get("width"), picture.get("height")) if side]
    side = min(sides, default=0)
    size = 0 if SHORTER_SIDE <= side <= ENOUGH else side if side > ENOUGH else 10**6 - side
    two_files = picture.get("acodec") == "none"
    language = picture.get("language_preference")
    return (
        size,
        -(language if language is not None else -1),
        two_files,
        PROTOCOLS.index(picture["protocol"]),
        not str(picture.get("vcodec") or "").startswith("avc1"),  # the cheapest to decode
        picture.get("tbr") or 0,
    )


def _worth(sound: dict) -> tuple:
    language = sound.get("language_preference")
    rate = sound.get("tbr") or sound.get("abr") or 0
    return (
        language if language is not None else -1,
        -PROTOCOLS.index(sound["protocol"]),
        str(sound.get("acodec") or "").startswith("mp4a"),
        -abs(rate - GOOD_SOUND_KBPS),
    )


def wants_range(job: dict, info: dict) -> bool:
    """Whether to download only the span.

    Raises:
      StopError: it was asked for, and the proxy cannot serve it.
    """
    if job["span_us"] is None or job["download"] == "whole":
        return False
    # ffmpeg, which reads ranges, goes through HTTP proxies only; anywhere else it would pass the proxy by.
    able = urllib.parse.urlsplit(_proxy(job) or "http:").scheme == "http"
    if job["download"] == "range" and not able:
        raise StopError("--download=range goes through http:// proxies only: use --download=whole with this proxy")
    long = (info.get("duration") or 0) > WHOLE_UP_TO_S
    return able and (long or job["download"] == "range")


def _proxy(job: dict) -> str | None:
    """The proxy of https URLs: the job's or the environment's, where ffmpeg alone would look for `http_proxy` only."""
    environment = urllib.request.getproxies()
    return job["proxy"] or environment.get("https") or environment.get("all")


def _range_parameters(job: dict) -> dict[str, Any]:
    start_us, end_us = job["span_us"]
    span = {
        "start_time": max(0, start_us - RANGE_MARGIN_US) / MICROSECONDS,
        "end_time": (end_us + RANGE_MARGIN_US) / MICROSECONDS,
    }
    reading = ["-protocol_whitelist", "https,http,tls,tcp,httpproxy", "-format_whitelist", _DEMUXERS]
    trust = ["-tls_verify", "1", "-ca_file", os.environ.get("SSL_CERT_FILE") or _certificates()]
    patience = ["-rw_timeout", str(round(min(_SOCKET_TIMEOUT_S, job["time_limit_s"]) * MICROSECONDS))]
    return {
        "proxy": _proxy(job),
        "download_ranges": lambda info, downloader: [span],
        # -copyts: packets keep the video's own times, so that the file says where it begins.
        "external_downloader_args": {
            "ffmpeg_i": ["-copyts", *reading, *trust, *patience, *_bounded(job["ffmpeg"])],
            "ffmpeg_o": ["-fflags", "+bitexact"],
        },
    }


@functools.cache
def _bounded(ffmpeg: str) -> tuple[str, ...]:
    """The option that bounds ffmpeg's requests; an ffmpeg before 8.1 has none, and is slow."""
    known = _run(ffmpeg, ["-hide_banner", "-h", "protocol=http"]).stdout
    return ("-request_size", str(_REQUEST_BYTES)) if b"-request_size " in known else ()


@contextlib.contextmanager
def _ffmpeg(program: str | None) -> Iterator[None]:
    """Lets yt-dlp have an ffmpeg, or none: parts of it look only here, not at `ffmpeg_location`."""
    token = FFmpegPostProcessor._ffmpeg_location.set(program)
    try:
        yield
    finally:
        FFmpegPostProcessor._ffmpeg_location.reset(token)


def _certificates() -> str:
    import certifi

    return certifi.where()


def _check(info: dict, job: dict) -> None:
    """Refuses what yt-dlp would download, but is not the video."""
    if info.get("_type", "video") != "video" or info.get("id") != job["video"]:
        # Of a film that must be bought, YouTube offers the trailer.
        raise _refused(Outcome.RESTRICTED, "paid", "YouTube offers another video in its place")
    if info.get("live_status") in ("is_live", "post_live", "is_upcoming"):
        raise _refused(Outcome.RESTRICTED, "upcoming", "a live stream, which has no final recording yet")
    duration_s, span_us = info.get("duration"), job["span_us"]
    if duration_s and span_us and span_us[0] >= (duration_s + 1) * MICROSECONDS:
        raise _refused(Outcome.UNUSABLE, "start_past_end", f"the video is {duration_s} s long")


def _refused(outcome: Outcome, reason: str, detail: str, tries: int = ONCE) -> FetchError:
    return FetchError(Failure(outcome=outcome, reason=reason, detail=detail, tries=tries))


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
            raise too_large(self._max_bytes)
        if status["status"] == "finished" or time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._report(sum(self._counts.values()))

    def _report(self, count: int) -> None:
        if count > self._told:
            self._tell(count - self._told)
            self._told = count
        self._told_at = time.monotonic()


def too_large(max_bytes: int) -> FetchError:
    """The error for a file over the limit."""
    return _refused(Outcome.UNUSABLE, "too_large", f"over {max_bytes / (1 << 20):g} MiB")


def _received(download: dict, job: dict, listener: _Listener) -> str:
    """The name of a finished file, which is there, is media, and is all of it."""
    path = download.get("filepath") or ""
    if not os.path.isfile(path):
        if any("larger than max-filesize" in said for said in listener.said):
            raise too_large(job["max_bytes"])
        raise _refused(Outcome.TRANSIENT, "no_file", "yt-dlp left no file", TWICE)
    size, promised = os.path.getsize(path), download.get("filesize")
    if not _is_media(path):
        raise _refused(Outcome.TRANSIENT, "not_media", "what came is neither MP4 nor WebM", TWICE)
    if promised and "section_start" not in download and size < promised:
        raise _refused(Outcome.TRANSIENT, "cut_short", f"{size} of {promised} bytes came", TWICE)
    return os.path.basename(path)


def _is_media(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] in _HEADS or head[:4] == b"\x1a\x45\xdf\xa3" or head[:1] == b"\x47"


def _merge(files: Sequence[str], ffmpeg: str) -> str:
    """One file of picture and sound, with the times they had: MP4 keeps them exactly, Matroska would round them."""
    reading = ["-protocol_whitelist", "file", "-format_whitelist", _DEMUXERS]
    inputs = [word for name in files for word in (*reading, "-i", f"file:{name}")]
    writing = ["-map", "0:v:0", "-map", "1:a:0", "-c", "copy", "-map_metadata", "-1", "-fflags", "+bitexact"]
    done = _run(ffmpeg, ["-v", "error", "-copyts", *inputs, *writing, "-f", "mp4", "file:merged.mp4"])
    if done.returncode:
        log = done.stderr.decode(errors="replace")
        if "No space left" in log:
            raise StopError("the disk is full: make room and run the same command again")
        raise _refused(Outcome.TRANSIENT, "not_media", "picture and sound cannot be put into one file", TWICE)
    return "merged.mp4"


def _start_of(name: str, ffmpeg: str) -> int:
    reading = ["-protocol_whitelist", "file", "-format_whitelist", _DEMUXERS]
    log = _run(ffmpeg, ["-hide_banner", *reading, "-i", f"file:{name}"]).stderr.decode(errors="replace")
    starts = _starts(log)
    if not starts:
        raise _refused(Outcome.TRANSIENT, "range_failed", "nothing came of the span", TWICE)
    return starts[0]


def _starts(log: str) -> list[int]:
    """The first timestamps of ffmpeg's inputs, as its log has them, in microseconds."""
    return [int(whole + fraction) for whole, fraction in _START.findall(log)]


def _run(ffmpeg: str, arguments: Sequence[str]) -> subprocess.CompletedProcess:
    environment = {"PATH": os.defpath, "AV_LOG_FORCE_NOCOLOR": "1"}
    command = [ffmpeg, "-nostdin", *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=False, env=environment)
    except OSError as error:
        raise StopError(f"ffmpeg does not start: {ffmpeg}: {error.strerror}") from error


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


@contextlib.contextmanager
def _log(folder: str) -> Iterator[None]:
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


def _log_path(folder: str) -> str:
    return os.path.join(folder, "log")


def _read_log(folder: str) -> str:
    with open(_log_path(folder), encoding="utf-8", errors="replace") as file:
        return file.read()


def _statuses(folder: str) -> list[str]:
    """The HTTP errors that ffmpeg met: yt-dlp says only that it failed."""
    try:
        return [f"HTTP Error {status}" for status in _STATUS.findall(_read_log(folder))]
    except FileNotFoundError:
        return []


def _cookies(path: str | None, text: str | None) -> str | None:
    """The cookies, in memory: yt-dlp would write the file back."""
    if path is None:
        return None
    try:
        if text is None:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StopError(f"the cookies file {path} cannot be read: {why}") from error
    if not any(line.count("\t") >= _TABS for line in text.splitlines()):
        raise StopError(f"the cookies file {path} holds no cookies: export it again, in Netscape's format")
    return text


def _secrets(cookies: str | None, proxy: str | None) -> list[str]:
    """What must not be told: cookie values, and what stands before the @ of a proxy."""
    values = [line.split("\t")[_TABS].strip() for line in (cookies or "").splitlines() if line.count("\t") >= _TABS]
    environment = [value for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    for url in filter(None, (proxy, *environment)):
        before = urllib.parse.urlsplit(url if "//" in url else f"//{url}").netloc.rpartition("@")[0]
        values += [part for part in (before, *before.split(":", 1)) if part]
        values += [urllib.parse.unquote(part) for part in before.split(":", 1)]
    return sorted({value for value in values if len(value) >= _SECRET_CHARACTERS}, key=len, reverse=True)


def _hidden(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "<hidden>")
    return text
