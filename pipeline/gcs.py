"""Objects on Google Cloud Storage, through one client for each process.

This is not Beam's own file system for gs://, though the library and the credentials are the same. That one (2.77,
`apache_beam/io/gcp`) makes a client, and so a connection, for each call; lists all that is below a folder to name what
is in it; takes `*`, `?` and `[` in the name of an object to delete for a pattern; and looks for credentials for 18
seconds where an emulator needs none.
"""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.options.pipeline_options import PipelineOptions
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob, Client
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException
from requests.adapters import HTTPAdapter

ERRORS = (GoogleAPIError, GoogleAuthError, RequestException)  # besides `OSError`, what may come of any call
EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"  # read by google-cloud-storage; its value is a URL
# Without it google-cloud-storage 3.17 asks for the bucket too, in a thread, after each answer that there is no object.
_NO_BUCKET_REQUESTS = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
_CHUNK_BYTES = 8 << 20  # what a file that is open takes of memory; a multiple of 256 KiB, the service asks
_LINES_BYTES = 1 << 16
_PAGE_SIZE = 1000  # the most that the service gives at a time
_CONNECTIONS = 64  # kept open; more threads than that at once open new ones, with a warning each
_DELETES_AT_A_TIME = 16
_clients: dict[tuple[int, str | None], Client] = {}


def exists(path: str) -> bool:
    """Whether there is such an object."""
    return _blob(path).exists(retry=DEFAULT_RETRY)


def size(path: str) -> int | None:
    """An object's size in bytes; None where there is none."""
    found = _blob(path)
    try:
        found.reload(retry=DEFAULT_RETRY)
    except NotFound:
        return None
    return int(found.size)


def read(path: str) -> bytes:
    """A whole object, its checksum verified.

    Raises:
      FileNotFoundError: there is none.
    """
    with _missing(path):
        return _blob(path).download_as_bytes(retry=DEFAULT_RETRY)


def open_file(path: str) -> BinaryIO:
    """Opens an object for reading, a chunk at a time.

    Raises:
      FileNotFoundError: there is none.
    """
    found = _blob(path)
    with _missing(path):
        found.reload(retry=DEFAULT_RETRY)
    raw = found.open("rb", chunk_size=_CHUNK_BYTES, retry=DEFAULT_RETRY)
    return cast(BinaryIO, io.BufferedReader(raw, _LINES_BYTES))  # else it looks for the end of a line byte by byte


def download(path: str, local_path: str) -> None:
    """Writes an object to a local file as it arrives, its checksum verified.

    Raises:
      FileNotFoundError: there is none.
    """
    with _missing(path):
        _blob(path).download_to_filename(local_path, retry=DEFAULT_RETRY)


def create(path: str) -> BinaryIO:
    """Opens an object for writing; it appears when it is closed, and not if the `with` block raises."""
    new = _blob(path).open("wb", chunk_size=_CHUNK_BYTES, ignore_flush=True, retry=DEFAULT_RETRY)
    return cast(BinaryIO, new)


def write(path: str, data: bytes) -> None:
    """Writes a whole object, in one request."""
    _blob(path).upload_from_string(data, "application/octet-stream", retry=DEFAULT_RETRY)


def upload(local_path: str, path: str) -> None:
    """Moves a local file to an object, a chunk at a time."""
    target = _blob(path)
    target.chunk_size = _CHUNK_BYTES  # the library's own is 100 MiB, in memory
    target.upload_from_filename(local_path, "application/octet-stream", retry=DEFAULT_RETRY)
    os.unlink(local_path)


def move(path: str, new_path: str) -> None:
    """Copies an object under another name, inside the service, and deletes it under the old one.

    Raises:
      FileNotFoundError: there is none.
    """
    source, target = _blob(path), _blob(new_path)
    with _missing(path):
        source.bucket.copy_blob(source, target.bucket, target.name, retry=DEFAULT_RETRY)
    delete(path)


def delete(path: str) -> None:
    """Deletes an object, if it is there."""
    _delete(_blob(path))


def delete_folder(folder: str) -> None:
    """Deletes all objects below a folder."""
    with ThreadPoolExecutor(_DELETES_AT_A_TIME) as pool:
        for page in _pages(folder, delimiter=None, fields="items(name),nextPageToken"):
            list(pool.map(_delete, page))


def sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Names and sizes in bytes of the objects directly in a folder."""
    for page in _pages(folder, delimiter="/", fields="items(name,size),nextPageToken"):
        for found in page:
            name = found.name.rpartition("/")[2]
            if name:  # some tools make an empty object that is named like the folder
                yield name, int(found.size)


def files(folder: str) -> Iterator[tuple[str, int, float]]:
    """All objects below a folder: name from there, size in bytes, and when it was written, in seconds since 1970."""
    start = len(_blob(folder.rstrip("/") + "/").name)
    for page in _pages(folder, delimiter=None, fields="items(name,size,updated),nextPageToken"):
        for found in page:
            if name := found.name[start:]:
                yield name, int(found.size), found.updated.timestamp()


def folders(folder: str) -> Iterator[str]:
    """Names of the folders in a folder; what is in them is not listed."""
    for page in _pages(folder, delimiter="/", fields="prefixes,nextPageToken"):
        for prefix in page.prefixes:
            yield prefix.rstrip("/").rpartition("/")[2]


def create_new(path: str, data: bytes) -> int | None:
    """Writes an object that is not there yet; returns its version, or None where there was one."""
    new = _blob(path)
    try:
        new.upload_from_string(data, "application/json", if_generation_match=0, retry=DEFAULT_RETRY)
    except PreconditionFailed:
        return None
    return new.generation


def read_version(path: str) -> tuple[bytes, int] | None:
    """An object and its version, or None where there is none."""
    found = _blob(path)
    try:
        data = found.download_as_bytes(retry=DEFAULT_RETRY)
    except NotFound:
        return None
    return data, found.generation


def delete_version(path: str, version: int) -> None:
    """Deletes an object, unless somebody has replaced it.

    Looking first is for emulators, which do not know the condition; the condition is for the time between the two.
    """
    target = _blob(path)
    with contextlib.suppress(NotFound, PreconditionFailed):
        target.reload(retry=DEFAULT_RETRY)
        if target.generation == version:
            target.delete(if_generation_match=version, retry=DEFAULT_RETRY)


def _delete(target: Blob) -> None:
    with contextlib.suppress(NotFound):
        target.delete(retry=DEFAULT_RETRY)


@contextlib.contextmanager
def _missing(path: str) -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise FileNotFoundError(path) from None


def _pages(folder: str, delimiter: str | None, fields: str) -> Iterable:
    prefix = _blob(folder.rstrip("/") + "/")
    listing = prefix.client.list_blobs(
        prefix.bucket,
        prefix=prefix.name,
        delimiter=delimiter,
        fields=fields,
        page_size=_PAGE_SIZE,
        retry=DEFAULT_RETRY,
    )
    return listing.pages


def _blob(path: str) -> Blob:
    bucket, _, name = path.partition("://")[2].partition("/")
    return _client().bucket(bucket).blob(name)


def _client() -> Client:
    """One for each process: a forked one must not share its parent's connections."""
    key = (os.getpid(), os.environ.get(EMULATOR_VARIABLE))
    if key not in _clients:
        made = _make_client()
        if _clients.setdefault(key, made) is not made:  # another thread was faster; a lock would not survive a fork
            made.close()
    return _clients[key]


def _make_client() -> Client:
    os.environ.setdefault(_NO_BUCKET_REQUESTS, "true")
    if os.environ.get(EMULATOR_VARIABLE):
        client = Client()  # at the address in the environment, without credentials
    else:  # those of the job, such as --impersonate_service_account, where Beam has set them
        client = gcsio.create_storage_client(FileSystems._pipeline_options or PipelineOptions([]))
    for scheme in ("http://", "https://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return client
