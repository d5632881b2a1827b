"""`mbt-data diff`."""

import argparse

from mbt.pipeline.commands import flags, reading

NAME = "diff"
HELP = "say what changed between two snapshots"
DESCRIPTION = """\
Compares two snapshots, split by split: records gained, lost and relabelled, each with the reason for which the clip is
missing on the other side, the classes that lost most, and how many records a class has before and after.

--common=FILE writes the clips that are records in both, in the same split and of the same span, as CSV: split,id.
Two models are compared fairly on these: mbt-train evaluate --clips=FILE.
"""
EPILOG = """\
examples:
  mbt-data diff latest~1 latest --output=dataset
  mbt-data diff 2024-05 2024-06 --output=dataset --common=common.csv --json
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument("before", metavar="A", help="name of a snapshot, or latest, or latest~1 for the one before")
    parser.add_argument("after", metavar="B", help="likewise")
    reading.add_output(parser)
    parser.add_argument(
        "--common", type=reading.path, metavar="FILE", help=f"write the clips common to both: {flags.ANYWHERE}"
    )
    reading.add_json(parser)


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Runs the command; returns its exit status."""
    from mbt.pipeline import compare

    options = compare.Options(root=known.output, before=known.before, after=known.after, common=known.common)
    return reading.answer(known, beam, lambda: compare.diff(options))
