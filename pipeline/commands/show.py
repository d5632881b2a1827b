"""`mbt-data show`."""

import argparse

from mbt.pipeline.commands import reading

NAME = "show"
HELP = "say all that is known of a snapshot"
DESCRIPTION = """\
Per split: annotated clips, records, hours, size, every reason for which clips are missing, the spectrogram's mean and
standard deviation, and the classes with the most and the fewest records. Then what it was made with.
"""
EPILOG = """\
examples:
  mbt-data show latest --output=dataset
  mbt-data show 2024-06 --output=dataset --json
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument("snapshot", metavar="NAME", help="of the snapshot, or latest, or latest~1, ...")
    reading.add_output(parser)
    reading.add_json(parser)


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Runs the command; returns its exit status."""
    from mbt.pipeline import listing

    options = listing.ShowOptions(root=known.output, name=known.snapshot)
    return reading.answer(known, beam, lambda: listing.show(options))
