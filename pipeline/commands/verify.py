"""`mbt-data verify`: whether a dataset is what was written."""

import argparse

from mbt.pipeline.commands import flags
from mbt.pipeline.errors import IncompleteError, WorkerTroubleError

NAME = "verify"
HELP = "check every file of a snapshot, and rebuild what is damaged"

DESCRIPTION = """\
Checks a snapshot against all files that it names: manifest, clip table, shards and indices; the checksum of every
record, every JPEG, that index and spectrogram agree, that the ledger can be read, and the digests of fetched media.
Says which shard and which clips are bad.

With --repair, a damaged shard is rebuilt: whole records are copied, the others are decoded anew from the media from
which they were made. The result takes the damaged file's place only if it is that very file.

Exit status 1 where damage is left.
"""

EPILOG = """\
examples:
  mbt-data verify --output=dataset
  mbt-data verify --output=dataset --snapshot=all --repair
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser)
    add = parser.add_argument
    add("--snapshot", default="latest", metavar="NAME", help="its name, or all (default: %(default)s)")
    add(
        "--media",
        choices=("yes", "no"),
        default="yes",
        help="check the digests of fetched media too (default: %(default)s)",
    )
    add("--repair", action="store_true", help="rebuild the shards that are damaged")
    add(
        "--ffmpeg",
        type=flags.place,
        metavar="PATH",
        help="the ffmpeg that began the dataset, where that is not the embedded one; local",
    )
    add("--take_over", action="store_true", help="from a writer that crashed")
    add("--json", action="store_true", help="print what was found as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Verifies; returns the exit status."""
    flags.use_stores(beam)
    from mbt.pipeline import verify

    options = verify.VerifyOptions(
        root=flags.root(known.output),
        snapshot=known.snapshot,
        media=known.media == "yes",
        repair=known.repair,
        ffmpeg=known.ffmpeg,
        take_over=known.take_over,
    )
    try:
        report = verify.verify(options)
    except WorkerTroubleError as error:
        raise IncompleteError(f"{error}, which says nothing of the dataset: run it again") from error
    print(verify.as_json(report) if known.json else verify.as_text(report))
    return 1 if report.num_left else 0
