"""Whether the fields of a dataclass are what they are said to be: Python does not look, and files may say anything."""

import dataclasses
import functools
import types
import typing
from typing import Any


def check(row: object) -> None:
    """Looks at all fields of a dataclass, and of those in it.

    Raises:
      TypeError: one is of another type than is said.
    """
    cls: Any = type(row)  # mypy holds that classes may have no hash
    for name, hint in _hints(cls).items():
        if not _fits(getattr(row, name), hint):
            raise TypeError(f"{name} is {getattr(row, name)!r:.80}")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _fits(value: Any, hint: Any) -> bool:
    inner = typing.get_args(hint)
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if typing.get_origin(hint) is tuple:  # of any length: there are no others
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if typing.get_origin(hint) is dict:
        key, of = inner
        return isinstance(value, dict) and all(_fits(one, key) and _fits(other, of) for one, other in value.items())
    if dataclasses.is_dataclass(hint):
        check(value)
        return True
    return type(value) in ((int, float) if hint is float else (hint,))
