"""The `mbt-data` command. Heavy imports wait until the flags are known to be right."""

import sys
from collections.abc import Sequence

from mbt.pipeline.options import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    from mbt.pipeline import run

    return run.main(options)


if __name__ == "__main__":
    sys.exit(main())
