"""VGGSound: `vggsound.csv` (YouTube id, start, label, split) and the split lists (`YTID_SSSSSS.mp4`, label).

Form: https://www.robots.ox.ac.uk/~vgg/data/vggsound/ and https://github.com/hche11/VGGSound. Clips are 10 s; their
ids are `YTID_SSSSSS`, the names of its video files.
"""

import functools
import re
from collections.abc import Callable, Iterator

from mbt.pipeline.annotations import files, label_map, lines, times, youtube_ids
from mbt.pipeline.annotations.clip_lists import ClipList, Lists, check_form, check_width, read_rows
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, Row, shown
from mbt.pipeline.annotations.selection import Selection
from mbt.schemas.clip import MICROSECONDS, Clip

NUM_CLASSES = 309
CLIP_US = 10 * MICROSECONDS
MAIN_COLUMNS = ("YTID", "start_seconds", "label", "split")
LIST_COLUMNS = ("file", "label")
_STATISTICS_COLUMNS = 3  # label, number of clips, group
_START = re.compile(r"[0-9]{1,6}")
_FILE = re.compile(r"(.*)_([0-9]{6})\.mp4")


def find(selection: Selection) -> Lists:
    """The lists of clips among the files and, if there, `stat.csv`, which names all classes.

    Raises:
      AnnotationsError: a file is neither, or its split is not known.
    """
    statistics: list[NamedFile] = []
    clip_files: list[NamedFile] = []
    for file in files.named(selection.files):
        is_statistics = len(cells := files.first_cells(file)) == _STATISTICS_COLUMNS and cells[1].isdigit()
        (statistics if is_statistics else clip_files).append(file)
    if not clip_files:
        raise AnnotationsError(f"no list of clips among {', '.join(selection.files)}")
    names = tuple(sorted({name for file in statistics for name in _statistics(file)}))
    lists = tuple(_clip_list(file, frozenset(names)) for file in clip_files)
    labels = names or label_map.in_use(lists)
    return Lists(lists=lists, labels=labels, notes=_notes(len(labels), bool(names)))


def _notes(found: int, named: bool) -> tuple[str, ...]:
    if found == NUM_CLASSES:
        return ()
    if named:
        return (f"stat.csv names {found} classes; VGGSound has {NUM_CLASSES}",)
    return (f"only {found} of VGGSound's {NUM_CLASSES} classes occur; name stat.csv too, to have all in the label map",)


def _statistics(file: NamedFile) -> list[str]:
    """The names of the classes."""
    names: dict[str, int] = {}
    for number, cells in label_map.numbered(file):
        if len(cells) != _STATISTICS_COLUMNS or not cells[0] or not cells[1].isdigit():
            raise AnnotationsError(f"{file.path}, line {number}: wanted label,number of clips,group, as in stat.csv")
        label_map.add(file, number, names, cells[0], len(names))
    return list(names)


def _clip_list(file: NamedFile, known: frozenset[str]) -> ClipList:
    if len(files.first_cells(file)) == len(LIST_COLUMNS):
        split = files.split_by_name(file, ("train", "test")) or file.stem
        if not files.SPLIT.fullmatch(split):
            raise files.no_split(file, "test")
        rows = _reader(file, LIST_COLUMNS, functools.partial(_list_clip, split, known), split)
    else:
        rows = _reader(file, MAIN_COLUMNS, functools.partial(_main_clip, file.split, known), file.split)
    check_form(file, rows())
    return ClipList(file=file, rows=rows)


def _reader(
    file: NamedFile, columns: tuple[str, ...], parse: Callable[[list[str]], Clip], split: str
) -> Callable[[], Iterator[Row]]:
    return functools.partial(read_rows, file, columns, parse, split=split)


def _main_clip(split: str, known: frozenset[str], cells: list[str]) -> Clip:
    check_width(cells, MAIN_COLUMNS)
    youtube_id, start, label, own_split = cells
    youtube_ids.check_id(youtube_id, "YTID")
    if not _START.fullmatch(start):
        times.seconds_us(start, "start_seconds")
        raise BadRowError("bad_time", f"{shown(start)} is no whole number of seconds", "start_seconds")
    if not files.SPLIT.fullmatch(own_split):
        raise BadRowError("bad_split", f"{shown(own_split)} is no name of a split", "split")
    return _clip(youtube_id, int(start), label, split or own_split, known)


def _list_clip(split: str, known: frozenset[str], cells: list[str]) -> Clip:
    check_width(cells, LIST_COLUMNS)
    name, label = cells
    match = _FILE.fullmatch(name)
    youtube_ids.check_id(match[1] if match else name, "file")
    if not match:
        raise BadRowError("bad_file_name", f"{shown(name)} is not of the form YTID_SSSSSS.mp4", "file")
    return _clip(match[1], int(match[2]), label, split, known)


def _clip(youtube_id: str, start: int, label: str, split: str, known: frozenset[str]) -> Clip:
    lines.check_text("label", label)
    if not label:
        raise BadRowError("no_label", "the label is empty", "label")
    if known and label not in known:
        raise BadRowError("unknown_label", f"{shown(label)} is none of the classes of stat.csv", "label")
    return Clip(
        id=f"{youtube_id}_{start:06d}",
        split=split,
        source=youtube_ids.url(youtube_id),
        start_us=start * MICROSECONDS,
        end_us=start * MICROSECONDS + CLIP_US,
        labels=(label,),
    )
