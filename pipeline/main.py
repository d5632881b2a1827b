"""The `mbt-data` command. Heavy imports wait until the flags are known to be right."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from mbt.pipeline import disk, scratch, storage
from mbt.pipeline.commands import (
    adopt,
    build,
    diff,
    export,
    fetch,
    flags,
    gc,
    list_snapshots,
    plan,
    purge,
    refresh,
    report,
    show,
    status,
    verify,
)
from mbt.pipeline.errors import EngineError, IncompleteError, RefusedError, UnknownFlagError

DESCRIPTION = "Turns annotated video clips into sharded TFRecords, and says why a clip is missing."
COMMANDS: tuple[ModuleType, ...] = (
    *(plan, build, fetch, adopt, status, refresh),
    *(list_snapshots, show, diff, report, export),
    *(verify, gc, purge),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    parser = flags.Parser(prog="mbt-data", description=DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    parsers = {module.NAME: _add(commands, module) for module in COMMANDS}
    known, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    command = next(module for module in COMMANDS if known.command == module.NAME)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, _end_at_once)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    try:
        with scratch.folder():
            status = command.run(known, tuple(rest))
        sys.stdout.flush()
        return status
    except flags.FlagsError as error:
        parsers[known.command].error(str(error))
    except RefusedError as error:
        meant = parsers[known.command].meant(error.word, error.known) if isinstance(error, UnknownFlagError) else ""
        print(f"mbt-data: {error}{meant}", file=sys.stderr)
        return 2
    except IncompleteError as error:
        print(f"mbt-data: {error}", file=sys.stderr)
        if isinstance(error, EngineError):
            sys.stdout.flush()
            os._exit(1)  # an orderly end would wait for threads, and print what they say of it
        return 1
    except BrokenPipeError:  # the reader of our output has enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except storage.errors() as error:  # first, for some of them are OSErrors too
        return _stopped(storage.said(error))
    except OSError as error:
        return _stopped(disk.said(error))


def _stopped(why: str) -> int:
    print(f"mbt-data: {why}; what is done is kept, and the same command goes on", file=sys.stderr)
    return 1


def _add(commands, module: ModuleType) -> flags.Parser:
    parser = commands.add_parser(
        module.NAME,
        help=module.HELP,
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_flags(parser)
    return parser


def _end_at_once(signal_number: int, _: object) -> NoReturn:
    """Ctrl-C and SIGTERM: threads that wait for a decoder would hold up an orderly end for minutes, to no use.

    Children die with this process, whatever is published is whole, and the next run clears the rest.
    """
    os.write(2, b"\nmbt-data: interrupted; the same command goes on from here\n")
    for module, name in (("dataflow", "say_what_goes_on"), ("writer", "let_go"), ("scratch", "remove")):
        # One that is not there, or only half loaded, has nothing to say or to give back.
        getattr(sys.modules.get(f"mbt.pipeline.{module}"), name, lambda: None)()
    os._exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
