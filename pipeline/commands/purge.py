"""`mbt-data purge`: removes clips from everything that a dataset holds."""

import argparse
import io

from mbt.pipeline.commands import flags
from mbt.pipeline.errors import IncompleteError, WorkerTroubleError

NAME = "purge"
HELP = "remove named clips from media, shards, tables and reports of every snapshot"

DESCRIPTION = """\
Removes clips, such as those of a takedown request: their media, their records, their rows' contents, and reports that
may show them, in every snapshot. Each snapshot that held one says so in its manifest (`amended`), with old and new
digests; no other record changes by a byte. Media of other clips that hold a part of their time go too, and are fetched
again when they are needed. A tombstone with the reason keeps later builds from bringing a clip back, also under another
id. In the end all files below ROOT are searched for the clips' frames, spectrograms and media, stored media are decoded
and compared, and what was searched is printed.

Without --yes it only says what it would do. Killed in the middle, it is run again and does the rest. A training run
that reads an old shard of such a snapshot fails; it goes on after a restart.
"""

EPILOG = """\
example:
  mbt-data purge --output=dataset --clips=takedown.txt --reason='request of 3 May' --yes
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser)
    add = parser.add_argument
    add(
        "--clips",
        required=True,
        type=flags.place,
        metavar="FILE",
        help=f"ids of the clips, one a line: {flags.ANYWHERE}",
    )
    add("--reason", required=True, metavar="TEXT", help="for the tombstones and the manifests")
    add(
        "--overlapping",
        choices=("refuse", "drop"),
        default="refuse",
        help="what becomes of other clips that show any of the same time: refuse does nothing (default: %(default)s)",
    )
    add(
        "--search",
        choices=("all", "source"),
        default="all",
        help="which stored media are decoded in the end: all, or those of the clips' sources (default: %(default)s)",
    )
    add(
        "--workdirs",
        type=flags.places,
        default=(),
        metavar="DIR,...",
        help="of training runs: their pictures of batches go",
    )
    add(
        "--reports",
        type=flags.places,
        default=(),
        metavar="FILE,...",
        help="reports that were written elsewhere: they go",
    )
    add("--yes", action="store_true", help="do it; without it nothing is changed")
    add("--take_over", action="store_true", help="from a writer that crashed")
    add("--json", action="store_true", help="print what was found and done as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Purges; returns the exit status."""
    flags.use_stores(beam)
    from mbt.pipeline import storage

    try:
        text = storage.read(known.clips).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, storage.UnknownStoreError) as error:
        raise flags.FlagsError(f"--clips={known.clips}: {getattr(error, 'strerror', None) or error}") from error
    # Without blanks at the ends, as ids are read from annotations.
    clip_ids = frozenset(filter(None, (line.strip() for line in io.StringIO(text, newline=None))))
    if not clip_ids:
        raise flags.FlagsError(f"--clips={known.clips} names no clip")
    from mbt.pipeline import purge

    options = purge.PurgeOptions(
        root=flags.root(known.output),
        clip_ids=clip_ids,
        reason=known.reason,
        delete=known.yes,
        take_over=known.take_over,
        drop_overlapping=known.overlapping == "drop",
        every_source=known.search == "all",
        workdirs=known.workdirs,
        reports=known.reports,
    )
    try:
        found, proof = purge.purge(options)
    except WorkerTroubleError as error:
        raise IncompleteError(f"{error}, so the purge has not come to its end: run the same command again") from error
    is_refused = proof is None and known.yes
    say = purge.as_json if known.json else purge.as_text
    print(say(options, found, proof))
    return 1 if is_refused or (proof is not None and proof.left) else 0
