"""TFRecord framing: length, masked CRC of the length, payload, masked CRC of the payload.

The format is that of TensorFlow's `lib/io/record_writer.h`; nothing here needs TensorFlow.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4


class CorruptRecordError(ValueError):
    """A record's length or payload does not match its checksum, or the file ends inside it."""


def masked_crc32c(data: bytes) -> int:
    """CRC-32C, rotated and offset as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> tuple[bytes, bytes]:
    """The bytes that go before and after `payload` in the file."""
    length = struct.pack("<Q", len(payload))
    header = length + struct.pack("<I", masked_crc32c(length))
    return header, struct.pack("<I", masked_crc32c(payload))


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Yields every payload of an open TFRecord file, checked.

    Raises:
      CorruptRecordError: at the first record that is not whole.
    """
    while header := file.read(HEADER_BYTES):
        if len(header) < HEADER_BYTES:
            raise CorruptRecordError("the file ends inside a record header")
        length, length_crc = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != length_crc:
            raise CorruptRecordError("a record length does not match its checksum")
        payload = file.read(length)
        footer = file.read(FOOTER_BYTES)
        if len(payload) < length or len(footer) < FOOTER_BYTES:
            raise CorruptRecordError("the file ends inside a record")
        if masked_crc32c(payload) != struct.unpack("<I", footer)[0]:
            raise CorruptRecordError("a record does not match its checksum")
        yield payload
