"""Flags that several commands share, and what they are checked for."""

import argparse
import os
import re
from typing import Any, NoReturn

from mbt.pipeline.annotations.read import DATASETS, Selection
from mbt.pipeline.options import Options
from mbt.pipeline.settings import FetchSettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}

DATASET_HELP = """\
datasets:
  csv            a CSV with a header: video_path,start,end,label and, if wanted, split and id
  audioset       balanced_train_segments.csv, eval_segments.csv, unbalanced_train_segments.csv, class_labels_indices.csv
  as500k         the same files: 500,000 clips of the unbalanced list, balanced as far as they can be (docs/datasets.md)
  vggsound       vggsound.csv, or the lists train.csv and test.csv
  kinetics       the CSVs of Kinetics 400, 600 and 700, with or without labels
  epic_kitchens  EPIC_100_train.csv, EPIC_100_validation.csv, and the classes of verbs and nouns
  moments        trainingSet.csv and validationSet.csv, or folders of class folders
"""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; usage is for `--help`."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class FlagsError(ValueError):
    """A flag is wrong; the message names it."""


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return number


def count(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def seconds(text: str) -> float:
    """A number of seconds."""
    number = float(text)
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return number


def amount(text: str) -> int:
    """Bytes, such as 500k, 10M or 2G."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text, re.IGNORECASE | re.ASCII)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text} is not a number of bytes, such as 500k or 10M")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def age(text: str) -> float:
    """Seconds, from such as 30d, 12h, 90m."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not an age, such as 30d or 12h")
    return float(match[1]) * _AGES[match[2]]


def part(text: str) -> tuple[int, int]:
    """Such as 1/2."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not a part, such as 1/2 or 2/2")
    return int(match[1]), int(match[2])


def add_output(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """ROOT."""
    parser.add_argument("--output", required=required, metavar="ROOT", help="folder of the dataset; may be on gs://")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Which clips."""
    add = parser.add_argument_group("the clips").add_argument
    add("--dataset", choices=DATASETS, default="csv", help="form of the annotation files (default: %(default)s)")
    add(
        "--annotations",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="the files, as their makers publish them; SPLIT=FILE where the name does not tell the split",
    )
    parser.add_argument("more_annotations", nargs="*", help=argparse.SUPPRESS)  # --annotations=a b, by habit
    add(
        "--media_root",
        metavar="DIR",
        help="where relative video paths start: a folder or a URL (default: the first file's own folder)",
    )
    add("--videos", metavar="PATTERN", help="where a video lies below --media_root, as in '{participant}/{video}.mp4'")
    add("--name", help="name of the dataset, kept in every record (default: --dataset; of a csv, its name)")
    add("--limit", type=positive, metavar="N", help="read only the first N clips of each file, to try things out")
    add("--classes", metavar="A;B", help="only clips that have one of these labels")
    add(
        "--max_bad_rows",
        type=count,
        metavar="N",
        help="admit so many bad rows, each counted and listed (default: 0; of a csv, any number)",
    )


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """How media are fetched."""
    group = parser.add_argument_group(
        "fetching", "Secrets come from files, which every machine reads for itself: they reach no log and no ledger."
    )
    add = group.add_argument
    defaults = FetchSettings()
    add("--downloads", type=positive, default=defaults.downloads, metavar="N", help="at a time, on each machine")
    add("--sleep", type=seconds, default=0.0, metavar="SECONDS", help="between requests to YouTube, on each machine")
    add("--bandwidth", type=amount, metavar="BYTES", help="a second, of each machine, such as 10M")
    add("--cookies", metavar="FILE", help="cookies for YouTube, in the form that browsers' extensions export")
    add("--proxies", metavar="FILE", help="proxies, a URL a line, used in turn; one that is refused rests")
    add(
        "--youtube_api_key",
        metavar="FILE",
        help="key of YouTube's Data API, with which refresh asks 50 videos at a time",
    )
    add(
        "--download",
        choices=("auto", "whole", "range"),
        default=defaults.download,
        help="get whole videos and cut here, or ask for the range only (default: by length)",
    )
    add(
        "--download_time_limit",
        type=positive,
        default=int(defaults.time_limit_s),
        metavar="SECONDS",
        help="(default: %(default)s)",
    )
    add(
        "--max_fetch_workers",
        type=positive,
        metavar="N",
        help="that fetch at a time; this or --proxies is required where many machines work, for each adds to the load",
    )
    add("--take_over", action="store_true", help="from a writer that crashed; the message that names it says when")


def add_build(parser: argparse.ArgumentParser) -> None:
    """How records are made."""
    add = parser.add_argument_group("building").add_argument
    add(
        "--num_shards",
        type=positive,
        metavar="N",
        help="shards per split, fixed once a dataset is begun (default: a power of two, 128 to 256 MiB a shard)",
    )
    add("--snapshot", metavar="NAME", help="name of the snapshot (default: the time)")
    add(
        "--keep_media",
        choices=("yes", "no"),
        default="yes",
        help="no: what was fetched is deleted once it is in shards (default: %(default)s)",
    )
    add("--ffmpeg", metavar="PATH", help="another ffmpeg than the embedded one; another one is another dataset")
    add(
        "--clip_time_limit",
        type=positive,
        default=120,
        metavar="SECONDS",
        help="for decoding one clip, besides twice its own length; a clip that exceeds it is tried three times, "
        "and then its shard stays unbuilt (default: %(default)s)",
    )


def build_options(known: argparse.Namespace, beam: tuple[str, ...], **more: Any) -> Options:
    """The options of a command that builds.

    Raises:
      FlagsError: a flag is wrong.
    """
    check_name("--snapshot", known.snapshot)
    return options(
        known,
        beam,
        num_shards=known.num_shards,
        snapshot=known.snapshot,
        ffmpeg=known.ffmpeg,
        time_limit_s=float(known.clip_time_limit),
        keep_media=known.keep_media == "yes",
        **more,
    )


def options(known: argparse.Namespace, beam: tuple[str, ...], **more: Any) -> Options:
    """The options of a command that has these flags.

    Raises:
      FlagsError: a flag is wrong.
    """
    files = [*known.annotations, *known.more_annotations]
    for word in beam:
        if not word.startswith("-"):
            raise FlagsError(f"unexpected argument {word!r}")
    first = _without_split(files[0])
    media_root = _media_root(known.media_root, first)
    name = known.name or _default_name(known.dataset, first)
    check_name("--name", name)
    for flag in ("cookies", "proxies", "youtube_api_key"):
        path = getattr(known, flag, None)
        if path and "://" in path and flag == "cookies":
            raise FlagsError(f"--cookies={path}: give a file of this machine")
        if path and "://" not in path and not os.path.isfile(path):
            raise FlagsError(f"--{flag}={path}: no such file")
    return Options(
        root=root(known.output) if known.output else "",
        name=name,
        selection=Selection(
            dataset=known.dataset,
            files=tuple(files),
            media_root=media_root,
            videos=known.videos,
            limit=known.limit,
            classes=tuple(label.strip() for label in (known.classes or "").split(";") if label.strip()),
            max_bad_rows=known.max_bad_rows,
        ),
        fetch=_fetch(known) if hasattr(known, "downloads") else FetchSettings(),
        take_over=getattr(known, "take_over", False),
        json=known.json,
        beam=beam,
        **more,
    )


def root(output: str) -> str:
    """ROOT as every worker finds it."""
    return output.rstrip("/") if "://" in output else os.path.abspath(output)


def refuse_others(words: tuple[str, ...]) -> None:
    """Refuses flags that a command without Beam does not know."""
    if words:
        raise FlagsError(
            f"unknown flag {words[0]}" if words[0].startswith("-") else f"unexpected argument {words[0]!r}"
        )


def check_name(flag: str, value: str | None) -> None:
    """Refuses names that would not do as parts of paths."""
    if value is not None and not _NAME.fullmatch(value):
        raise FlagsError(
            f"{flag}={value}: up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )


def _media_root(given: str | None, first_file: str) -> str:
    if given and "://" in given:
        return given.rstrip("/")
    folder = os.path.abspath(given or os.path.dirname(first_file) or ".")
    if given and not os.path.isdir(folder):
        raise FlagsError(f"--media_root={given}: no such folder")
    return folder


def _without_split(file: str) -> str:
    """The path in `SPLIT=FILE`."""
    return file if os.path.exists(file) or "=" not in file else file.partition("=")[2]


def _default_name(dataset: str, first_file: str) -> str:
    return dataset if dataset != "csv" else os.path.splitext(os.path.basename(first_file))[0]


def _fetch(known: argparse.Namespace) -> FetchSettings:
    return FetchSettings(
        cookies=known.cookies and _absolute(known.cookies),
        proxies=known.proxies and _absolute(known.proxies),
        youtube_api_key=known.youtube_api_key and _absolute(known.youtube_api_key),
        downloads=known.downloads,
        interval_s=known.sleep,
        bytes_per_second=known.bandwidth,
        download=known.download,
        time_limit_s=float(known.download_time_limit),
        workers=known.max_fetch_workers,
    )


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)
