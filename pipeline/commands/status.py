"""`mbt-data status`: how far fetching is."""

import argparse

from mbt.pipeline.commands import flags

NAME = "status"
HELP = "say how far fetching is: outcomes per split, commonest reasons, time left"

DESCRIPTION = """\
Reads annotations and the ledger, and says per split how many clips are there, how many are lost and why, and how many
are left, with the time that they will take at the rate of the last run. It only reads, also while a fetch is running.
"""

EPILOG = """\
example:
  mbt-data status --dataset=vggsound --annotations vggsound.csv --output=vggsound
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser)
    flags.add_dataset(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Prints the status; returns the exit status."""
    flags.use_stores(beam)
    options = flags.options(known, ())
    from mbt.pipeline import run, summary

    print(summary.of_status(run.status(options), as_json=options.json))
    return 0
