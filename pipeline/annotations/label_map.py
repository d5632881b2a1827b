"""Label maps: the file that lists a dataset's classes, and the labels that the user asks for."""

import difflib
from collections.abc import Iterable, Iterator, Sequence

from mbt.pipeline.annotations import lines
from mbt.pipeline.annotations.clip_lists import ClipList, Lists
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError

MAX_LABELS = 100_000


def read(file: NamedFile) -> tuple[str, ...]:
    """Names in the order of their indices, from lines of `name` or `name,index`.

    Raises:
      AnnotationsError: another form, a name that is there twice, or indices that are not 0, 1, 2, ...
    """
    indices: dict[str, int] = {}
    for number, line in numbered(file):
        name, *rest = line
        if len(rest) > 1 or not all(cell.isascii() and cell.isdigit() for cell in rest) or not name:
            raise AnnotationsError(
                f"{file.path}, line {number}: neither `name` nor `name,index`; a label map is wanted"
            )
        add(file, number, indices, name, int(rest[0][:9]) if rest else len(indices))
    return in_order(file, indices)


def numbered(file: NamedFile) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of the lines that are not blank, checked to be text."""
    for number, line in lines.lines(file.path):
        try:
            found = lines.cells(line)
            for cell in found:
                lines.check_text("the line", cell)
        except BadRowError as error:
            raise AnnotationsError(f"{file.path}, line {number}: {error.detail}") from error
        if any(found):
            yield number, found


def add(file: NamedFile, number: int, indices: dict[str, int], name: str, index: int) -> None:
    """Adds a name; refuses one that is there already, and a file that has no end."""
    if name in indices:
        raise AnnotationsError(f"{file.path}, line {number}: {name!a} is there twice")
    if len(indices) == MAX_LABELS:
        raise AnnotationsError(f"{file.path}, line {number}: over {MAX_LABELS} lines; this is no label map")
    indices[name] = index


def in_order(file: NamedFile, indices: dict[str, int]) -> tuple[str, ...]:
    """The names by index."""
    if sorted(indices.values()) != list(range(len(indices))):
        raise AnnotationsError(
            f"{file.path}: the indices are not 0 to {len(indices) - 1}, each once; is the file complete?"
        )
    return tuple(sorted(indices, key=indices.__getitem__))


def in_use(lists: Iterable[ClipList]) -> tuple[str, ...]:
    """All labels of all rows, sorted."""
    names: set[str] = set()
    for clip_list in lists:
        for row in clip_list.rows():
            names.update(row.clip.labels)
            if len(names) > MAX_LABELS:
                raise AnnotationsError(
                    f"{clip_list.file.path}, line {row.line}: over {MAX_LABELS} labels; are these the labels?"
                )
    return tuple(sorted(names))


def wanted(classes: Sequence[str], found: Lists) -> frozenset[str]:
    """The labels that the user asks for.

    Raises:
      AnnotationsError: there is no such label; names the nearest ones.
    """
    if not classes:
        return frozenset()
    labels = found.labels if found.labels is not None else in_use(found.lists)
    return frozenset(_label(name, labels, found) for name in classes)


def _label(name: str, labels: Sequence[str], found: Lists) -> str:
    label = found.aliases.get(name, name)
    if label in labels:
        return label
    lower = {other.lower(): other for other in labels}
    nearest = [lower[close] for close in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"; near it are {', '.join(map(repr, nearest))}" if nearest else ""
    raise AnnotationsError(f"--classes: there is no class {name!a} among {len(labels)}{hint}")
