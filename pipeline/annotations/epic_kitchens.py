"""EPIC-KITCHENS-100 and -55: many segments of few long videos, with a verb and a noun each.

Form: https://github.com/epic-kitchens/epic-kitchens-100-annotations and https://github.com/epic-kitchens/annotations.
Clip ids are the narration_id, of EPIC-KITCHENS-55 the uid. Labels are `verb/<key>` and `noun/<key>`; indices of nouns
follow those of the verbs.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping

from mbt.pipeline.annotations import files, label_map, times, video_paths
from mbt.pipeline.annotations.clip_lists import ClipList, Lists, check_form, check_width, header, read_rows
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, shown
from mbt.pipeline.annotations.selection import Selection
from mbt.schemas.clip import Clip

NUM_VERBS, NUM_NOUNS = 97, 300
VIDEOS = "{participant}/videos/{video}.MP4"  # as the official downloader lays them out
_OTHER_PLACES = tuple(
    f"{place}.{extension}"
    for extension in ("MP4", "mp4")
    for place in ("{participant}/videos/{video}", "{participant}/{video}", "{video}", "videos/{video}")
)
SPLITS = ("train", "validation", "test")
REQUIRED_COLUMNS = ("participant_id", "video_id", "start_timestamp", "stop_timestamp")
_CLASS_COLUMNS = ("verb_class", "noun_class")
_ID_COLUMNS = ("narration_id", "uid")  # of EPIC-KITCHENS-100, of -55
_CLASS_KEYS = ("key", "class_key")
_PARTICIPANT = re.compile(r"P[0-9]{2}")
_VIDEO = re.compile(r"P[0-9]{2}_[0-9]{2,3}")
_ID = re.compile(r"[A-Za-z0-9_]{1,40}")
_NUMBER = re.compile(r"[0-9]{1,4}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Labels:
    """Label strings by class number."""

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]


def find(selection: Selection) -> Lists:
    """The lists of segments among the files and, if there, the classes of verbs and nouns.

    Raises:
      AnnotationsError: a file is neither, or its split is not known.
    """
    classes: dict[str, NamedFile] = {}
    segment_files = []
    for file in files.named(selection.files):
        if {"key", "class_key"} & {cell.lower() for cell in files.first_cells(file)}:
            _add_classes(classes, file)
        else:
            segment_files.append(file)
    if not segment_files:
        raise AnnotationsError(f"no list of segments among {', '.join(selection.files)}")
    labels = _labels(classes, _id_column(segment_files))
    place = _finder(selection.media_root, selection.videos)
    lists = tuple(_clip_list(file, labels, place) for file in segment_files)
    return Lists(lists=lists, labels=labels.verbs + labels.nouns)


def _add_classes(classes: dict[str, NamedFile], file: NamedFile) -> None:
    named = " ".join((*files.first_cells(file), file.stem)).lower()
    kind = next((kind for kind in ("verb", "noun") if kind in named), "")
    if not kind:
        raise AnnotationsError(f"{file.path}: neither its name nor its columns say whether these are verbs or nouns")
    if kind in classes:
        raise AnnotationsError(f"{classes[kind].path} and {file.path} both name the classes of {kind}s; name one")
    classes[kind] = file


def _id_column(segment_files: list[NamedFile]) -> str:
    """The column of ids, which tells EPIC-KITCHENS-100 from -55."""
    found = {file.path: _own_id_column(file) for file in segment_files}
    if len(set(found.values())) > 1:
        raise AnnotationsError(f"{' and '.join(found)} are of EPIC-KITCHENS-100 and -55; these are two datasets")
    return next(iter(found.values()))


def _own_id_column(file: NamedFile) -> str:
    names = [cell.lower() for cell in files.first_cells(file)]
    column = next((name for name in _ID_COLUMNS if name in names), "")
    if not column:
        header(file, files.first_cells(file), _ID_COLUMNS[:1])
    return column


def _labels(classes: Mapping[str, NamedFile], id_column: str) -> _Labels:
    verbs, nouns = (_keys(classes[kind]) if kind in classes else () for kind in ("verb", "noun"))
    if id_column == "uid":
        if not (verbs and nouns):
            raise AnnotationsError("EPIC-KITCHENS-55 wants EPIC_verb_classes.csv and EPIC_noun_classes.csv too")
    else:
        verbs = _of_epic_100(classes.get("verb"), verbs, NUM_VERBS)
        nouns = _of_epic_100(classes.get("noun"), nouns, NUM_NOUNS)
    return _Labels(verbs=tuple(f"verb/{key}" for key in verbs), nouns=tuple(f"noun/{key}" for key in nouns))


def _of_epic_100(file: NamedFile | None, keys: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The first `count` keys: later lists of nouns have some more, which no segment uses. Numbers without a file."""
    if file is None:
        return tuple(map(str, range(count)))
    if len(keys) < count:
        raise AnnotationsError(f"{file.path} has {len(keys)} classes, EPIC-KITCHENS-100 {count}: it is cut off")
    return keys[:count]


def _keys(file: NamedFile) -> tuple[str, ...]:
    """Keys of classes by number."""
    indices: dict[str, int] = {}
    columns: dict[str, int] = {}
    for number, cells in label_map.numbered(file):
        if number == 1:
            columns = header(file, cells, ())
            continue
        key = (
            next(cells[columns[name]] for name in _CLASS_KEYS if name in columns) if len(cells) == len(columns) else ""
        )
        if not key or not _NUMBER.fullmatch(cells[0]):
            raise AnnotationsError(f"{file.path}, line {number}: wanted {','.join(columns)}, beginning with a number")
        label_map.add(file, number, indices, key, int(cells[0]))
    return label_map.in_order(file, indices)


def _clip_list(file: NamedFile, labels: _Labels, place: Callable[[str, str], str]) -> ClipList:
    columns = header(file, files.first_cells(file), REQUIRED_COLUMNS)
    if len(set(_CLASS_COLUMNS) & set(columns)) == 1:
        header(file, files.first_cells(file), _CLASS_COLUMNS)
    split = files.split_by_name(file, SPLITS)
    if not split:
        raise files.no_split(file, "train")
    parse = functools.partial(_clip, columns, split, labels, place)
    rows = functools.partial(read_rows, file, tuple(columns), parse, split=split, first_line=2)
    check_form(file, rows())
    return ClipList(file=file, rows=rows)


def _clip(
    columns: Mapping[str, int], split: str, labels: _Labels, place: Callable[[str, str], str], cells: list[str]
) -> Clip:
    check_width(cells, tuple(columns))
    participant, video, start, stop = (cells[columns[name]] for name in REQUIRED_COLUMNS)
    if not _PARTICIPANT.fullmatch(participant):
        raise BadRowError("bad_participant", f"{shown(participant)} is not of the form P01", "participant_id")
    if not _VIDEO.fullmatch(video) or not video.startswith(f"{participant}_"):
        raise BadRowError("bad_video_id", f"{shown(video)} is no video of {participant}, such as P01_101", "video_id")
    start_us, stop_us = times.clock_us(start, "start_timestamp"), times.clock_us(stop, "stop_timestamp")
    times.check_span(start_us, stop_us, "stop_timestamp")
    return Clip(
        id=_clip_id(columns, cells, video),
        split=split,
        source=place(participant, video),
        start_us=start_us,
        end_us=stop_us,
        labels=_clip_labels(columns, cells, labels),
    )


def _clip_id(columns: Mapping[str, int], cells: list[str], video: str) -> str:
    column = next(name for name in _ID_COLUMNS if name in columns)
    value = cells[columns[column]]
    form = rf"{video}_[0-9]{{1,6}}" if column == "narration_id" else r"[0-9]{1,9}"
    if not re.fullmatch(form, value):
        raise BadRowError("bad_id", f"{shown(value)} is no {column} of {video}", column)
    return value


def _clip_labels(columns: Mapping[str, int], cells: list[str], labels: _Labels) -> tuple[str, ...]:
    if "verb_class" not in columns:
        return ()
    return (
        _label("verb_class", cells[columns["verb_class"]], labels.verbs),
        _label("noun_class", cells[columns["noun_class"]], labels.nouns),
    )


def _label(column: str, value: str, labels: tuple[str, ...]) -> str:
    if not _NUMBER.fullmatch(value) or int(value) >= len(labels):
        raise BadRowError("unknown_label", f"{shown(value)} is no number from 0 to {len(labels) - 1}", column)
    return labels[int(value)]


def _finder(media_root: str, videos: str | None) -> Callable[[str, str], str]:
    """What says where the video of a participant lies; it looks on the disk once for each."""
    if videos is not None:
        _check_pattern(videos)
    patterns = (videos,) if videos is not None else (VIDEOS, *_OTHER_PLACES)

    @functools.lru_cache(maxsize=4096)
    def place(participant: str, video: str) -> str:
        names = [each.replace("{participant}", participant).replace("{video}", video) for each in patterns]
        found = [video_paths.below(name, media_root, "video_id") for name in names]
        if video_paths.is_url(media_root):
            return found[0]
        return next((path for path in found if os.path.exists(path)), found[0])

    return place


def _check_pattern(videos: str) -> None:
    rest = videos.replace("{participant}", "").replace("{video}", "")
    if "{video}" not in videos or "{" in rest or "}" in rest:
        raise AnnotationsError(f"--videos={videos}: wanted a path with {{video}} and, if need be, {{participant}}")
    if os.path.isabs(videos) or os.pardir in videos.split("/"):
        raise AnnotationsError(f"--videos={videos}: wanted a path below --media_root")
