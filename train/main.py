"""`mbt-train`: trains and evaluates MBT on snapshots that `mbt-data` made, and asks it about new clips."""

import argparse
import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import NoReturn

from mbt.train.commands import compare, cost, evaluate, import_checkpoint, launch, predict, sweep, train
from mbt.train.errors import INTERRUPTED, LostError, RunError, StoppedError, UsageError

COMMANDS: tuple[ModuleType, ...] = (train, launch, evaluate, compare, predict, sweep, import_checkpoint, cost)


class _Parser(argparse.ArgumentParser):
    """Tells an error in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    args, rest = _parser().parse_known_args(argv)
    settle_tensorflow()
    _open_files()
    command = next(module for module in COMMANDS if args.command == module.NAME)
    try:
        with _ended_by_ctrl_c() if command is train else contextlib.nullcontext():
            command.run(args, rest)
    except (UsageError, RunError, StoppedError, LostError) as error:
        print(f"mbt-train {args.command}: {error}", file=sys.stderr)
        return error.status
    except OSError as error:  # a full disk, a folder that went away
        print(f"mbt-train {args.command}: {error}{_hint(command)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmbt-train {args.command}: interrupted{_hint(command)}", file=sys.stderr)
        return INTERRUPTED
    return 0


def settle_tensorflow() -> None:
    """TensorFlow, once it is loaded, only reads data: no talk of its devices, and the same pixels on every CPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # else it imports Keras, which takes 4 s and is not used


def _open_files() -> None:
    """As many as the system allows: the index of each shard is one, and each connection to an object store."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # where the most is said to be without limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Where this is not the main thread, which alone has signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_at_once(*_: object) -> NoReturn:
    """Ctrl-C in training: an exception can be lost while libraries are imported, and a run need not end in order."""
    os.write(2, f"\nmbt-train train: interrupted{_hint(train)}\n".encode())
    os._exit(INTERRUPTED)


def _hint(command: ModuleType) -> str:
    return "; the same command goes on from the last checkpoint" if command in {train, sweep} else ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mbt-train", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        command = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_flags(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
