"""A lab's own copies: which file in a folder is which clip, by its name."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator

from mbt.pipeline import storage

PATTERNS = {
    "vggsound": "{ytid}_{start:06d}.{ext}",
    "kinetics": "{ytid}_{start:06d}_{end:06d}.{ext}",
    "milliseconds": "{ytid}_{start_ms}_{end_ms}.{ext}",
    "seconds": "{ytid}_{start:.3f}_{end:.3f}.{ext}",
    "start-seconds": "{ytid}_{start:.3f}.{ext}",
    "whole-seconds": "{ytid}_{start}_{end}.{ext}",
    "youtube": "{ytid}.{ext}",
    "y-youtube": "Y{ytid}.{ext}",
    "id": "{id}.{ext}",
    "stem": "{stem}.{ext}",
}
EXTENSIONS = "mp4|mkv|webm|avi|mov|m4v|flv|mpg|mpeg|wmv|3gp|ts|ogv"
_FIELD = re.compile(r"\{(\w+)(?::([^}]*))?\}|(\*)")
_TIMES = ("start", "end", "start_ms", "end_ms")
_FORMS = {"": r"\d+(?:\.\d+)?", ".3f": r"\d+\.\d{3}", "06d": r"\d{6,}", "d": r"\d+"}
_TEXTS = {"ytid": "[A-Za-z0-9_-]{11}", "id": ".+", "label": "[^/]+", "stem": ".+", "ext": f"(?i:{EXTENSIONS})"}
_ALIKE = {"ext", "label"}  # fields that do not tell one clip from another


class PatternError(ValueError):
    """A pattern cannot be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class Pattern:
    """How the files of a folder are named.

    Attributes:
      text: the pattern itself.
      expression: the same as a regular expression.
      fields: what tells clips apart, in order.
      forms: of the fields that are times.
    """

    text: str
    expression: re.Pattern
    fields: tuple[str, ...]
    forms: dict[str, str]

    @property
    def is_clip(self) -> bool:
        """Whether the names say that a file is cut to its clip."""
        return any(field in _TIMES for field in self.fields)


def parse(text: str) -> Pattern:
    """Reads a pattern, or the name of one.

    Raises:
      PatternError: it has an unknown field, or none that tells clips apart.
    """
    text = PATTERNS.get(text, text)
    expression, end = "", 0
    forms: dict[str, str] = {}
    for match in _FIELD.finditer(text):
        expression += re.escape(text[end : match.start()]) + _part(text, match, forms)
        end = match.end()
    expression += re.escape(text[end:])
    fields = tuple(field for field in forms if field not in _ALIKE)
    if not fields:
        raise PatternError(f"--pattern={text}: it needs a field that tells clips apart, such as {{ytid}} or {{id}}")
    return Pattern(text, re.compile(expression), fields, {field: forms[field] for field in fields})


def _part(text: str, match: re.Match, forms: dict[str, str]) -> str:
    name, form = match[1], match[2] or ""
    if match[3]:
        return "[^/]*"
    if name in forms:
        raise PatternError(f"--pattern={text}: {{{name}}} is there twice")
    forms[name] = form
    if name in _TEXTS and not form:
        return f"(?P<{name}>{_TEXTS[name]})"
    if name in ("start_ms", "end_ms") and not form:
        return rf"(?P<{name}>\d+)"
    if name in ("start", "end") and form in _FORMS:
        return f"(?P<{name}>{_FORMS[form]})"
    raise PatternError(
        f"--pattern={text}: {match[0]} is not known; fields are "
        "{ytid} {id} {stem} {label} {start} {end} {start:06d} {start:.3f} {start_ms} {end_ms} {ext} and *"
    )


def find(folder: str, pattern: Pattern) -> dict[tuple, list[str]]:
    """All files below a folder that are named so: what their names say, to one or several paths."""
    found: dict[tuple, list[str]] = {}
    for path in _files(folder):
        for name in (path[len(folder.rstrip("/")) + 1 :], os.path.basename(path)):
            if match := pattern.expression.fullmatch(name):
                paths = found.setdefault(tuple(_value(field, match[field]) for field in pattern.fields), [])
                if path not in paths[-1:]:
                    paths.append(path)
    return found


def match(clips: Iterable[dict], files: dict[tuple, list[str]], pattern: Pattern) -> Iterator[tuple[str, list[str]]]:
    """Clips (id, source, start_us, end_us, media_id) that have a file: yields the id and the paths."""
    for clip in clips:
        key = tuple(_of_clip(clip, field, pattern.forms[field]) for field in pattern.fields)
        if (paths := files.get(key)) is not None:
            yield clip["id"], paths


def _files(folder: str) -> Iterator[str]:
    if not storage.is_local(folder):
        yield from (storage.join(folder, path) for path in sorted(file.path for file in storage.files(folder)))
        return
    entered: set[tuple[int, int]] = set()
    for base, inner, names in os.walk(folder, followlinks=True):
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in entered:  # a link to a folder above, or to one that was listed already
            inner.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        inner.sort()
        for name in sorted(names):
            yield os.path.join(base, name)


def _value(field: str, text: str) -> str | int:
    """What a name says; times in microseconds."""
    if field in ("start", "end"):
        return round(float(text) * 1_000_000)
    return int(text) * 1000 if field in ("start_ms", "end_ms") else text


def _of_clip(clip: dict, field: str, form: str) -> str | int:
    """What the clip's name would say."""
    if field in ("ytid", "stem"):
        return clip["media_id"]
    if field == "id":
        return clip["id"]
    time_us = clip["start_us" if field.startswith("start") else "end_us"]
    if field.endswith("_ms") or form in ("", ".3f"):
        return time_us // 1000 * 1000
    return time_us // 1_000_000 * 1_000_000
