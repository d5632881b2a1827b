"""AudioSet: segment lists with machine names of classes, and the file that names them.

Form: https://research.google.com/audioset/download.html. Clip ids are `YTID_STARTMS`, the segment_id of AudioSet's
own strong labels.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mbt.pipeline.annotations import files, label_map, lines, times, youtube_ids
from mbt.pipeline.annotations.clip_lists import ClipList, Lists, check_form, check_width, read_rows
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, Row, shown
from mbt.pipeline.annotations.selection import Selection
from mbt.schemas.clip import Clip

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
SPLITS = ("unbalanced_train", "balanced_train", "eval")
NUM_CLASSES = 527
LABELS = Path(__file__).with_name("audioset_labels.csv")  # class_labels_indices.csv, CC BY 4.0, Google
_LABEL_COLUMNS = ["index", "mid", "display_name"]
_MAX_COMMENTS = 20
_PROMISE = re.compile(rb"num_segs=([0-9]{1,12})\b")
_SPREADSHEET_ERROR = re.compile(rb'"?#[A-Z/0]+[?!]')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Form:
    """Of one segment list: the line where segments begin, and how many a comment promises, in which line."""

    first_line: int
    promised: int | None
    promised_in: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """The label map.

    Attributes:
      names: display names in index order.
      by_mid: of a machine name such as "/m/09x0r", index and display name.
    """

    names: tuple[str, ...]
    by_mid: dict[str, tuple[int, str]]


def find(selection: Selection) -> Lists:
    """The segment lists among the files, and their label map: the one among the files, or the built-in one.

    Raises:
      AnnotationsError: a file is neither, its split is not known, or it is damaged.
    """
    classes, segment_files = sort_files(selection.files)
    clip_lists = tuple(clip_list(file, split_of(file), classes) for file in segment_files)
    return Lists(lists=clip_lists, labels=classes.names, aliases=aliases(classes))


def sort_files(arguments: Sequence[str]) -> tuple[Classes, list[NamedFile]]:
    """Label map and segment lists."""
    maps: list[NamedFile] = []
    segment_files: list[NamedFile] = []
    for file in files.named(arguments):
        is_map = [cell.lower() for cell in files.first_cells(file)] == _LABEL_COLUMNS
        (maps if is_map else segment_files).append(file)
    if len(maps) > 1:
        raise AnnotationsError(f"{maps[0].path} and {maps[1].path} are both label maps; name one")
    if not segment_files:
        raise AnnotationsError(f"no segment list among {', '.join(arguments)}")
    built_in = NamedFile(path=str(LABELS), name=LABELS.name, split="")
    return _classes(maps[0] if maps else built_in), segment_files


def split_of(file: NamedFile) -> str:
    """The split, given or by the file's name."""
    if split := files.split_by_name(file, SPLITS):
        return split
    raise files.no_split(file, "eval")


def aliases(classes: Classes) -> dict[str, str]:
    """Machine names to display names."""
    return {mid: name for mid, (_, name) in classes.by_mid.items()}


def clip_list(file: NamedFile, split: str, classes: Classes) -> ClipList:
    """A segment list whose first lines have been looked into."""
    form = _form(file)
    check_form(file, _rows(file, split, classes, form))
    return ClipList(file=file, rows=functools.partial(segments, file, split, classes))


def segments(file: NamedFile, split: str, classes: Classes, only: bytearray | None = None) -> Iterator[Row]:
    """The rows of a segment list.

    Args:
      file: to read.
      split: of its clips.
      classes: what its labels mean.
      only: by line number, 1 for the lines to read; None for all, and to check that they are all there.

    Raises:
      AnnotationsError: there are not as many segments as the file says.
    """
    form, count = _form(file), 0
    for row in _rows(file, split, classes, form, only):
        count += 1
        yield row
    if only is None and form.promised not in (None, count):
        raise AnnotationsError(
            f"{file.path}, line {form.promised_in}: it promises num_segs={form.promised}, but {count} segments are "
            "here: the file is cut off, or was changed. Download it again"
        )


def _rows(file: NamedFile, split: str, classes: Classes, form: _Form, only: bytearray | None = None) -> Iterator[Row]:
    parse = functools.partial(_clip, split, classes.by_mid)
    return read_rows(file, COLUMNS, parse, split=split, first_line=form.first_line, only=only)


def _form(file: NamedFile) -> _Form:
    """Looks at the comment lines, of which spreadsheets drop some, or at a plain header."""
    promised, promised_in, number = None, 0, 0
    for number, line in lines.lines(file.path):
        if line.lstrip(b'"').startswith(b"#") and not _SPREADSHEET_ERROR.match(line) and number <= _MAX_COMMENTS:
            if match := _PROMISE.search(line[:1000]):
                promised, promised_in = int(match[1]), number
        elif line.strip() and not _is_header(line):
            break
    else:
        number += 1
    return _Form(first_line=number, promised=promised, promised_in=promised_in)


def _is_header(line: bytes) -> bool:
    return [cell.strip().strip('"').lower() for cell in line[:200].decode(errors="replace").split(",")] == [
        name.lower() for name in COLUMNS
    ]


def _clip(split: str, by_mid: dict[str, tuple[int, str]], cells: list[str]) -> Clip:
    if len(cells) != len(COLUMNS):
        _check_labels_in_one_cell(cells)
        check_width(cells, COLUMNS)
    youtube_id, start, end, mids = cells
    youtube_ids.check_id(youtube_id, "YTID")
    start_us = times.seconds_us(start, "start_seconds")
    end_us = times.seconds_us(end, "end_seconds")
    times.check_span(start_us, end_us, "end_seconds")
    return Clip(
        id=f"{youtube_id}_{start_us // 1000}",
        split=split,
        source=youtube_ids.url(youtube_id),
        start_us=start_us,
        end_us=end_us,
        labels=_labels(mids, by_mid),
    )


def _check_labels_in_one_cell(cells: list[str]) -> None:
    quoted = any('"' in cell for cell in cells[3:])
    if quoted or (len(cells) > len(COLUMNS) and cells[4].startswith(("/m/", "/t/", "/g/"))):
        detail = (
            f"the list of labels is split over {len(cells) - 3} cells: a spreadsheet opened the file without regard "
            "to its quotes, and what it wrote does not tell how they stood"
        )
        raise BadRowError("labels_split", detail, "positive_labels")


def _labels(mids: str, by_mid: dict[str, tuple[int, str]]) -> tuple[str, ...]:
    """Display names in index order."""
    try:
        found = {by_mid[mid] for mid in mids.split(",")}
    except KeyError:
        unknown = next(mid for mid in mids.split(",") if mid not in by_mid)
        reason, what = ("unknown_label", f"{shown(unknown)} is none of the classes") if mids else ("no_label", "empty")
        raise BadRowError(reason, what, "positive_labels") from None
    return tuple(name for _, name in sorted(found))


def _classes(file: NamedFile) -> Classes:
    """Reads `index,mid,display_name`; all 527 must be there."""
    indices: dict[str, int] = {}
    mids: dict[str, str] = {}
    for number, cells in label_map.numbered(file):
        if number == 1:
            continue
        if len(cells) != len(_LABEL_COLUMNS) or not re.fullmatch("[0-9]{1,6}", cells[0]) or not all(cells):
            raise AnnotationsError(f"{file.path}, line {number}: wanted {','.join(_LABEL_COLUMNS)}")
        index, mid, name = cells
        label_map.add(file, number, indices, name, int(index))
        if mid in mids:
            raise AnnotationsError(f"{file.path}, line {number}: {mid!a} is there twice")
        mids[mid] = name
    if len(indices) != NUM_CLASSES:
        raise AnnotationsError(
            f"{file.path} has {len(indices)} classes, AudioSet {NUM_CLASSES}: it is cut off, or another dataset's"
        )
    names = label_map.in_order(file, indices)
    return Classes(names=names, by_mid={mid: (indices[name], name) for mid, name in mids.items()})
