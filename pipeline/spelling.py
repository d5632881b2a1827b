"""Which flag was meant by one that nobody knows."""

import difflib
from collections.abc import Iterable

_CLOSE = 0.75


def hint(word: str, known: Iterable[str]) -> str:
    """A question to put behind a message; "" where no known flag is like it."""
    flag = word.partition("=")[0]
    near = difflib.get_close_matches(flag, known, n=1, cutoff=_CLOSE)
    return f" ({flag}: did you mean {near[0]}?)" if near else ""
