"""`mbt-data refresh`: what is online now, and a snapshot of it."""

import argparse

from mbt.pipeline.commands import flags
from mbt.schemas.clip import Outcome

NAME = "refresh"
HELP = "ask again what is online, fetch what came, and publish a snapshot of what changed"

_ASKABLE = [str(outcome) for outcome in Outcome if outcome not in (Outcome.INVALID, Outcome.NOT_TRIED)]
_DEFAULT = "transient,blocked,restricted,ok"

DESCRIPTION = """\
Videos vanish and come back. A refresh asks again for the clips whose newest word in the ledger is one of --recheck and
older than --older_than. Of a clip that was fetched it only asks whether it is still online, without downloading: by
YouTube's Data API where there is a key, else by oEmbed, and by yt-dlp where those leave doubt. Others are fetched, if
they can be now, and so are clips that are new in the annotations. Then it builds the shards that changed, reading the
media of changed clips only, and publishes a snapshot whose parent is the one before; `mbt-data diff latest~1 latest`
says what changed.
"""

EPILOG = """\
Beam's own flags, such as --runner, work as `mbt-data build --help` says.

examples:
  mbt-data refresh --dataset=vggsound --annotations vggsound.csv --output=vggsound
  mbt-data refresh --annotations=clips.csv --output=dataset --recheck=gone,restricted --older_than=90d --removed=drop
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    add = parser.add_argument_group("what to ask again").add_argument
    add(
        "--recheck",
        type=_outcomes,
        default=_DEFAULT,
        metavar="A,B",
        help=f"of {', '.join(_ASKABLE)} (default: {_DEFAULT})",
    )
    add("--older_than", type=flags.age, default="30d", metavar="AGE", help="such as 30d or 12h (default: %(default)s)")
    add(
        "--removed",
        choices=("keep", "drop"),
        default="keep",
        help="clips that were fetched and are not online any more: keep them, as a lab's own copy, or drop them, so "
        "that the snapshot is what could be fetched now (default: %(default)s)",
    )
    flags.add_output(parser)
    flags.add_dataset(parser)
    flags.add_fetch(parser)
    flags.add_build(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, for machines")


def _outcomes(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if unknown := sorted(names - set(_ASKABLE)):
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(_ASKABLE)}")
    return names


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Refreshes; returns the exit status."""
    options = flags.build_options(
        known, beam, recheck=known.recheck, older_than_s=known.older_than, drop_removed=known.removed == "drop"
    )
    from mbt.pipeline import run, summary

    print(summary.of_build(run.build(options), options))
    return 0
