"""The first lost source of a list in one sentence, with the likely cause: what a person needs to mend it."""

import os
import re

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline.sources import stays_in_place
from mbt.schemas.clip import Outcome

MISSING = "missing"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_REMOTE = "^[A-Za-z][A-Za-z0-9+.-]*://"
_ADVICE = {
    Outcome.BLOCKED.value: "; go on in an hour or so; --sleep, --cookies and --proxies help",
    Outcome.NOT_TRIED.value: "; it was not reached",
}


def said(rows: pa.Table, table: pa.Table, media_root: str) -> str:
    """About the first of some rows.

    Args:
      rows: lost ones, at least one: id, source, outcome, reason and detail, and file and line for their order.
      table: the whole list.
      media_root: where relative paths begin.
    """
    order = pa.table({"file": pc.cast(rows["file"], pa.string()), "line": rows["line"]})
    first = pc.sort_indices(order, [("file", "ascending"), ("line", "ascending")])[0].as_py()
    row = rows.slice(first, 1).to_pylist()[0]
    if stays_in_place(row["source"]) and row["reason"] == MISSING:
        return _of_missing(row["source"], rows, table, media_root)
    why = ": ".join(word for word in (row["reason"], row["detail"]) if word)
    why = f"{row['outcome']}, {why}" if why else row["outcome"]
    return f"The first is {row['id']!r}, {row['source']} ({why}){_ADVICE.get(row['outcome'], '')}."


def _of_missing(source: str, rows: pa.Table, table: pa.Table, media_root: str) -> str:
    missing = pc.count_distinct(rows.filter(pc.equal(rows["reason"], MISSING))["source"]).as_py()
    local = table.filter(pc.invert(pc.match_substring_regex(table["source"], _REMOTE)))
    total = pc.count_distinct(local["source"]).as_py()
    count = f"None of {total} files is there" if missing == total else f"{missing} of {total} files are not there"
    return f"{count}; first tried {source}: {_likely(source, media_root)}"


def _likely(source: str, media_root: str) -> str:
    """What is likely to be wrong with a path where no file is."""
    below = os.path.relpath(source, media_root)
    is_below = not below.startswith(os.pardir)
    path = below if is_below else source
    if _DRIVE.match(path):
        return f"{path[:2]} is a drive of Windows; write the path as this machine has it."
    if "\\" in path:
        return "it is written with backslashes; write /."
    if path.startswith(("~", "$")):
        return f"{path.split(os.sep)[0]} is taken as it stands; write the whole path."
    if is_below:
        return f"is --media_root={media_root} right, and is its disk mounted?"
    return "is the path right, and is its disk mounted?"
