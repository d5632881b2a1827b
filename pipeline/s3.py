"""Objects on S3, and on stores that speak its protocol, through one client for each process.

This is not Beam's own file system for s3:// (2.77, `apache_beam/io/aws`), though its flags are heeded. That one gives a
half-written object its name when its writer fails, and aborts no upload; makes a client, and so a connection, for each
call; lists all that is below a folder to name what is in it; and cannot write on a condition, which a lock needs.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from mbt.pipeline import s3_files
from mbt.pipeline.s3_client import client, split

ERRORS = (BotoCoreError, ClientError, Boto3Error)  # besides `OSError`, what may come of any call
# One request where one will do, which leaves nothing behind when it is cut: the service takes 5 GiB at once.
_AT_ONCE = TransferConfig(multipart_threshold=4 << 30, multipart_chunksize=256 << 20, use_threads=False)
_DELETED_AT_ONCE = 1000  # the most that the service takes
_LOG = logging.getLogger(__name__)


def exists(path: str) -> bool:
    """Whether there is such an object."""
    return size(path) is not None


def size(path: str) -> int | None:
    """An object's size in bytes; None where there is none."""
    try:
        return _head(path)["ContentLength"]
    except FileNotFoundError:
        return None


def _head(path: str) -> dict:
    with _missing(path):
        return client().head_object(**split(path))


def read(path: str) -> bytes:
    """A whole object.

    Raises:
      FileNotFoundError: there is none.
    """
    with _missing(path):
        return s3_files.get(split(path))


def open_file(path: str) -> BinaryIO:
    """Opens an object for reading, a chunk at a time.

    Raises:
      FileNotFoundError: there is none.
    """
    return s3_files.reader(path, _head(path))


def download(path: str, local_path: str) -> None:
    """Writes an object to a local file as it arrives; a cut connection goes on where it broke.

    Raises:
      FileNotFoundError: there is none.
    """
    with _missing(path):
        client().download_file(*split(path).values(), local_path, Config=_AT_ONCE)


def create(path: str) -> BinaryIO:
    """Opens an object for writing; it appears when it is closed, and not if the `with` block raises."""
    return s3_files.writer(path)


def write(path: str, data: bytes) -> None:
    """Writes a whole object, in one request."""
    client().put_object(**split(path), Body=data)


def upload(local_path: str, path: str) -> None:
    """Moves a local file to an object."""
    client().upload_file(local_path, *split(path).values(), Config=_AT_ONCE)
    os.unlink(local_path)


def move(path: str, new_path: str) -> None:
    """Copies an object under another name, inside the service, and deletes it under the old one.

    Raises:
      FileNotFoundError: there is none.
    """
    with _missing(path):
        client().copy(split(path), *split(new_path).values(), Config=_AT_ONCE)
    delete(path)


def delete(path: str) -> None:
    """Deletes an object, if it is there."""
    client().delete_object(**split(path))


def delete_folder(folder: str) -> None:
    """Deletes all objects below a folder, and what was begun there and never finished."""
    with contextlib.suppress(ClientError):  # not every store and every user may list those; `gc` says so
        abort_uploads(folder)
    bucket = split(folder)["Bucket"]
    for page in _pages("list_objects_v2", folder, PaginationConfig={"PageSize": _DELETED_AT_ONCE}):
        if keys := [{"Key": found["Key"]} for found in page.get("Contents", ())]:
            answer = client().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise ClientError({"Error": error}, "DeleteObjects")


def sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Names and sizes in bytes of the objects directly in a folder."""
    for page in _pages("list_objects_v2", folder, Delimiter="/"):
        for found in page.get("Contents", ()):
            if name := found["Key"].rpartition("/")[2]:  # some tools make an empty object that is named like the folder
                yield name, found["Size"]


def files(folder: str) -> Iterator[tuple[str, int, float]]:
    """All objects below a folder: name from there, size in bytes, and when it was written, in seconds since 1970."""
    for page in _pages("list_objects_v2", folder):
        for found in page.get("Contents", ()):
            if name := found["Key"][_prefix_length(folder) :]:
                yield name, found["Size"], found["LastModified"].timestamp()


def folders(folder: str) -> Iterator[str]:
    """Names of the folders in a folder; what is in them is not listed."""
    for page in _pages("list_objects_v2", folder, Delimiter="/"):
        for found in page.get("CommonPrefixes", ()):
            yield found["Prefix"].rstrip("/").rpartition("/")[2]


def unfinished_uploads(folder: str) -> Iterator[tuple[str, int, float]]:
    """Uploads in parts that were begun below a folder and never finished: name from there, bytes, and when."""
    for found in _uploads(folder):
        parts = client().get_paginator("list_parts").paginate(**_id(folder, found))
        size = sum(part["Size"] for page in parts for part in page.get("Parts", ()))
        yield found["Key"][_prefix_length(folder) :], size, found["Initiated"].timestamp()


def abort_uploads(folder: str, before: float = float("inf")) -> None:
    """Deletes the parts of uploads that were begun below a folder before a time, and never finished."""
    for found in list(_uploads(folder)):
        if found["Initiated"].timestamp() < before:
            with contextlib.suppress(client().exceptions.NoSuchUpload):
                client().abort_multipart_upload(**_id(folder, found))


def _uploads(folder: str) -> Iterator[dict]:
    prefix = split(folder.rstrip("/") + "/")["Key"]
    for page in _pages("list_multipart_uploads", folder):
        # What is listed is deleted, and not all that speak the protocol heed the prefix.
        yield from (upload for upload in page.get("Uploads", ()) if upload["Key"].startswith(prefix))


def _id(folder: str, upload: dict) -> dict[str, str]:
    return {"Bucket": split(folder)["Bucket"], "Key": upload["Key"], "UploadId": upload["UploadId"]}


def create_new(path: str, data: bytes) -> str | None:
    """Writes an object that is not there yet; returns its version, or None where there was one.

    S3 has refused to write over one since 2024 (`If-None-Match: *`). Not all that speak its protocol do: whether this
    store does is tried out on the new object, and a warning says so.
    """
    if exists(path):
        return None
    version = _put_new(path, data)
    if version is None or (again := _put_new(path, data)) is None:
        return version
    _LOG.warning(
        "%s: this store writes over an object although it is told not to, so two commands that start at the same "
        "moment do not notice each other: see to it that only one writes there",
        path,
    )
    return again


def _put_new(path: str, data: bytes) -> str | None:
    try:
        return client().put_object(**split(path), Body=data, IfNoneMatch="*")["ETag"]
    except ClientError as error:
        if _code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
            return None
        if _code(error) == "NotImplemented":  # the answer of a store that knows no conditions, and says so
            return client().put_object(**split(path), Body=data)["ETag"]
        raise


def read_version(path: str) -> tuple[bytes, str] | None:
    """An object and its version, or None where there is none."""
    try:
        with _missing(path):
            answer = client().get_object(**split(path))
            return answer["Body"].read(), answer["ETag"]
    except FileNotFoundError:
        return None


def delete_version(path: str, version: str) -> None:
    """Deletes an object, unless somebody has replaced it.

    Looking first is for stores that do not know the condition; the condition is for the time between the two.
    """
    found = read_version(path)
    if found is None or found[1] != version:
        return
    try:
        client().delete_object(**split(path), IfMatch=version)
    except ClientError as error:
        if _code(error) == "NotImplemented":
            delete(path)
        elif _code(error) not in ("PreconditionFailed", "NoSuchKey", "404", "412"):
            raise


def keeps_deleted(path: str) -> bool | None:
    """Whether a bucket keeps old versions of objects that are deleted; None where we may not ask."""
    try:
        return "Status" in client().get_bucket_versioning(Bucket=split(path)["Bucket"])
    except ClientError:
        return None


def _pages(operation: str, folder: str, **more) -> Iterable[dict]:
    """What is below a folder, page by page."""
    where = split(folder.rstrip("/") + "/")
    return client().get_paginator(operation).paginate(Bucket=where["Bucket"], Prefix=where["Key"], **more)


def _prefix_length(folder: str) -> int:
    return len(split(folder.rstrip("/") + "/")["Key"])


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


@contextlib.contextmanager
def _missing(path: str) -> Iterator[None]:
    """Says of an object that is not there what is said of a local file."""
    try:
        yield
    except ClientError as error:
        if _code(error) not in ("404", "NoSuchKey", "NoSuchBucket"):  # a HEAD has only the number
            raise
        raise FileNotFoundError(path) from error
