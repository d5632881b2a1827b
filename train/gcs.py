"""Objects on Google Cloud Storage, as the trainer reads them: few whole ones, very many parts.

With obstore, whose requests are made by threads of its own, outside Python: a part costs 0.1 ms of processor, a quarter
of what urllib3 and a tenth of what google-cloud-storage takes (docs/performance.md). What may pass is asked again, with
growing pauses: 5xx, 429, lost connections, and the rest of an answer that was cut short.
"""

import contextlib
import datetime
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, TypeVar

import google.auth
import obstore
from google.auth.exceptions import GoogleAuthError, TransportError
from obstore.auth.google import GoogleCredentialProvider
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, GCSCredential, RetryConfig

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"  # as for google-cloud-storage; its value is a URL
# Parts that lie nearer to each other come with one request: to read over 64 KiB costs as much as to ask once more.
NEAR_BYTES = 64 << 10
# A request is given up after so long, its repetitions included; a token lives longer than that.
PATIENCE, RETRIES = datetime.timedelta(minutes=3), 100
PAUSES_S = (0.2, 0.6, 1.8)
Answer = TypeVar("Answer")
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_stores: dict[tuple[str, str | None], GCSStore] = {}


def read(path: str) -> bytes:
    """A whole object."""
    store, name = _place(path)
    return _asked(lambda: bytes(obstore.get(store, name).bytes()))


def download(path: str, file: IO[bytes]) -> None:
    """Writes a whole object to a file as it arrives."""
    store, name = _place(path)

    def copy() -> None:
        file.seek(0)
        file.truncate()
        for chunk in obstore.get(store, name):
            file.write(chunk)
        file.flush()

    _asked(copy)


def sizes(folder: str) -> dict[str, int]:
    """All objects below a folder: their names, seen from there, and sizes in bytes."""
    store, prefix = _place(folder)
    found = _asked(lambda: [entry for page in obstore.list(store, prefix) for entry in page])
    # Some tools make an empty object that is named like the folder.
    names = ((entry["path"].removeprefix(prefix).lstrip("/"), entry["size"]) for entry in found)
    return {name: size for name, size in names if name}


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of an object, (offset, length) in bytes, asked for at once."""
    store, name = _place(path)
    starts, lengths = [offset for offset, _ in ranges], [length for _, length in ranges]
    parts = _asked(lambda: obstore.get_ranges(store, name, starts=starts, lengths=lengths, coalesce=NEAR_BYTES))
    return [bytes(part) for part in parts]  # google_crc32c takes no other buffer


def _place(path: str) -> tuple[GCSStore, str]:
    """The bucket's client, which all threads share, and the name in it."""
    bucket, _, name = path.removeprefix("gs://").partition("/")
    key = (bucket, os.environ.get(EMULATOR_VARIABLE))
    if key not in _stores:
        with _told():
            _stores[key] = _open(*key)
    return _stores[key], name.strip("/")


def _open(bucket: str, emulator: str | None) -> GCSStore:
    retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": PATIENCE}
    if emulator:
        url = emulator if "://" in emulator else f"http://{emulator}"
        client: ClientConfig = {"allow_http": True}
        config: GCSConfig = {"base_url": url, "skip_signature": True}
        return GCSStore(bucket, config=config, client_options=client, retry_config=retry)
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return GCSStore(bucket, credential_provider=_Tokens(credentials), retry_config=retry)


class _Tokens(GoogleCredentialProvider):
    """Tokens, of which a long run needs many: each is asked for as patiently as the objects."""

    def __call__(self) -> "GCSCredential":
        """The next one."""
        begun = time.monotonic()
        while True:
            try:
                return super().__call__()
            except GoogleAuthError as error:
                passing = error.retryable or any(isinstance(each, TransportError) for each in (error, error.__cause__))
                if not passing or time.monotonic() - begun > PATIENCE.total_seconds():
                    raise
            time.sleep(PAUSES_S[-1])


def _asked(request: Callable[[], Answer]) -> Answer:
    """What a request gives, made again after answers at which obstore gives up: a list cut short, a wrong range."""
    begun = time.monotonic()
    with _told():
        for pause in PAUSES_S:
            try:
                return request()
            except GenericError:
                if time.monotonic() - begun > PATIENCE.total_seconds():
                    raise
            time.sleep(pause)
        return request()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Makes errors of the libraries such as a file system has."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _first_line(error)) from error
    except (BaseError, GoogleAuthError, ValueError) as error:
        raise OSError(errno.EIO, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()
