"""`csv`, the form of DMVR: any list of clips, with or without split and id. A bad row costs only itself."""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator

from mbt.pipeline.annotations import files, lines, times, video_paths
from mbt.pipeline.annotations.clip_lists import ClipList, Lists, header
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, Row, shown
from mbt.pipeline.annotations.selection import Selection
from mbt.schemas.clip import MICROSECONDS, Clip

REQUIRED_COLUMNS = ("video_path", "start", "end", "label")
OPTIONAL_COLUMNS = ("split", "id")
DEFAULT_SPLIT = "train"
LABEL_SEPARATOR = ";"
_COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Form:
    """Of one file: positions of the columns that are used, number of columns, split where a row names none."""

    columns: dict[str, int]
    width: int
    split: str


def find(selection: Selection) -> Lists:
    """The CSVs of `video_path,start,end,label` and, if there, `split` and `id`.

    Every physical line is a row, so an open quote costs its own line and no other.

    Raises:
      AnnotationsError: no such file, no header, or a column is missing.
    """
    lists, notes = [], []
    for file in files.named(selection.files):
        form, unused = _form(file)
        if unused:
            notes.append(f"{file.path}: not used: column {', '.join(unused)}")
        lists.append(ClipList(file=file, rows=functools.partial(_rows, file, form, selection.media_root)))
    return Lists(lists=tuple(lists), labels=None, notes=tuple(notes))


def _form(file: NamedFile) -> tuple[_Form, list[str]]:
    """The form, and the names of columns that are not used."""
    try:
        positions = header(file, files.first_cells(file), REQUIRED_COLUMNS)
    except AnnotationsError as error:
        wanted = f"{','.join(REQUIRED_COLUMNS)} (and may name {','.join(OPTIONAL_COLUMNS)})"
        raise AnnotationsError(f"{error}. The first line must name {wanted}") from error
    columns = {name: positions[name] for name in _COLUMNS if name in positions}
    unused = [shown(name) for name in positions if name not in columns]
    return _Form(columns=columns, width=len(positions), split=file.split or DEFAULT_SPLIT), unused


def _rows(file: NamedFile, form: _Form, media_root: str) -> Iterator[Row]:
    for number, line in lines.lines(file.path):
        if number > 1 and line.strip():
            yield _row(number, line, file, form, media_root)


def _row(number: int, line: bytes, file: NamedFile, form: _Form, media_root: str) -> Row:
    values: dict[str, str] = {}
    try:
        values = _values(line, form)
        return Row(line=number, clip=_clip(values, form, media_root), file=file.name)
    except BadRowError as error:
        clip = _as_far_as_read(values, form)
        return Row(line=number, clip=clip, reason=error.reason, detail=error.detail, file=file.name)


def _values(line: bytes, form: _Form) -> dict[str, str]:
    lines.check_length(line)
    text = line.decode(errors="surrogateescape")  # only the columns in use must be UTF-8
    cells = lines.split_cells(text)
    if len(cells) != form.width:
        detail = f"{len(cells)} cells, but the header has {form.width} columns: {shown(video_paths.redacted(text))}"
        raise BadRowError("wrong_number_of_cells", detail)
    return {name: cells[position].strip() for name, position in form.columns.items()}


def _clip(values: dict[str, str], form: _Form, media_root: str) -> Clip:
    for name, value in values.items():
        lines.check_text(name, value)
    source = _source(values["video_path"], media_root)
    start_us, end_us = (_microseconds(name, values[name]) for name in ("start", "end"))
    times.check_span(start_us, end_us, "end")
    split = values.get("split") or form.split
    if not files.SPLIT.fullmatch(split):
        raise BadRowError("bad_split", f"split {shown(split)}: letters, digits, '.', '_' and '-' only")
    labels = sorted({label.strip() for label in values["label"].split(LABEL_SEPARATOR)} - {""})
    if not labels:
        raise BadRowError("no_label", "the label is empty")
    stem = os.path.splitext(values["video_path"])[0]
    clip_id = values.get("id") or f"{stem}_{start_us // 1000}_{end_us // 1000}"
    return Clip(id=clip_id, split=split, source=source, start_us=start_us, end_us=end_us, labels=tuple(labels))


def _source(video_path: str, media_root: str) -> str:
    if not video_path:
        raise BadRowError("no_video_path", "video_path is empty")
    return video_paths.source(video_path, media_root, "video_path")


def _microseconds(name: str, value: str) -> int:
    """Any usual way to write a number will do, such as 1e1; Python's own, such as 1_0, will not."""
    try:
        seconds = float(value) if value.isascii() and "_" not in value else math.nan
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or not 0 <= seconds < 1e9:
        raise BadRowError("bad_time", f"{name} {shown(value)} is not a time in seconds")
    return round(seconds * MICROSECONDS)


def _as_far_as_read(values: dict[str, str], form: _Form) -> Clip:
    """What could be read of an invalid row, so that it can be found again."""
    split = (values.get("split") or form.split) if values else ""
    return Clip(
        id=_printable(values.get("id", "")),
        split=split if files.SPLIT.fullmatch(split) else "",
        source=_printable(values.get("video_path", "")),
        start_us=0,
        end_us=0,
        labels=(),
    )


def _printable(value: str) -> str:
    return video_paths.redacted(value.encode(errors="replace").decode())
