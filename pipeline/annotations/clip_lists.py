"""A dataset's annotations as lists of rows, and the reading of one file into such a list."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from mbt.pipeline.annotations import lines
from mbt.pipeline.annotations.files import NamedFile
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, Row, at, bad_row, shown
from mbt.schemas.clip import Clip

_FORM_REASONS = ("bad_quotes", "labels_split", "line_too_long", "wrong_number_of_cells", "wrong_separator")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipList:
    """One file of clips.

    Attributes:
      file: it.
      rows: starts reading its rows.
    """

    file: NamedFile
    rows: Callable[[], Iterator[Row]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lists:
    """What a dataset's module makes of the user's files.

    Attributes:
      lists: the files of clips, in the order in which they were named.
      labels: the label map in index order, or None where none is known before all rows are read.
      notes: sentences for the user.
      aliases: other names of labels.
    """

    lists: tuple[ClipList, ...]
    labels: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_rows(
    file: NamedFile,
    columns: Sequence[str],
    parse: Callable[[list[str]], Clip],
    *,
    split: str = "",
    first_line: int = 1,
    only: bytearray | None = None,
) -> Iterator[Row]:
    """The rows of one file.

    Args:
      file: to read.
      columns: names of its columns, for messages.
      parse: makes a clip of a line's cells, or raises BadRowError.
      split: of rows that cannot be read.
      first_line: where the rows begin.
      only: by line number, 1 for the lines to read; None for all.
    """
    name = file.name
    for number, line in lines.lines(file.path):
        if number < first_line or not line.strip():
            continue
        if only is not None and not (number < len(only) and only[number]):
            continue
        try:
            row = Row(line=number, clip=parse(lines.cells(line)), file=name)
        except BadRowError as error:
            row = bad_row(number, name, split, error, columns)
        yield row


def check_form(file: NamedFile, rows: Iterator[Row]) -> None:
    """Looks at the first row: where its very shape is wrong, this is another kind of file.

    Raises:
      AnnotationsError: it is, or there is no row.
    """
    row = next(rows, None)
    if row is None:
        raise AnnotationsError(f"{file.path} holds no rows")
    if row.reason in _FORM_REASONS:
        raise AnnotationsError(f"{at(file.path, row)}. Is it another kind of file?")


def check_width(cells: list[str], columns: Sequence[str]) -> None:
    """Refuses a line that has not a cell for each column, and says why that may be."""
    if len(cells) == len(columns):
        return
    wanted = f"{len(cells)} cells, not the {len(columns)} of {','.join(columns)}"
    text = ",".join(cells)
    for separator, name in _OTHER_SEPARATORS.items():
        if separator in text and len(cells) == 1:
            raise BadRowError("wrong_separator", f"{wanted}: the cells are separated by {name}; save it with commas")
    cause = "the line is cut off" if len(cells) < len(columns) else "a text with commas has lost its quotes"
    raise BadRowError("wrong_number_of_cells", f"{wanted} ({cause}?): {shown(text)}")


def header(file: NamedFile, cells: list[str], required: Sequence[str]) -> dict[str, int]:
    """Positions of the columns that the first line names.

    Args:
      file: for messages.
      cells: of the first line.
      required: names that must be there.

    Raises:
      AnnotationsError: one is not, or one is there twice.
    """
    names = [cell.lower() for cell in cells]
    if missing := [name for name in required if name not in names]:
        raise AnnotationsError(f"{file.path}, line 1: no column {', '.join(missing)}{_separator_hint(cells)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AnnotationsError(f"{file.path}, line 1: column {', '.join(map(repr, twice))} is there twice")
    return {name: position for position, name in enumerate(names)}


def _separator_hint(cells: list[str]) -> str:
    text = ",".join(cells)
    for separator, name in _OTHER_SEPARATORS.items():
        if separator in text:
            return f"; the cells are separated by {name}: save it with commas"
    return f"; it names {shown(text)}"
