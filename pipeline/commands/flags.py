"""Flags that several commands share, and what they are checked for."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mbt.pipeline import secret, spelling, storage
from mbt.pipeline.annotations.files import split_and_path
from mbt.pipeline.annotations.read import DATASETS, Selection
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.hosts import FLAG, Hosts, named_in
from mbt.pipeline.options import Options
from mbt.pipeline.settings import FetchSettings
from mbt.schemas import paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NO_NAMES = ("latest", "all")
_AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}

ANYWHERE = "local, gs:// or s3://"
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

    _given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):
        """As of the parser that this is, which keeps the words for its errors."""
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"{self.prog}: {message}{self._hint()}; see {self.prog} --help\n")

    def _hint(self) -> str:
        """The first word that is no flag of this command but looks like one."""
        for word in self._given:
            is_flag = word.startswith("--") and word.partition("=")[0] not in self._option_string_actions
            if is_flag and (meant := self.meant(word)):
                return meant
        return ""

    def meant(self, word: str, more: Sequence[str] = ()) -> str:
        """The flag that was meant by an unknown one, of this command's and these, as a question."""
        return spelling.hint(word, [*self._option_string_actions, *more])


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


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1, such as 0.05")
    return number


def amount(text: str) -> int:
    """Bytes, such as 500k, 10M or 2G."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text, re.IGNORECASE | re.ASCII)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text} is not a number of bytes, such as 500k or 10M")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def place(text: str) -> str:
    """A path as `paths.anywhere` opens it."""
    try:
        return paths.anywhere(text)
    except paths.PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def places(text: str) -> tuple[str, ...]:
    """Several, with commas between them."""
    return tuple(place(each) for each in text.split(","))


def annotation(text: str) -> str:
    """FILE or SPLIT=FILE."""
    split, path = split_and_path(text)
    return f"{split}={place(path)}" if split else place(path)


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
    parser.add_argument(
        "--output", required=required, type=place, metavar="ROOT", help=f"folder of the dataset: {ANYWHERE}"
    )


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Which clips."""
    add = parser.add_argument_group("the clips").add_argument
    add("--dataset", choices=DATASETS, default="csv", help="form of the annotation files (default: %(default)s)")
    add(
        "--annotations",
        required=True,
        nargs="+",
        action="extend",
        type=annotation,
        metavar="FILE",
        help="the files, as their makers publish them, also on gs:// or s3://; SPLIT=FILE where the name does not tell "
        "the split",
    )
    parser.add_argument(
        "more_annotations", nargs="*", type=annotation, help=argparse.SUPPRESS
    )  # --annotations=a b, by habit
    add(
        "--media_root",
        type=place,
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
        "fetching",
        "Secrets come from files, which every machine reads for itself, or from Google's Secret Manager, named as\n"
        "sm://PROJECT/NAME or sm://PROJECT/NAME/VERSION. They reach no job, no log and no ledger.",
    )
    add = group.add_argument
    defaults = FetchSettings()
    add("--downloads", type=positive, default=defaults.downloads, metavar="N", help="at a time, on each machine")
    add("--sleep", type=seconds, default=0.0, metavar="SECONDS", help="between requests to YouTube, on each machine")
    add("--bandwidth", type=amount, metavar="BYTES", help="a second, of each machine, such as 10M")
    add(
        "--cookies",
        type=place,
        metavar="FILE",
        help="cookies for YouTube, in the form that browsers' extensions export; no store",
    )
    add("--proxies", type=place, metavar="FILE", help="proxies, a URL a line, used in turn; one that is refused rests")
    add(
        "--youtube_api_key",
        type=place,
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
    add(
        FLAG,
        action="store_true",
        help="let rows name hosts of this machine's own network, which only --media_root may name otherwise",
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
        "--allow_loss",
        type=share,
        metavar="SHARE",
        help="publish although up to this share of a split is only out of reach: refused, in error, not reached, or "
        "its local file not there; such as 0.05 (default: 0.1 of a split's list where that is new, then 0.02 of the "
        "records of the snapshot before)",
    )
    add(
        "--keep_media",
        choices=("yes", "no"),
        default="yes",
        help="no: what was fetched is deleted once it is in shards (default: %(default)s)",
    )
    add(
        "--reencode",
        action="store_true",
        help="where another encoder made the records: make them again, and fetch anew what has no media any more",
    )
    add(
        "--ffmpeg",
        type=place,
        metavar="PATH",
        help="another ffmpeg than the embedded one, local; another one is another encoder",
    )
    add_clip_time_limit(add)


def add_clip_time_limit(add: Callable[..., Any]) -> None:
    """How long a clip may be decoded: when its record is made, and when its media are probed and cut."""
    add(
        "--clip_time_limit",
        type=positive,
        default=120,
        metavar="SECONDS",
        help="CPU time for each pass over a clip, besides twice its own length; a clip that exceeds it, or three times "
        "idles for as long, is left out for now, and tried again by the next run (default: %(default)s)",
    )


def build_options(known: argparse.Namespace, beam: tuple[str, ...], **more: Any) -> Options:
    """The options of a command that builds.

    Raises:
      FlagsError: a flag is wrong.
    """
    check_name("--snapshot", known.snapshot)
    if known.snapshot in _NO_NAMES:
        raise FlagsError(f"--snapshot={known.snapshot}: this names other snapshots; choose another name")
    return options(
        known,
        beam,
        num_shards=known.num_shards,
        snapshot=known.snapshot,
        ffmpeg=known.ffmpeg,
        keep_media=known.keep_media == "yes",
        reencode=known.reencode,
        allow_loss=known.allow_loss,
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
    of_files = [split_and_path(file)[1] for file in files]
    for path in of_files:
        _check_store("annotations", path)
    media_root = _media_root(known.media_root, of_files[0])
    name = known.name or _default_name(known.dataset, of_files[0])
    check_name("--name", name)
    for flag in ("cookies", "proxies", "youtube_api_key"):
        _check_secret(flag, getattr(known, flag, None))
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
        time_limit_s=float(getattr(known, "clip_time_limit", Options.time_limit_s)),
        json=known.json,
        beam=beam,
        **more,
    )


def root(output: str) -> str:
    """ROOT as every worker finds it.

    Raises:
      FlagsError: there is no such kind of store.
    """
    _check_store("output", output)
    return absolute(output)


def _check_store(flag: str, path: str) -> None:
    _check_utf8(flag, absolute(path) if storage.is_local(path) else path)
    try:
        storage.check(path)
    except storage.UnknownStoreError as error:
        raise FlagsError(f"--{flag}={error}") from error


def absolute(path: str) -> str:
    """A path that stays the same wherever it is used.

    Raises:
      UnknownStoreError: it is on a kind of store that there is none of.
    """
    storage.check(path)
    return os.path.abspath(path) if storage.is_local(path) else path.rstrip("/")


def _check_utf8(flag: str, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise FlagsError(
            f"--{flag}={shown} is not UTF-8, and a dataset's paths are: rename the folder, or give it a link that is"
        ) from error


def use_stores(words: tuple[str, ...]) -> None:
    """Has the stores heed Beam's flags for them, such as --s3_endpoint_url, in a command that runs no job.

    Raises:
      FlagsError: one is no flag.
      RefusedError: Beam does not know one.
    """
    if not words:
        return
    if not words[0].startswith("-"):
        raise FlagsError(f"unexpected argument {words[0]!r}")
    from apache_beam.io.filesystems import FileSystems

    from mbt.pipeline import runner

    try:
        FileSystems.set_options(runner.pipeline_options(words))
    except runner.BeamFlagsError as error:
        raise RefusedError(str(error)) from error


def check_name(flag: str, value: str | None) -> None:
    """Refuses names that would not do as parts of paths."""
    if value is not None and not _NAME.fullmatch(value):
        raise FlagsError(
            f"{flag}={value}: up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )


def _media_root(given: str | None, first_file: str) -> str:
    folder = given or os.path.dirname(first_file) or "."
    if not storage.is_local(folder):
        return folder.rstrip("/")
    folder = os.path.abspath(folder)
    _check_utf8("media_root", folder)
    if given and not os.path.isdir(folder):
        raise FlagsError(f"--media_root={given}: no such folder")
    if given and not os.listdir(folder):  # else every clip of it would count as missing
        raise FlagsError(f"--media_root={given} is empty: is its disk mounted?")
    return folder


def _default_name(dataset: str, first_file: str) -> str:
    return dataset if dataset != "csv" else os.path.splitext(os.path.basename(first_file))[0]


def _check_secret(flag: str, place: str | None) -> None:
    try:
        if not place or secret.is_elsewhere(place):
            return
    except secret.SecretError as error:
        raise FlagsError(f"--{flag}={error}") from None
    _check_store(flag, place)
    if not storage.is_local(place) and flag == "cookies":
        raise FlagsError(f"--cookies={place}: give a file of this machine, or {secret.FORMS}")
    if storage.is_local(place) and not os.path.isfile(place):
        raise FlagsError(f"--{flag}={place}: no such file")


def _fetch(known: argparse.Namespace) -> FetchSettings:
    defaults = FetchSettings()
    return FetchSettings(
        cookies=_secret(known.cookies),
        proxies=_secret(known.proxies),
        youtube_api_key=_secret(known.youtube_api_key),
        downloads=known.downloads,
        interval_s=known.sleep,
        bytes_per_second=known.bandwidth,
        download=known.download,
        time_limit_s=float(known.download_time_limit),
        workers=known.max_fetch_workers,
        lost_share=max(defaults.lost_share, getattr(known, "allow_loss", None) or 0.0),
        hosts=Hosts(allow_private=known.allow_private_hosts, named=named_in(known.media_root)),
    )


def _secret(place: str | None) -> str | None:
    return place if not place or secret.is_elsewhere(place) else absolute(place)
