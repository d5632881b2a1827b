"""Reads JSON that is to be of our own writing, and may be anybody's."""

import contextlib
import json
from typing import Any

DEEPEST = 32  # levels of lists and objects; ours have fewer than ten


def parse(text: str | bytes) -> Any:
    """The value, of no more levels than what walks through it can bear.

    Raises:
      ValueError: it is not JSON, or nested too deeply to be ours.
    """
    with contextlib.suppress(RecursionError):
        value = json.loads(text)
        if not _is_deep(value):
            return value
    raise ValueError("it is nested too deeply to be one of ours")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(outer: dict | list) -> Any:
    return outer.values() if isinstance(outer, dict) else outer
