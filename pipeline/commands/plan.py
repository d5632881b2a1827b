"""`mbt-data plan`: what a dataset will take."""

import argparse

from mbt.pipeline.commands import flags

NAME = "plan"
HELP = "say what a build will take: clips lost, requests, days, CPU hours, bytes, shards, workers"

DESCRIPTION = """\
Says what fetching and building these clips will take, each number with its formula. It takes the flags of build, and
writes nothing; --output may be left out, or name a dataset that is begun: then what is fetched and built is left out,
and losses, bytes and pace are those of its ledger.

Where media are there, some clips are made into records in a temporary folder, and timed: CPU time and bytes depend on
what the films show. The same clips are taken each time, by the hash of their ids. Where none are, the averages of
docs/performance.md are scaled by the time that a built-in clip takes here. Numbers are of machines like this one.
"""

EPILOG = (
    flags.DATASET_HELP
    + """
examples:
  mbt-data plan --annotations=clips.csv --media_root=videos
  mbt-data plan --dataset=audioset --annotations eval_segments.csv --output=audioset --sleep=12 --within=2d
"""
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser, required=False)
    flags.add_dataset(parser)
    flags.add_fetch(parser)
    flags.add_build(parser)
    add = parser.add_argument_group("planning").add_argument
    add(
        "--within",
        type=flags.age,
        default="1d",
        metavar="AGE",
        help="wanted duration of fetching, and of building, for the number of machines (default: %(default)s)",
    )
    add("--sample", type=flags.count, default=48, metavar="N", help="clips to measure (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Plans; returns the exit status."""
    if not known.within:
        raise flags.FlagsError("--within=0: say how long it may take, such as 2d or 12h")
    options = flags.build_options(known, beam)
    from mbt.pipeline import run
    from mbt.pipeline.commands import reading

    return reading.answer(known, beam, lambda: run.plan(options, within_s=known.within, sample=known.sample))
