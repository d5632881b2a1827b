"""Objects on S3 as files: read a range at a time, written a part at a time."""

import contextlib
import io
import time
import uuid
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError
from s3transfer.utils import S3_RETRYABLE_DOWNLOAD_ERRORS

from mbt.pipeline.s3_client import client, split

_CHUNK_BYTES = 8 << 20  # what an open file takes of memory; an upload has up to 10,000 parts of so many bytes
_TRIES = 5  # to get the body of an answer
_TOKEN = "mbt-upload"  # of an object's metadata: by which writer it was made


def get(where: dict[str, str], **more: str) -> bytes:
    """The body of an object, or of a range of it; asked for again where the connection breaks."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with contextlib.closing(client().get_object(**where, **more)["Body"]) as body:
                return body.read()
        except S3_RETRYABLE_DOWNLOAD_ERRORS:
            if not tries_left:
                raise
            time.sleep(0.1 * 2 ** (_TRIES - 1 - tries_left))
    raise AssertionError("unreachable")


def reader(path: str, head: dict) -> BinaryIO:
    """An object, open for reading; `head` is the answer to a HEAD request for it."""
    return cast(BinaryIO, io.BufferedReader(_Reader(path, head["ContentLength"], head["ETag"]), _CHUNK_BYTES))


def writer(path: str) -> BinaryIO:
    """A new object, open for writing."""
    return cast(BinaryIO, _Writer(path))


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


class _Reader(io.RawIOBase):
    """Ranges of one version of an object."""

    def __init__(self, path: str, size: int, etag: str):
        self._path = path
        self._size = size
        self._etag = etag
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"position {start + offset} of {self._path}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer).cast("B")
        data = self._read(len(into))
        into[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size)

    def _read(self, most: int) -> bytes:
        last = min(self._position + most, self._size) - 1
        if last < self._position:
            return b""
        try:
            data = get(split(self._path), Range=f"bytes={self._position}-{last}", IfMatch=self._etag)
        except ClientError as error:
            if _status(error) not in (404, 412):
                raise
            raise OSError(f"{self._path} was replaced or deleted while it was read") from error
        self._position += len(data)
        return data


class _Writer(io.BufferedIOBase):
    """A new object, sent while it is written; it appears when the file is closed, whole.

    It does not appear where the `with` block raises, or the file is dropped without being closed.
    """

    def __init__(self, path: str):
        self._where = split(path)
        self._path = path
        self._buffer = bytearray()
        self._position = 0
        self._token = uuid.uuid4().hex
        self._upload: str | None = None
        self._parts: list[dict[str, Any]] = []

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError(f"{self._path} is closed")
        size = memoryview(data).nbytes
        self._buffer += data
        self._position += size
        while len(self._buffer) >= _CHUNK_BYTES:
            self._send(bytes(self._buffer[:_CHUNK_BYTES]))
            del self._buffer[:_CHUNK_BYTES]
        return size

    def _send(self, part: bytes) -> None:
        if self._upload is None:
            # boto3 sends checksums of parts by itself, unless it was told not to; the store must know of that first.
            summed = client().meta.config.request_checksum_calculation == "when_supported"
            more = {"ChecksumAlgorithm": "CRC32"} if summed else {}
            begun = client().create_multipart_upload(**self._where, Metadata={_TOKEN: self._token}, **more)
            self._upload = begun["UploadId"]
        number = len(self._parts) + 1
        sent = client().upload_part(**self._where, UploadId=self._upload, PartNumber=number, Body=part)
        told = {name: sent[name] for name in ("ETag", "ChecksumCRC32") if name in sent}
        self._parts.append({"PartNumber": number, **told})

    def close(self) -> None:
        """Sends the rest, and gives the object its name."""
        if self.closed:
            return
        try:
            if self._upload is None:
                client().put_object(**self._where, Body=bytes(self._buffer))
            else:
                if self._buffer:
                    self._send(bytes(self._buffer))
                self._complete()
        except BaseException:
            self._abort()
            raise
        finally:
            self._drop()

    def _complete(self) -> None:
        try:
            client().complete_multipart_upload(
                **self._where, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
            )
        except ClientError as error:
            # There is no such upload (any more): was it asked for twice, because the first answer was lost?
            if _status(error) != 404 or client().head_object(**self._where)["Metadata"].get(_TOKEN) != self._token:
                raise

    def _abort(self) -> None:
        if self._upload is not None:
            with contextlib.suppress(Exception):  # what is left then, `gc` finds
                client().abort_multipart_upload(**self._where, UploadId=self._upload)

    def _drop(self) -> None:
        self._buffer = bytearray()
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self.closed:
            self._abort()
            self._drop()
        self.close()

    def __del__(self) -> None:
        """Python closes a file that nobody holds any more; that must not give this one its name."""
        try:
            if not self.closed:
                self._abort()
                self._drop()
        except Exception:  # at the end of the process there may be no client, nor anything else, any more
            pass
