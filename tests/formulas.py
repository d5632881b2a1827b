"""Evaluates the formulas that `mbt-data plan` and docs/scale.md print: what they say is what is checked."""

import math
import re

_TOKEN = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<word>[A-Za-z_][\w'-]*)|(?P<operator>[-+*/()])")
_SCALES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "h": 3600.0, "min": 60.0, "%": 0.01}


def evaluate(formula: str, names: dict[str, float]) -> float:
    """The value of a formula.

    Words are the names of other lines, where those stand as operands, or say what the number before them counts.

    Args:
      formula: arithmetic.
      names: of lines, with their values.
    """
    for place, name in enumerate(sorted(names, key=len, reverse=True)):
        # After a number it is a unit.
        formula = re.sub(rf"(?<![\w.] )(?<![\w.]){re.escape(name)}(?![\w])", f"@{place}@", formula)
    for place, name in enumerate(sorted(names, key=len, reverse=True)):
        formula = formula.replace(f"@{place}@", f"({names[name]!r})")
    words = []
    for token in _TOKEN.finditer(formula):
        if token["number"]:
            words.append(token["number"].replace(",", ""))
        elif token["operator"] or token["word"] == "ceil":
            words.append(token[0])
    return eval("".join(words), {"ceil": math.ceil})  # of our own text


def number(text: str) -> float:
    """The value that is printed, such as 12.3 GB or 1,234 h, in bytes, seconds or what it counts."""
    value, _, unit = text.partition(" ")
    return float(value.replace(",", "")) * _SCALES.get(unit, 1.0)


def lines(text: str) -> list[tuple[str, str, str]]:
    """(name, value, formula) of each line of the form `name  value = formula  [source]`; an empty formula: none."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition("  [")[0].partition(" = ")
        if match := re.fullmatch(r"  (\S+(?: \S+)*?)  +(\d\S*(?: [A-Za-z]+)?)", left.rstrip()):
            found.append((match[1], match[2], right.strip()))
    return found
