"""`mbt-train evaluate`: scores a trained model."""

import argparse
import json

from mbt.train.commands import flags, printing

NAME = "evaluate"
HELP = "score a trained model"

DESCRIPTION = """\
Evaluates a checkpoint of a run on a split: mAP, mean AUC and d'; where a clip has one label
(config.loss.name=ce) top-1 and top-5 too; of a verb and a noun top-1 of each and of the action, the best pair. The
scores are printed and written to DIR/evaluations/SPLIT-Vviews.json, those of each class to the CSV beside it, which
`mbt-train compare` takes.

--clips=FILE takes only the clips that a CSV names (split,id; mbt-data diff --common=FILE writes one), so that models
trained on different snapshots are compared on the same clips. The file's SHA-256 is in the scores, and in their name.

On several machines start the same command on each, as for `mbt-train train`; `mbt-train launch` writes it. When one
process dies, all others end with status 75.

examples:
  mbt-train evaluate --workdir=runs/both
  mbt-train evaluate --workdir=runs/both --split=train --views=1 --json
  mbt-train evaluate --workdir=runs/both --clips=common.csv
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_workdir(parser)
    parser.add_argument("--split", help="of the snapshot; default: the config's data.eval_split")
    parser.add_argument("--views", type=int, help="windows per clip; default: the config's data.views")
    flags.add_data_root(parser, "where it has moved")
    parser.add_argument("--clips", type=flags.path, metavar="FILE", help="evaluate only on these clips")
    parser.add_argument("--allow_missing", action="store_true", help="even if the snapshot lacks some of --clips")
    flags.add_best(parser)
    flags.add_processes(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    flags.refuse_others(overrides)
    from mbt.train import evaluation

    evaluation.evaluate(
        args.workdir,
        split=args.split,
        views=args.views,
        root=args.data_root,
        clips=args.clips,
        allow_missing=args.allow_missing,
        best=args.best,
        processes=flags.processes_of(args),
        tell=_print_json if args.json else printing.print_table,
    )


def _print_json(scores: dict) -> None:
    print(json.dumps(scores), flush=True)
