"""A clip's source to media, with a typed outcome: a local file in place, or an http(s) download."""

import dataclasses
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import requests

from mbt.pipeline import storage
from mbt.schemas.clip import Outcome

MEDIA_FOLDER = "media"
MAX_DOWNLOAD_BYTES = 2 << 30
TRIES = 3
BACKOFF_S = 1.0
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
TOTAL_TIMEOUT_S = 900.0
_CHUNK_BYTES = 1 << 20
_RETRIED = (Outcome.TRANSIENT, Outcome.BLOCKED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetched:
    """How one attempt ended.

    Attributes:
      outcome: of the attempt.
      reason: one word, stable; "" where the outcome is ok.
      detail: a sentence for a person.
      bytes: size of the media.
      digest: SHA-256 of the media, hexadecimal.
      media: where the media lie: below ROOT, or a local path.
      signature: size and modification time of a local file, to notice that it changed.
    """

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    bytes: int = 0
    digest: str = ""
    media: str = ""
    signature: str = ""


class _FailedError(Exception):
    def __init__(self, outcome: Outcome, reason: str, detail: str):
        super().__init__(detail)
        self.failed = Fetched(outcome=outcome, reason=reason, detail=detail)


def is_url(source: str) -> bool:
    """Whether a source is fetched over http(s)."""
    return source.lower().startswith(("http://", "https://"))


def data_path(source: str, media_root: str) -> str:
    """What a record says of its source: its path below the media root, its whole path elsewhere, or its URL."""
    if is_url(source):
        return source
    below = os.path.relpath(source, media_root)
    return source if below.split(os.sep)[0] == os.pardir else below


def media_id(source: str) -> str:
    """The stem of the file's name."""
    return os.path.splitext(os.path.basename(source.partition("?")[0] if is_url(source) else source))[0]


def fetch(source: str, root: str) -> Fetched:
    """Gets the media of a source, once; never raises for what the source is or does."""
    try:
        return _download(source, root) if is_url(source) else _local(source)
    except _FailedError as error:
        return error.failed


def fetch_with_retries(source: str, root: str, sleep: Callable[[float], None] = time.sleep) -> tuple[Fetched, int]:
    """Like `fetch`, trying again what may pass; also says how many tries it took."""
    for attempt in range(1, TRIES + 1):
        fetched = fetch(source, root)
        if not is_url(source) or fetched.outcome not in _RETRIED or attempt == TRIES:
            break
        sleep(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    return fetched, attempt


def still_holds(outcome: str, source: str, media: str, signature: str, root: str) -> bool:
    """Whether an earlier outcome stands without another attempt."""
    if not is_url(source):
        return outcome == Outcome.OK and _signature(source) == signature
    return outcome == Outcome.GONE or (outcome == Outcome.OK and storage.exists(storage.join(root, media)))


def _local(path: str) -> Fetched:
    signature = _signature(path)
    try:
        if os.path.isdir(path):
            raise _FailedError(Outcome.INVALID, "not_a_file", f"{path} is a folder")
        digest, size = hashlib.sha256(), 0
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError as error:
        raise _FailedError(Outcome.TRANSIENT, "missing", f"{path}: no such file") from error
    except OSError as error:
        raise _FailedError(Outcome.TRANSIENT, "unreadable", f"{path}: {error.strerror}") from error
    if not size:
        raise _FailedError(Outcome.UNUSABLE, "empty", f"{path} has 0 bytes")
    return Fetched(outcome=Outcome.OK, bytes=size, digest=digest.hexdigest(), media=path, signature=signature)


def _signature(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _download(url: str, root: str) -> Fetched:
    with tempfile.NamedTemporaryFile(prefix="mbt-fetch-") as file:
        try:
            digest, size = _receive(url, file)
        except requests.exceptions.RequestException as error:
            raise _failure(error) from error
        if not size:
            raise _FailedError(Outcome.TRANSIENT, "empty", "the server sent 0 bytes")
        media = _media_name(url, digest)
        file.seek(0)
        final = storage.join(root, media)
        if not storage.exists(final):
            _store(file, final)
    return Fetched(outcome=Outcome.OK, bytes=size, digest=digest, media=media)


def _receive(url: str, file) -> tuple[str, int]:
    """Downloads into `file`; returns SHA-256 and size."""
    deadline = time.monotonic() + TOTAL_TIMEOUT_S
    digest, size = hashlib.sha256(), 0
    headers = {"Accept-Encoding": "identity"}
    timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
    with requests.get(url, stream=True, timeout=timeout, headers=headers) as response:
        _check_status(response)
        promised = response.headers.get("Content-Length", "")
        if promised.isdigit() and int(promised) > MAX_DOWNLOAD_BYTES:
            raise _FailedError(Outcome.UNUSABLE, "too_large", f"{promised} bytes, over {MAX_DOWNLOAD_BYTES >> 30} GiB")
        for chunk in response.iter_content(_CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if size > MAX_DOWNLOAD_BYTES:
                raise _FailedError(Outcome.UNUSABLE, "too_large", f"over {MAX_DOWNLOAD_BYTES >> 30} GiB")
            if time.monotonic() > deadline:
                raise _FailedError(Outcome.TRANSIENT, "too_slow", f"not done after {TOTAL_TIMEOUT_S:.0f} s")
        if promised.isdigit() and size != int(promised):
            raise _FailedError(Outcome.TRANSIENT, "cut_short", f"{size} of {promised} bytes came")
    return digest.hexdigest(), size


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    detail = f"HTTP {status} {response.reason or ''}".strip()
    if status in (404, 410):
        raise _FailedError(Outcome.GONE, f"http_{status}", detail)
    if status in (401, 402, 451):
        raise _FailedError(Outcome.RESTRICTED, f"http_{status}", detail)
    if status in (403, 429):
        raise _FailedError(Outcome.BLOCKED, f"http_{status}", detail)
    raise _FailedError(Outcome.TRANSIENT, f"http_{status}", detail)


def _failure(error: requests.exceptions.RequestException) -> _FailedError:
    kinds = requests.exceptions
    # Types only: an exception's text may hold the URL's secrets.
    for kind, outcome, reason in (
        (kinds.Timeout, Outcome.TRANSIENT, "timeout"),
        (kinds.TooManyRedirects, Outcome.TRANSIENT, "redirect_loop"),
        (kinds.SSLError, Outcome.TRANSIENT, "tls"),
        (kinds.InvalidURL, Outcome.INVALID, "bad_url"),
        (kinds.ChunkedEncodingError, Outcome.TRANSIENT, "cut_short"),
        (kinds.ConnectionError, Outcome.TRANSIENT, "connection"),
    ):
        if isinstance(error, kind):
            return _FailedError(outcome, reason, type(error).__name__)
    return _FailedError(Outcome.TRANSIENT, "request_failed", type(error).__name__)


def _media_name(url: str, digest: str) -> str:
    """`media/<2 hex>/<hash of the source>-<digest>.<ext>`; hexadecimal, so that letter case cannot matter."""
    name = hashlib.sha256(url.encode()).hexdigest()[:24]
    extension = os.path.splitext(urlsplit(url).path)[1][1:].lower()
    suffix = extension if extension.isalnum() and extension.isascii() and len(extension) <= 5 else "bin"
    return f"{MEDIA_FOLDER}/{name[:2]}/{name}-{digest[:12]}.{suffix}"


def _store(file, final: str) -> None:
    attempt = f"{final}.{random.getrandbits(64):016x}.part"
    try:
        with storage.create(attempt) as sink:
            while chunk := file.read(_CHUNK_BYTES):
                sink.write(chunk)
        storage.publish(attempt, final)
    except BaseException:
        storage.delete(attempt)
        raise
