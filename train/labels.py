"""The names of a run's classes, kept in its folder, so that a model can name what it sees without its dataset."""

import json
import pathlib
from collections.abc import Sequence

from mbt.schemas import own_json
from mbt.train.errors import UsageError
from mbt.train.workdir import write_text

LABELS_FILE = "labels.json"


def freeze(workdir: pathlib.Path, labels: Sequence[str]) -> None:
    """Writes the names, in the order of the classes, unless the run has them."""
    path = workdir / LABELS_FILE
    if not path.exists():
        write_text(path, json.dumps(list(labels), indent=1, ensure_ascii=False) + "\n")


def read(workdir: pathlib.Path) -> tuple[str, ...] | None:
    """The names; None where the run has none.

    Raises:
      UsageError: the file is damaged.
    """
    path = workdir / LABELS_FILE
    try:
        labels = own_json.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}; delete it to take the names from the dataset") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UsageError(f"{path} is no list of names; delete it to take the names from the dataset")
    return tuple(labels)


def of_classes(labels: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """A name for each class: a model may have more classes than its dataset has labels."""
    return (*labels, *(f"class {number}" for number in range(len(labels), num_classes)))
