"""Flags that several commands have."""

import argparse
import pathlib

from mbt.train.errors import UsageError


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument("--config", required=True, metavar="FILE_OR_NAME", help="e.g. demo, or my_config.py")


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """`--workdir`."""
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="folder of the run")


def refuse_others(rest: list[str]) -> None:
    """For a command that takes no `--config.KEY=VALUE`.

    Raises:
      UsageError: naming the first argument that is left.
    """
    if rest:
        raise UsageError(f"unknown argument {rest[0]}; see --help")
