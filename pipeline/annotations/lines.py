"""The physical lines of an untrusted text file and their cells, in bounded memory.

A line break always ends a row, also between quotes: an open quote costs its own line and no other.
"""

import codecs
import csv
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO

from mbt.pipeline import storage
from mbt.pipeline.annotations.rows import BadRowError, shown

MAX_LINE_BYTES = 1 << 16


def lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Numbers from 1, and lines without their ends and without a byte order mark.

    Of a line of more than MAX_LINE_BYTES only the first MAX_LINE_BYTES + 1 come, which `cells` refuses.
    """
    with storage.open_file(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                _skip_line(file)
                yield number, line
            else:
                yield number, line.rstrip(b"\r\n")


def _skip_line(file: BinaryIO) -> None:
    while (piece := file.readline(MAX_LINE_BYTES)) and not piece.endswith(b"\n"):
        pass


def cells(line: bytes) -> list[str]:
    """The cells of a line, without blanks around them.

    Raises:
      BadRowError: the line is too long, is not UTF-8, or its quotes do not close.
    """
    check_length(line)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise BadRowError("not_utf8", f"not UTF-8: {shown(line.decode(errors='replace'))}") from None
    return [cell.strip() for cell in split_cells(text)]


def check_length(line: bytes) -> None:
    """Refuses a line that is no row of any annotation file."""
    if len(line) > MAX_LINE_BYTES:
        raise BadRowError("line_too_long", f"the line has over {MAX_LINE_BYTES} bytes")


def split_cells(text: str) -> list[str]:
    """The cells of a line of text as they stand."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error:
        raise BadRowError("bad_quotes", f"the quotes of this line do not close: {shown(text)}") from None


def check_text(column: str, value: str) -> None:
    """Refuses control characters and what is not Unicode; they would end in ids, paths and terminals."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRowError("not_utf8", f"{column} is not UTF-8: {shown(value)}", column) from None
    if not value.isprintable() and any(map(_is_control, value)):
        raise BadRowError("control_character", f"{column} holds a control character: {shown(value)}", column)


def _is_control(character: str) -> bool:
    """Control characters, line and paragraph separators, and a byte order mark inside, left when files were joined."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp") or character == "\ufeff"
