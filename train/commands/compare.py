"""`mbt-train compare`: models side by side, class by class."""

import argparse
import json

from mbt.train.commands import flags

NAME = "compare"
HELP = "compare models class by class"

DESCRIPTION = """\
Compares models that were evaluated on the same clips by the average precision of each class: the mean, and in how many
classes the first one is ahead of each other. --plot draws the classes that the first one knows best, and those in which
it is furthest ahead of each other, as Fig. 9 and 10 of the paper do for a fused model and one of each modality.

A model is a run's folder or one of the CSV files that `mbt-train evaluate` wrote into its folder `evaluations`, with a
name before it if the folder's is not wanted.

examples:
  mbt-train compare runs/both runs/sound runs/sight --plot=classes.png
  mbt-train compare fused=runs/7/evaluations/eval-4views.csv audio=runs/8/evaluations/eval-4views.csv --json
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("models", nargs="+", metavar="[NAME=]RUN_OR_CSV", help="the models; two or more")
    parser.add_argument("--plot", type=flags.path, metavar="PNG", help="draw them")
    parser.add_argument("--classes", type=int, default=30, metavar="N", help="how many to draw in a panel; default: 30")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    flags.refuse_others(overrides)
    from mbt.train import comparison
    from mbt.train.errors import UsageError

    if len(args.models) < 2:
        raise UsageError(f"{args.models[0]}: one model alone; give two or more")
    if args.classes < 1:
        raise UsageError(f"--classes={args.classes}: must be positive")
    found = comparison.read(args.models)
    if args.json:
        print(json.dumps({"classes": len(found.labels), "models": found.rows()}), flush=True)
    else:
        print(_to_text(found.rows(), len(found.labels)), flush=True)
    if args.plot:
        try:
            comparison.draw(found, args.plot, args.classes)
        except OSError as error:
            raise UsageError(f"--plot={args.plot}: cannot be written: {error.strerror}") from error


def _to_text(rows: list[dict], classes: int) -> str:
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':{width}}     mAP   classes of {classes} in which {rows[0]['name']} is ahead"]
    lines += [f"{row['name']:{width}}  {row['map']:6.4f}   {row['first_ahead']:6}" for row in rows]
    return "\n".join(lines)
