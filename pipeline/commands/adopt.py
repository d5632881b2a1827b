"""`mbt-data import`: adopts copies that a lab already has."""

import argparse

from mbt.pipeline import storage
from mbt.pipeline.commands import flags
from mbt.pipeline.copies import PATTERNS

NAME = "import"
HELP = "adopt a folder of clips or videos that is there already"

DESCRIPTION = """\
Looks through a folder for copies of annotated clips, by the names of the files. Each is probed like a fetched one and
put into the media store, by a hard link where the file system can; nothing in the folder is changed.
What is found needs no fetching any more. Clips that are in the store already are left alone.
"""

EPILOG = (
    flags.DATASET_HELP
    + "\npatterns by name:\n"
    + "\n".join(f"  {name:<18} {pattern}" for name, pattern in PATTERNS.items())
    + """

fields of a pattern: {ytid} {id} {stem} {label} {start} {end} {start_ms} {end_ms} {ext} and *; a time in seconds may
say how it is written: {start:06d}, {start:.3f}.
A file whose name has a start is the clip, cut out. One without is the whole video if it is long enough for that.
A pattern without a folder is looked for in every folder below DIR.

example:
  mbt-data import /data/vggsound --pattern=vggsound --dataset=vggsound --annotations vggsound.csv --output=vggsound
"""
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("folder", type=flags.place, metavar="DIR", help=f"folder of the copies: {flags.ANYWHERE}")
    parser.add_argument("--pattern", required=True, help="how the files are named: a name from below, or a pattern")
    flags.add_output(parser)
    flags.add_dataset(parser)
    flags.add_clip_time_limit(parser.add_argument)
    parser.add_argument("--take_over", action="store_true", help="from a writer that crashed")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Imports; returns the exit status."""
    options = flags.options(known, beam)
    try:
        folder = flags.absolute(known.folder)
    except storage.UnknownStoreError as error:
        raise flags.FlagsError(str(error)) from error
    from mbt.pipeline import run, summary

    status, found = run.adopt(options, folder, known.pattern)
    print(summary.of_import(found, status, as_json=options.json))
    return 0
