"""`mbt-data fetch`: annotations to media and a ledger."""

import argparse

from mbt.pipeline.commands import flags

NAME = "fetch"
HELP = "fetch the media of annotated clips, and keep account of every attempt"

DESCRIPTION = """\
Fetches the media of every annotated clip that is not there yet: YouTube through yt-dlp, http(s), gs://, s3://
and local paths.
Each file is probed before it is kept. Every attempt is written to the ledger with an outcome and a reason.

Run it again, and it does what is left: clips never tried, and those that were blocked, restricted or met an error that
may pass. Clips that are gone, or whose file cannot be a clip, are settled. A run that meets too many refusals stops by
itself, marks nothing as lost, and says how to go on.
"""

EPILOG = (
    flags.DATASET_HELP
    + """
Beam's own flags, such as --runner, work as `mbt-data build --help` says.

examples:
  mbt-data fetch --dataset=audioset --annotations eval_segments.csv --limit=50 --output=audioset
  mbt-data fetch --annotations=clips.csv --output=/shared/clips --part=1/2     (and on another machine --part=2/2)
"""
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser)
    flags.add_dataset(parser)
    flags.add_fetch(parser)
    add = parser.add_argument
    add("--part", type=flags.part, default=(1, 1), metavar="K/N", help="fetch one of N disjoint parts, several at once")
    add("--max_attempts", type=flags.positive, metavar="N", help="try at most N clips in this run")
    add(
        "--recut",
        action="store_true",
        help="also fetch again what an older version cut out of its source, which was wrong for some films; what does "
        "not come again stays as it is",
    )
    flags.add_clip_time_limit(add)
    add("--json", action="store_true", help="print the summary as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Fetches; returns the exit status."""
    options = flags.options(known, beam, part=known.part, max_attempts=known.max_attempts, recut=known.recut)
    from mbt.pipeline import run, summary

    status = run.fetch(options)
    print(summary.of_status(status, as_json=options.json))
    return int(status.is_empty)
