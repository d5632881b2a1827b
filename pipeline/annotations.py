"""A CSV of clips to clip rows; each line of the file ends up as one row, valid or with the reason why not."""

import csv
import dataclasses
import math
import os
import re
from collections.abc import Iterator

from mbt.pipeline.decode import MAX_CLIP_US
from mbt.schemas.clip import MICROSECONDS, Clip

REQUIRED_COLUMNS = ("video_path", "start", "end", "label")
OPTIONAL_COLUMNS = ("split", "id")
DEFAULT_SPLIT = "train"
LABEL_SEPARATOR = ";"

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL = re.compile(r"https?://[^\s/]+", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class AnnotationsError(ValueError):
    """The file as a whole cannot be read; the message says what to do."""


class _InvalidRowError(ValueError):
    """One row is wrong."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the file.

    Attributes:
      line: its number; the header is line 1.
      clip: the clip; of an invalid row as much of it as could be read.
      reason: why the row is invalid, or "".
      detail: the same in a sentence.
    """

    line: int
    clip: Clip
    reason: str = ""
    detail: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The first line of the file: the position of each column that is used, and the names that are not."""

    columns: dict[str, int]
    unused: tuple[str, ...]
    width: int


def read_csv(path: str, media_root: str) -> Iterator[Row]:
    """Reads the CSV form of DMVR: `video_path,start,end,label` and, if there, `split` and `id`.

    Every physical line is a row, so an open quote costs its own line and no other.

    Args:
      path: of the file; UTF-8.
      media_root: where relative video paths start.

    Raises:
      AnnotationsError: no such file, no header, or a column is missing.
    """
    header = read_header(path)
    for line, text in _lines(path):
        if line > 1 and text.strip():
            yield _row(line, text, header, media_root)


def read_header(path: str) -> Header:
    """Reads the first line.

    Raises:
      AnnotationsError: no such file, no header, or a column is missing.
    """
    try:
        _, text = next(_lines(path))
    except StopIteration:
        raise AnnotationsError(f"{path} is empty: its first line must name the columns {_columns_text()}") from None
    except OSError as error:
        raise AnnotationsError(f"{path}: {error.strerror}") from error
    names = [name.strip().lower() for name in _cells(text) or []]
    if missing := [name for name in REQUIRED_COLUMNS if name not in names]:
        raise AnnotationsError(
            f"{path}, line 1: no column {', '.join(missing)}; the first line must name {_columns_text()}"
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise AnnotationsError(f"{path}, line 1: column {', '.join(sorted(twice))} is there twice")
    known = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
    return Header(
        columns={name: names.index(name) for name in known if name in names},
        unused=tuple(name for name in names if name not in known),
        width=len(names),
    )


def _columns_text() -> str:
    return f"{','.join(REQUIRED_COLUMNS)} (and may name {','.join(OPTIONAL_COLUMNS)})"


def _lines(path: str) -> Iterator[tuple[int, str]]:
    # newline="\n": a lone carriage return is not the end of a row.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for line, text in enumerate(file, 1):
            yield line, text.rstrip("\r\n")


def _cells(text: str) -> list[str] | None:
    """The cells of a line, or None where its quotes do not close."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error:
        return None


def _row(line: int, text: str, header: Header, media_root: str) -> Row:
    cells = _cells(text)
    if cells is None:
        return _invalid(line, "bad_quotes", f"the quotes of this line do not close: {_shown(text)}", {})
    if len(cells) != header.width:
        detail = f"{len(cells)} cells, but the header has {header.width} columns: {_shown(text)}"
        return _invalid(line, "wrong_number_of_cells", detail, {})
    values = {name: cells[position].strip() for name, position in header.columns.items()}
    try:
        return Row(line=line, clip=_clip(values, media_root))
    except _InvalidRowError as error:
        return _invalid(line, error.reason, error.detail, values)


def _clip(values: dict[str, str], media_root: str) -> Clip:
    for name, value in values.items():
        _check_text(name, value)
    source = _source(values["video_path"], media_root)
    start_us, end_us = (_microseconds(name, values[name]) for name in ("start", "end"))
    if end_us <= start_us:
        raise _InvalidRowError("empty_span", f"end {values['end']} is not after start {values['start']}")
    if end_us - start_us > MAX_CLIP_US:
        raise _InvalidRowError("span_too_long", f"over {MAX_CLIP_US // MICROSECONDS} s; cut it into several clips")
    split = values.get("split") or DEFAULT_SPLIT
    if not _SPLIT.fullmatch(split):
        raise _InvalidRowError("bad_split", f"split {_shown(split)}: letters, digits, '.', '_' and '-' only")
    labels = sorted({label.strip() for label in values["label"].split(LABEL_SEPARATOR)} - {""})
    if not labels:
        raise _InvalidRowError("no_label", "the label is empty")
    stem = os.path.splitext(values["video_path"])[0]
    clip_id = values.get("id") or f"{stem}_{start_us // 1000}_{end_us // 1000}"
    return Clip(id=clip_id, split=split, source=source, start_us=start_us, end_us=end_us, labels=tuple(labels))


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _InvalidRowError("not_utf8", f"{name} is not UTF-8: {_shown(value)}") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise _InvalidRowError("control_character", f"{name} holds a control character: {_shown(value)}")


def _source(video_path: str, media_root: str) -> str:
    if not video_path:
        raise _InvalidRowError("no_video_path", "video_path is empty")
    if _URL.match(video_path):
        return video_path
    if _SCHEME.match(video_path):
        raise _InvalidRowError("unknown_scheme", f"{_shown(video_path)} is neither a local path nor an http(s) URL")
    if os.path.isabs(video_path):
        return video_path
    if os.path.normpath(video_path).split(os.sep)[0] == os.pardir:
        raise _InvalidRowError("outside_media_root", f"{_shown(video_path)} leads out of {media_root}")
    return os.path.join(media_root, video_path)


def _microseconds(name: str, value: str) -> int:
    try:
        seconds = float(value)
    except ValueError:
        raise _InvalidRowError("bad_time", f"{name} {_shown(value)} is not a number of seconds") from None
    if not math.isfinite(seconds) or not 0 <= seconds < 1e9:
        raise _InvalidRowError("bad_time", f"{name} {_shown(value)} is not a time in seconds")
    return round(seconds * MICROSECONDS)


def _invalid(line: int, reason: str, detail: str, values: dict[str, str]) -> Row:
    """An invalid row; what could be read of it is kept, so that it can be found again."""
    split = values.get("split") or (DEFAULT_SPLIT if values else "")
    clip = Clip(
        id=_printable(values.get("id", "")),
        split=split if _SPLIT.fullmatch(split) else "",
        source=_printable(values.get("video_path", "")),
        start_us=0,
        end_us=0,
        labels=(),
    )
    return Row(line=line, clip=clip, reason=reason, detail=detail)


def _printable(value: str) -> str:
    return value.encode(errors="replace").decode()


def _shown(value: str) -> str:
    return ascii(value if len(value) <= 80 else value[:77] + "...")
