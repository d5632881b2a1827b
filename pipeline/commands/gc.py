"""`mbt-data gc`: deletes what no snapshot needs."""

import argparse
import re

from mbt.pipeline.commands import flags

NAME = "gc"
HELP = "delete shards that no snapshot uses, and what killed runs left"

DESCRIPTION = """\
Finds shards that no finished snapshot names, snapshots that were never finished, and temporary files. Says how many
there are, and deletes them if --yes is given. What a finished snapshot names is never touched, nor are media.

A training run holds no lock: do not delete a snapshot's folder, and then its shards with this, while one reads it.
"""

EPILOG = """\
examples:
  mbt-data gc --output=dataset
  mbt-data gc --output=dataset --older_than=7d --yes
"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser)
    add = parser.add_argument
    add("--yes", action="store_true", help="delete; without it nothing is")
    add(
        "--older_than",
        type=_age,
        default="1d",
        metavar="AGE",
        help="leave alone what is younger: a killed build goes on with its shards; 30m, 12h, 7d (default: %(default)s)",
    )
    add("--take_over", action="store_true", help="from a writer that crashed")
    add("--json", action="store_true", help="print what was found as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Collects; returns the exit status."""
    flags.use_stores(beam)
    from mbt.pipeline import collect

    options = collect.GcOptions(
        root=flags.root(known.output),
        older_than_s=known.older_than,
        delete=known.yes,
        take_over=known.take_over,
    )
    garbage = collect.collect(options)
    print(collect.as_json(garbage, options) if known.json else collect.as_text(garbage, options))
    return 0


def _age(text: str) -> float:
    """Such as 1d, in seconds."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not an age, such as 30m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]
