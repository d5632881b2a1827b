"""What the commands that only read a dataset have in common."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Protocol


class Answer(Protocol):
    """What such a command found."""

    def to_json(self) -> dict:
        """For machines."""

    def to_text(self) -> str:
        """For a person."""


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `--output`."""
    parser.add_argument("--output", required=True, type=path, metavar="ROOT", help="folder of the dataset")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")


def path(text: str) -> str:
    """A path that stays the same wherever it is used; URLs are left as they are."""
    return text if "://" in text else os.path.abspath(text)


def answer(known: argparse.Namespace, beam: tuple[str, ...], work: Callable[[], Answer]) -> int:
    """Does the work and prints what it found; returns the exit status.

    Args:
      known: the flags; `json` decides how it is printed.
      beam: flags for the file systems, such as those of S3.
      work: raises `CatalogueError` where it must refuse.
    """
    import logging

    from apache_beam.io.filesystems import FileSystems

    from mbt.pipeline import runner
    from mbt.pipeline.catalogue import CatalogueError

    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    try:
        FileSystems.set_options(runner.pipeline_options(beam))
        found = work()
    except (CatalogueError, runner.BeamFlagsError) as error:
        print(f"mbt-data: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found.to_json(), indent=1) if known.json else found.to_text())
    return 0
