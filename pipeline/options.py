"""The flags of `mbt-data`, checked before anything is done; Beam's own are passed on."""

import argparse
import dataclasses
import os
import re
from collections.abc import Sequence
from typing import NoReturn

DESCRIPTION = "Turns annotated video clips into sharded TFRecords, and says why a clip is missing."

BUILD_DESCRIPTION = """\
Reads a CSV of clips, decodes each once, and publishes a snapshot of TFRecord shards below --output.

The CSV's first line names its columns: video_path,start,end,label and, if wanted, split and id, in any order.
  video_path  a local path (absolute, or below --media_root) or an http(s) URL
  start, end  seconds in the video
  label       one name, or several separated by ';'
  split       e.g. train or test; "train" where the column is missing
  id          unique; made of path, start and end where the column is missing

Run it again after correcting the CSV: only the shards that changed are built. A run that was killed is
finished by the same command. Clips that cannot be used never stop the job; each gets a reason.
"""

BUILD_EPILOG = """\
Beam's own flags work too: --runner=DirectRunner (the default), --direct_num_workers=4,
--direct_running_mode=multi_processing, ...

example:
  mbt-data build --annotations=clips.csv --media_root=videos --output=dataset
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What `mbt-data build` was told.

    Attributes:
      annotations: path of the CSV.
      output: ROOT of the dataset.
      media_root: where relative video paths start.
      name: of the dataset.
      num_shards: per split, or None for the default.
      limit: read only so many rows, or None for all.
      snapshot: name of the snapshot, or None for the time.
      ffmpeg: path of another ffmpeg, or None.
      time_limit_s: of one clip's decoding.
      json: print the summary as JSON.
      beam: Beam's own flags.
    """

    annotations: str
    output: str
    media_root: str
    name: str
    num_shards: int | None
    limit: int | None
    snapshot: str | None
    ffmpeg: str | None
    time_limit_s: float
    json: bool
    beam: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; usage is for `--help`."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(arguments: Sequence[str]) -> BuildOptions:
    """Reads the command line; ends the process with status 2 where it is wrong."""
    parser = _Parser(prog="mbt-data", description=DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    build = commands.add_parser(
        "build",
        help="build a dataset from a CSV of clips",
        description=BUILD_DESCRIPTION,
        epilog=BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_build_flags(build)
    known, rest = parser.parse_known_args(arguments)
    return _checked(known, rest, build)


def _add_build_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--annotations", required=True, metavar="FILE", help="the CSV of clips")
    add("--output", required=True, metavar="ROOT", help="folder of the dataset; made if it is not there")
    add("--media_root", metavar="DIR", help="where relative video paths start (default: the CSV's own folder)")
    add("--name", help="name of the dataset, kept in every record (default: the CSV's name)")
    add(
        "--num_shards",
        type=_positive,
        metavar="N",
        help="shards per split, fixed once a dataset is begun (default: a power of two, about 256 MiB a shard)",
    )
    add("--limit", type=_positive, metavar="N", help="read only the first N clips of the CSV, to try things out")
    add("--snapshot", metavar="NAME", help="name of the snapshot (default: the time)")
    add("--ffmpeg", metavar="PATH", help="another ffmpeg than the embedded one; another one is another dataset")
    add(
        "--clip_time_limit",
        type=_positive,
        default=120,
        metavar="SECONDS",
        help="for decoding one clip, besides twice its own length; a clip that exceeds it is tried three times, "
        "and then its shard stays unbuilt (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the summary as JSON, for machines")


def _checked(known: argparse.Namespace, beam: list[str], parser: argparse.ArgumentParser) -> BuildOptions:
    annotations = known.annotations
    if not os.path.isfile(annotations):
        parser.error(f"--annotations={annotations}: no such file")
    media_root = os.path.abspath(known.media_root or os.path.dirname(annotations) or ".")
    if not os.path.isdir(media_root):
        parser.error(f"--media_root={known.media_root}: no such folder")
    name = known.name or os.path.splitext(os.path.basename(annotations))[0]
    for flag, value in (("--name", name), ("--snapshot", known.snapshot)):
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            parser.error(
                f"{flag}={value}: up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
            )
    for word in beam:
        if not word.startswith("-"):
            parser.error(f"unexpected argument {word!r}")
    return BuildOptions(
        annotations=annotations,
        output=known.output if "://" in known.output else os.path.abspath(known.output),
        media_root=media_root,
        name=name,
        num_shards=known.num_shards,
        limit=known.limit,
        snapshot=known.snapshot,
        ffmpeg=known.ffmpeg,
        time_limit_s=float(known.clip_time_limit),
        json=known.json,
        beam=tuple(beam),
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return number
