"""What the commands that only read a dataset have in common."""

import argparse
import json
from collections.abc import Callable
from typing import Protocol

from mbt.pipeline import storage
from mbt.pipeline.commands import flags
from mbt.pipeline.errors import IncompleteError, RefusedError


class Answer(Protocol):
    """What such a command found."""

    def to_json(self) -> dict:
        """For machines."""

    def to_text(self) -> str:
        """For a person."""


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `--output`."""
    parser.add_argument(
        "--output", required=True, type=path, metavar="ROOT", help=f"folder of the dataset: {flags.ANYWHERE}"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")


def path(text: str) -> str:
    """A path that stays the same wherever it is used."""
    try:
        return flags.absolute(flags.place(text))
    except storage.UnknownStoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def answer(known: argparse.Namespace, beam: tuple[str, ...], work: Callable[[], Answer]) -> int:
    """Does the work and prints what it found; returns the exit status.

    Args:
      known: the flags; `json` decides how it is printed.
      beam: flags for the file systems, such as those of S3.
      work: to do.

    Raises:
      FlagsError: a word is no flag.
      RefusedError: a flag is wrong, a file cannot be read or written, or what the work raised.
      IncompleteError: an object store does not answer, or not to us.
    """
    from mbt.pipeline.terminal import shown

    flags.use_stores(beam)
    try:
        found = work()
    except storage.errors() as error:  # first, for some of them are OSErrors too
        raise IncompleteError(storage.said(error)) from error
    except OSError as error:
        raise RefusedError(str(error)) from error
    # A snapshot may be a stranger's: whatever its files say, the terminal only gets text.
    lines = [json.dumps(found.to_json(), indent=1)] if known.json else map(shown, found.to_text().split("\n"))
    print("\n".join(lines))
    return 0
