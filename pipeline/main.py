"""The `mbt-data` command. Heavy imports wait until the flags are known to be right."""

import argparse
import logging
import sys
from collections.abc import Sequence

from mbt.pipeline.commands import diff, export, list_snapshots, report, show
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.options import parse

READING = (diff, export, list_snapshots, report, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for command in READING:
        if words[:1] == [command.NAME]:
            parser = argparse.ArgumentParser(
                prog=f"mbt-data {command.NAME}",
                description=command.DESCRIPTION,
                epilog=command.EPILOG,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
            command.add_flags(parser)
            known, beam = parser.parse_known_args(words[1:])
            logging.getLogger("apache_beam").setLevel(logging.ERROR)
            try:
                return command.run(known, tuple(beam))
            except RefusedError as error:
                print(f"mbt-data: {error}", file=sys.stderr)
                return 2
    options = parse(words)
    from mbt.pipeline import run

    return run.main(options)


if __name__ == "__main__":
    sys.exit(main())
