"""Kinetics-400, -600 and -700: columns in any order, with or without label, split and is_cc, quoted or not.

Form: https://github.com/cvdfoundation/kinetics-dataset. Clip ids are `YTID_SSSSSS_EEEEEE`, the names of the video
files that ActivityNet's crawler writes.
"""

import functools
from collections.abc import Mapping

from mbt.pipeline.annotations import files, label_map, lines, times, youtube_ids
from mbt.pipeline.annotations.clip_lists import ClipList, Lists, check_form, check_width, header, read_rows
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, shown
from mbt.pipeline.annotations.selection import Selection
from mbt.schemas.clip import MICROSECONDS, Clip

REQUIRED_COLUMNS = ("youtube_id", "time_start", "time_end")
NUM_CLASSES = (400, 600, 700)
_MAX_START_US = 1_000_000 * MICROSECONDS  # six digits in the id


def find(selection: Selection) -> Lists:
    """The lists of clips among the files and, if there, a label map of one name a line.

    Raises:
      AnnotationsError: a file is neither, or its split is not known.
    """
    maps: list[NamedFile] = []
    clip_files: list[NamedFile] = []
    for file in files.named(selection.files):
        is_list = len(files.first_cells(file)) >= len(REQUIRED_COLUMNS)
        (clip_files if is_list else maps).append(file)
    if len(maps) > 1:
        raise AnnotationsError(f"{maps[0].path} and {maps[1].path} are both label maps; name one")
    if not clip_files:
        raise AnnotationsError(f"no list with the columns {','.join(REQUIRED_COLUMNS)} is among the files")
    names = label_map.read(maps[0]) if maps else ()
    lists = tuple(_clip_list(file, frozenset(names)) for file in clip_files)
    labels = names or label_map.in_use(lists)
    return Lists(lists=lists, labels=labels, notes=_notes(clip_files, labels))


def _notes(clip_files: list[NamedFile], labels: tuple[str, ...]) -> tuple[str, ...]:
    bare = [file.path for file in clip_files if "label" not in _columns(file)]
    notes = [f"{path} has no labels, as the test lists of Kinetics do; its clips will have none" for path in bare]
    if labels and len(labels) not in NUM_CLASSES:
        notes.append(
            f"only {len(labels)} classes occur, Kinetics has 400, 600 or 700; name a label map, one name a line, too"
        )
    return tuple(notes)


def _columns(file: NamedFile) -> dict[str, int]:
    return header(file, files.first_cells(file), REQUIRED_COLUMNS)


def _clip_list(file: NamedFile, known: frozenset[str]) -> ClipList:
    columns = _columns(file)
    split = file.split or ("" if "split" in columns else files.split_by_name(file, ("train", "val", "test")))
    if not split and "split" not in columns:
        raise files.no_split(file, "train")
    rows = functools.partial(
        read_rows, file, tuple(columns), functools.partial(_clip, columns, split, known), split=split, first_line=2
    )
    check_form(file, rows())
    return ClipList(file=file, rows=rows)


def _clip(columns: Mapping[str, int], split: str, known: frozenset[str], cells: list[str]) -> Clip:
    check_width(cells, tuple(columns))
    youtube_id, start, end = (cells[columns[name]] for name in REQUIRED_COLUMNS)
    youtube_ids.check_id(youtube_id, "youtube_id")
    start_us, end_us = times.seconds_us(start, "time_start"), times.seconds_us(end, "time_end")
    times.check_span(start_us, end_us, "time_end")
    if end_us >= _MAX_START_US:
        raise BadRowError("bad_time", f"{shown(end)} is over eleven days", "time_end")
    return Clip(
        id=f"{youtube_id}_{start_us // MICROSECONDS:06d}_{end_us // MICROSECONDS:06d}",
        split=split or _split(cells[columns["split"]]),
        source=youtube_ids.url(youtube_id),
        start_us=start_us,
        end_us=end_us,
        labels=(_label(cells[columns["label"]], known),) if "label" in columns else (),
    )


def _split(value: str) -> str:
    if not files.SPLIT.fullmatch(value):
        raise BadRowError("bad_split", f"{shown(value)} is no name of a split", "split")
    return value


def _label(value: str, known: frozenset[str]) -> str:
    lines.check_text("label", value)
    if not value:
        raise BadRowError("no_label", "the label is empty", "label")
    if known and value not in known:
        raise BadRowError("unknown_label", f"{shown(value)} is none of the label map's classes", "label")
    return value
