"""`mbt-data list`."""

import argparse

from mbt.pipeline.commands import reading

NAME = "list"
HELP = "list the snapshots of a dataset"
DESCRIPTION = """\
A line for each snapshot, the oldest first: when it was made, from which one, its annotated clips, those that became
records, the size of its shards, and the share of it that lies in files which its parent has too.
"""
EPILOG = """\
example:
  mbt-data list --output=dataset
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    reading.add_output(parser)
    reading.add_json(parser)


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Runs the command; returns its exit status."""
    from mbt.pipeline import listing

    return reading.answer(known, beam, lambda: listing.list_snapshots(known.output))
