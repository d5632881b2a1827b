"""Moments in Time: local videos of 3 s in a folder for each class, from lists or from the folders themselves.

Form: the dataset's README (http://moments.csail.mit.edu/): `trainingSet.csv` has file, label, votes for and against,
and no header; videos lie in `training/<class>/` and `validation/<class>/`. Derived lists have a header with `filename`.
Clip ids are the class folder and the stem of the file's name.
"""

import dataclasses
import functools
import os
import posixpath
from collections.abc import Callable, Iterator

from mbt.pipeline.annotations import files, label_map, lines, video_paths
from mbt.pipeline.annotations.clip_lists import ClipList, Lists, check_form, check_width, header, read_rows
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, Row, bad_row, shown
from mbt.pipeline.annotations.selection import Selection
from mbt.schemas.clip import MICROSECONDS, Clip

CLIP_US = 3 * MICROSECONDS
EXTENSIONS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".3gp")
FOLDERS = {"train": "training", "validation": "validation", "test": "test"}
_SPLIT_WORDS = {"training": "train", "train": "train", "validation": "validation", "val": "validation", "test": "test"}
_LABEL_COLUMNS = ("label", "mit_label")  # and not avmit_label, which renames some
_LOCATION_COLUMN = "video_location"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Form:
    """Of one list: names of its columns, where file, label and folder stand, and the line where its rows begin."""

    columns: tuple[str, ...]
    file: int
    label: int
    location: int | None
    first_line: int


def find(selection: Selection) -> Lists:
    """The lists and folders of clips that the user named and, if there, a label map (`name` or `name,index` a line).

    Raises:
      AnnotationsError: a file is none of these, or its split is not known.
    """
    maps: list[NamedFile] = []
    clip_files: list[NamedFile] = []
    for file in files.named(selection.files, folders=True):
        (maps if not os.path.isdir(file.path) and _is_label_map(file) else clip_files).append(file)
    if len(maps) > 1:
        raise AnnotationsError(f"{maps[0].path} and {maps[1].path} are both label maps; name one")
    if not clip_files:
        raise AnnotationsError(f"no list or folder of clips among {', '.join(selection.files)}")
    names = label_map.read(maps[0]) if maps else ()
    lists = tuple(_clip_list(file, frozenset(names), selection.media_root) for file in clip_files)
    if names:
        return Lists(lists=lists, labels=names)
    labels = label_map.in_use(lists)
    note = f"the label map is made of the {len(labels)} classes that occur; name the dataset's own to have all in it"
    return Lists(lists=lists, labels=labels, notes=(note,))


def _is_label_map(file: NamedFile) -> bool:
    """Whether the first line is `name` or `name,index`."""
    cells = files.first_cells(file)
    return not _is_video(cells[0]) and (len(cells) == 1 or (len(cells) == 2 and cells[1].isdigit()))


def _is_video(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _split(file: NamedFile) -> str:
    if file.split:
        return file.split
    stem = file.stem.lower().removesuffix("set")
    words = [word for word in _SPLIT_WORDS if stem.startswith(word)]
    if word := (words[0] if words else files.split_by_name(file, tuple(_SPLIT_WORDS))):
        return _SPLIT_WORDS[word]
    raise files.no_split(file, "train")


def _clip_list(file: NamedFile, known: frozenset[str], media_root: str) -> ClipList:
    split = _split(file)
    if os.path.isdir(file.path):
        rows: Callable[[], Iterator[Row]] = functools.partial(_folder_rows, file, split, known)
    else:
        form = _form(file)
        parse = functools.partial(_clip, form, split, known, _finder(media_root, FOLDERS.get(split, split)))
        rows = functools.partial(read_rows, file, form.columns, parse, split=split, first_line=form.first_line)
    check_form(file, rows())
    return ClipList(file=file, rows=rows)


def _form(file: NamedFile) -> _Form:
    cells = files.first_cells(file)
    if _is_video(cells[0]):
        votes = ("votes_for", "votes_against")[: max(0, len(cells) - 2)]
        return _Form(columns=("filename", "label", *votes), file=0, label=1, location=None, first_line=1)
    columns = header(file, [cell.replace(" ", "_") for cell in cells], ("filename",))
    label = next((columns[name] for name in _LABEL_COLUMNS if name in columns), None)
    if label is None:
        raise AnnotationsError(f"{file.path}, line 1: no column label or MIT_label")
    location = columns.get(_LOCATION_COLUMN)
    return _Form(columns=tuple(columns), file=columns["filename"], label=label, location=location, first_line=2)


def _clip(form: _Form, split: str, known: frozenset[str], place: Callable[[str, str], str], cells: list[str]) -> Clip:
    check_width(cells, form.columns)
    name, location = cells[form.file], cells[form.location] if form.location is not None else ""
    _check_file(name, form.columns[form.file])
    if location and not files.SPLIT.fullmatch(location):
        raise BadRowError("bad_folder", f"{shown(location)} is no name of a folder", _LOCATION_COLUMN)
    label = _label(cells[form.label], known, form.columns[form.label])
    folder = posixpath.dirname(name) or label
    return _made(folder, name, split, place(location, name), label)


def _check_file(name: str, column: str) -> None:
    """Refuses what is no relative path of a video."""
    lines.check_text(column, name)
    hidden = any(not part or part.startswith(".") for part in name.split("/"))
    if hidden or not _is_video(name):
        raise BadRowError("bad_file_name", f"{shown(name)} is no path of a video, such as class/name.mp4", column)


def _label(value: str, known: frozenset[str], column: str) -> str:
    lines.check_text(column, value)
    if not value:
        raise BadRowError("no_label", "the label is empty", column)
    if known and value not in known:
        raise BadRowError("unknown_label", f"{shown(value)} is none of the label map's classes", column)
    return value


def _made(folder: str, name: str, split: str, source: str, label: str) -> Clip:
    stem = posixpath.splitext(posixpath.basename(name))[0]
    return Clip(
        id=f"{posixpath.basename(folder)}/{stem}",
        split=split,
        source=source,
        start_us=0,
        end_us=CLIP_US,
        labels=(label,),
    )


def _finder(media_root: str, folder: str) -> Callable[[str, str], str]:
    """What says where a video lies, from its location, if named, and its path in the list.

    That is below the media root's `training` or `validation`, or the media root itself: where its class folder is.
    Below a URL, where we cannot look, it is the media root itself.
    """

    @functools.lru_cache(maxsize=4096)
    def prefix(location: str, class_folder: str) -> str:
        places = (location, folder) if not video_paths.is_url(media_root) else ()
        return next((each for each in places if os.path.isdir(os.path.join(media_root, each, class_folder))), "")

    def place(location: str, name: str) -> str:
        path = posixpath.join(prefix(location, posixpath.dirname(name)), name)
        return video_paths.below(path, media_root, "filename")

    return place


def _folder_rows(file: NamedFile, split: str, known: frozenset[str]) -> Iterator[Row]:
    """A row for each video of each class folder, both in the order of their names."""
    for number, (label, name) in enumerate(_videos(file.path), 1):
        try:
            _check_file(name, "file")
            source = os.path.abspath(os.path.join(file.path, label, name))
            clip = _made(label, name, split, source, _label(label, known, "folder"))
        except BadRowError as error:
            yield bad_row(number, file.name, split, error, ())
        else:
            yield Row(line=number, clip=clip, file=file.name)


def _videos(folder: str) -> Iterator[tuple[str, str]]:
    """Class folder and file name of every video."""
    try:
        for label in sorted(os.listdir(folder)):
            inside = os.path.join(folder, label)
            for name in sorted(os.listdir(inside)) if os.path.isdir(inside) else ():
                if _is_video(name) and not name.startswith("."):
                    yield label, name
    except OSError as error:
        raise AnnotationsError(f"{error.filename!a}: {error.strerror}") from error
