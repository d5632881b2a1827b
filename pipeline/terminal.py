"""Text for a terminal: columns, sizes, and names from annotations without anything that could steer it."""

from collections.abc import Sequence

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def shown(text: str) -> str:
    """A name as it is, or as an ASCII literal where it holds control characters."""
    return text if text.isprintable() else ascii(text)


def size(count: int) -> str:
    """Bytes in the largest unit that leaves at least one: 12.3 MB."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def length(seconds: float) -> str:
    """Of recordings, in seconds, minutes or hours; never in days."""
    if seconds < 60:
        return f"{seconds:.4g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def between(shortest_s: float, longest_s: float) -> str:
    """From the length of the shortest recording to that of the longest, in seconds."""
    return f"{shortest_s:g} s" if shortest_s == longest_s else f"{shortest_s:g} to {longest_s:g} s"


def percent(part: int, whole: int) -> str:
    """A share in percent; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Rows of equal length as lines; the first `left` columns are aligned left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(_cell(row, column, widths, left) for column in range(len(row))).rstrip() for row in rows]


def by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    """The pairs, the largest count first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _cell(row: Sequence[str], column: int, widths: Sequence[int], left: int) -> str:
    return row[column].ljust(widths[column]) if column < left else row[column].rjust(widths[column])
