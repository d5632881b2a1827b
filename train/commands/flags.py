"""Flags that several commands have."""

import argparse
import pathlib

from mbt.schemas import paths
from mbt.train.errors import UsageError
from mbt.train.rendezvous import TIMEOUT_S, Processes


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument("--config", required=True, type=root, metavar="FILE_OR_NAME", help="e.g. demo, or my_config.py")


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """`--workdir`."""
    parser.add_argument("--workdir", required=True, type=path, metavar="DIR", help="folder of the run")


def path(text: str) -> pathlib.Path:
    """The type of a flag that names a file or folder on this machine."""
    try:
        return paths.local(text)
    except paths.PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def root(text: str) -> str:
    """The type of a flag that names a place on this machine or in an object store."""
    try:
        return paths.anywhere(text)
    except paths.PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_data_root(parser: argparse.ArgumentParser, why: str) -> None:
    """`--data_root`."""
    parser.add_argument("--data_root", type=root, metavar="ROOT", help=f"folder of the dataset, {why}")


def add_best(parser: argparse.ArgumentParser) -> None:
    """`--best`."""
    parser.add_argument(
        "--best", action="store_true", help="the checkpoint that is best by train.best; default: newest"
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Those by which several processes find each other."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where several work together")
    parser.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    parser.add_argument("--process_id", type=int, metavar="I", help="of this one, from 0")
    parser.add_argument("--distributed", action="store_true", help="the same, asking the cluster for all three")
    parser.add_argument(
        "--join_timeout", type=float, default=TIMEOUT_S, metavar="SECONDS", help="for those that are late; default: 300"
    )


def processes_of(args: argparse.Namespace) -> Processes | None:
    """What these flags say; None where this process is alone."""
    given = (args.coordinator, args.num_processes, args.process_id)
    several = args.distributed or any(value is not None for value in given)
    return Processes(*given, timeout_s=args.join_timeout) if several else None


def refuse_others(rest: list[str]) -> None:
    """For a command that takes no `--config.KEY=VALUE`.

    Raises:
      UsageError: naming the first argument that is left.
    """
    if rest:
        raise UsageError(f"unknown argument {rest[0]}; see --help")
