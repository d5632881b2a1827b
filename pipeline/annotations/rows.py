"""What reading annotations gives: a row for every line, valid or with the reason why not."""

import dataclasses
from collections.abc import Sequence

from mbt.schemas.clip import Clip

_SHOWN_CHARACTERS = 80


class AnnotationsError(ValueError):
    """A file cannot be used; the message names the file and line, and says what to do."""


class BadRowError(ValueError):
    """One row is wrong.

    Attributes:
      reason: one word, stable.
      detail: the same in a sentence.
      column: name of the column at fault, or "" where it is the whole line.
    """

    def __init__(self, reason: str, detail: str, column: str = ""):
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.column = column


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a file.

    Attributes:
      line: its number, from 1; in a folder of videos the number of the video.
      clip: the clip; of an invalid row as much of it as could be read.
      reason: why the row is invalid, or "".
      detail: the same in a sentence.
      file: the file's name; its path, where two files have the same name.
    """

    line: int
    clip: Clip
    reason: str = ""
    detail: str = ""
    file: str = ""


def bad_row(line: int, file: str, split: str, error: BadRowError, columns: Sequence[str]) -> Row:
    """The row of a line that cannot be read; its detail says in which column."""
    place = f"column {columns.index(error.column) + 1} ({error.column}): " if error.column in columns else ""
    clip = Clip(id="", split=split, source="", start_us=0, end_us=0, labels=())
    return Row(line=line, clip=clip, reason=error.reason, detail=f"{place}{error.detail}", file=file)


def at(path: str, row: Row) -> str:
    """Where a row is wrong, and how: file, line, column, cause."""
    return f"{path}, line {row.line}{', ' if row.detail.startswith('column ') else ': '}{row.detail}"


def shown(value: str) -> str:
    """A value for a message: quoted, in ASCII, not too long."""
    return ascii(value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "...")
