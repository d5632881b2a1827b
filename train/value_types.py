"""Of which type, and how large, the values of a config may be: a config file may set any key to anything."""

import math
from collections.abc import Iterator
from typing import Any

# JAX counts in 32 bits; a seed has them all.
LARGEST = 2**31 - 1
SEED = "seed"
# Keys that may be None, and of what type they are otherwise.
OPTIONAL: dict[str, type] = {"data.mel_mean": float, "data.mel_stddev": float, "model.num_classes": int}
_WORDS: dict[type, str] = {
    bool: "True or False",
    int: f"a whole number of at most {LARGEST}",
    float: "a finite number",
    str: "a text of one line",
}


def wrong(values: dict[str, Any], defaults: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys whose values are of other types than their defaults, and what each must be.

    Args:
      values: of a config, by dotted key.
      defaults: of the same keys.
    """
    for key, default in defaults.items():
        if key in OPTIONAL:
            of = OPTIONAL[key]
            if values[key] is not None and not _is(values[key], of, key):
                yield key, f"{_WORDS[of]}, or None"
        elif isinstance(default, tuple):
            of = type(default[0]) if default else int
            if not isinstance(values[key], tuple | list) or not all(_is(value, of, key) for value in values[key]):
                yield key, f"a tuple, each {_WORDS[of]}"
        elif not _is(values[key], type(default), key):
            yield key, _WORDS[type(default)]


def _is(value: Any, of: type, key: str) -> bool:
    if of is float:
        return _is_number(value) and math.isfinite(value)
    if of is int:
        return type(value) is int and (key == SEED or abs(value) <= LARGEST)
    if of is str:
        return type(value) is str and value.isprintable()
    return type(value) is of


def _is_number(value: Any) -> bool:
    """Whether float() takes it without loss of size: not a truth value, nor an int beyond all floats."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= LARGEST)
