"""`mbt-data report`."""

import argparse
import re

from mbt.pipeline.commands import flags, reading

NAME = "report"
HELP = "write a page that shows a snapshot"
DESCRIPTION = """\
Writes one HTML file that needs nothing else, and can be read on a phone: how many clips of each split are there, over
all snapshots; why the others are not; every class with its counts, searchable; lengths and sizes; some clips of each
split, as frames above their spectrogram; and the classes that lost most.

The file is written beside the snapshot as report.html and, with --html, to another place too. It holds frames of
clips: who may not see the clips may not see the report.
"""
_MOST_CLIPS = 24
EPILOG = """\
examples:
  mbt-data report --output=dataset
  mbt-data report --output=dataset --snapshot=2024-06 --html=report.html --clips=12
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    reading.add_output(parser)
    parser.add_argument("--snapshot", default="latest", metavar="NAME", help="which snapshot (default: %(default)s)")
    parser.add_argument(
        "--html", type=reading.path, metavar="FILE", help=f"another place to write to: {flags.ANYWHERE}"
    )
    parser.add_argument(
        "--clips",
        type=_count,
        default=6,
        metavar="N",
        help=f"clips shown per split, up to {_MOST_CLIPS} (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="which clips are drawn (default: %(default)s)"
    )
    reading.add_json(parser)


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Runs the command; returns its exit status."""
    from mbt.pipeline import report

    options = report.Options(
        root=known.output, snapshot=known.snapshot, html=known.html, clips=known.clips, seed=known.seed
    )
    return reading.answer(known, beam, lambda: report.write(options))


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,2}", text) or int(text) > _MOST_CLIPS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MOST_CLIPS}")
    return int(text)
