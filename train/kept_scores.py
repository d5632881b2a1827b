"""The scores of a checkpoint's evaluation, kept in its folder: they come after it, and decide which one is the best."""

import json
import math
import pathlib
from collections.abc import Iterable

import google_crc32c

from mbt.schemas import durable, own_json

FILE = "scores.json"
_OF_ORBAX = ("metrics", "metrics")  # where older versions had them, which wrote a checkpoint after its evaluation


def write(folder: pathlib.Path, scores: dict) -> None:
    """Notes them for the checkpoint in a folder.

    Raises:
      OSError: they cannot be written.
    """
    data = json.dumps({"scores": scores, "crc32c": _digest(json.dumps(scores))}).encode()
    # Not unfinished beside the checkpoint: another process may be flushing all that is in its folder.
    durable.write(folder / FILE, data, folder.parent / f"{FILE}.tmp")


def are_there(folder: pathlib.Path) -> bool:
    """Whether the checkpoint in a folder has any, be they numbers or not."""
    return _all(folder) is not None


def read(folder: pathlib.Path, name: str) -> float | None:
    """One of them; None where the checkpoint has none that is a number."""
    value = (_all(folder) or {}).get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _all(folder: pathlib.Path) -> dict | None:
    """What was noted and is as it was written; None where there is nothing."""
    for path, is_ours in ((folder / FILE, True), (folder.joinpath(*_OF_ORBAX), False)):
        try:
            found = own_json.parse(path.read_bytes())
            scores = found["scores"] if is_ours else found
            if isinstance(scores, dict) and (not is_ours or found["crc32c"] == _digest(json.dumps(scores))):
                return scores
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def best(steps: Iterable[int], folder: pathlib.Path, name: str) -> int | None:
    """The step of the checkpoint with the greatest score, of equal ones the last; None where none has one."""
    found = [(score, step) for step in steps if (score := read(folder / str(step), name)) is not None]
    return max(found)[1] if found else None


def _digest(text: str) -> str:
    return google_crc32c.Checksum(text.encode()).digest().hex()
