"""`mbt-train`: trains and evaluates MBT on snapshots that `mbt-data` made, and counts what a model costs."""

import argparse
import json
import os
import pathlib
import sys

TRAIN_HELP = """\
Trains a model on a snapshot and evaluates it. Run again, the same command goes on from the last checkpoint to
the same numbers, and a finished run is only reported.

examples:
  mbt-train train --config=demo --workdir=runs/both --config.data.root=ROOT
  mbt-train train --config=demo --workdir=runs/sound --config.data.root=ROOT --config.modalities=spectrogram
  mbt-train train --config=my.py --workdir=runs/mine --config.optim.learning_rate=0.1

A config is a Python file with get_config(), or the name of one that comes with mbt-flax; any of its keys is
changed with --config.KEY=VALUE. mbt/train/config.py lists all keys, their defaults and what they mean.

in the workdir:
  config.json      the config with every number that the data decided
  metrics.jsonl    loss, learning rate, scores; one JSON object a line
  times.jsonl      speed
  tensorboard/     the same; tensorboard --logdir=DIR
  checkpoints/     everything that the next step reads
  result.json      written when the run is finished

exit status: 0 done, 1 stopped by bad data or a loss that is not finite, 2 a wrong command, 130 interrupted
"""

EVALUATE_HELP = """\
Evaluates the newest checkpoint of a run: mAP (mean over classes that have positives), top-1 and top-5.
The scores are printed and written to DIR/evaluations/SPLIT-Vviews.json.

--clips=FILE takes only the clips that a CSV names (split,id; mbt-data diff --common=FILE writes one), so that models
trained on different snapshots are compared on the same clips. The file's SHA-256 is in the scores, and in their name.

examples:
  mbt-train evaluate --workdir=runs/both
  mbt-train evaluate --workdir=runs/both --split=train --views=1 --json
  mbt-train evaluate --workdir=runs/both --clips=common.csv
"""


IMPORT_HELP = """\
Makes a run of a checkpoint that Scenic's MBT released, ready for `mbt-train evaluate`: a workdir with a config and
a checkpoint, and no training. Width, depth, heads, patches, bottlenecks, pooling and classes are read from the file;
inputs (data.seconds, frames, crop) are the config's and must have as many patches as the file has positions.

examples:
  mbt-train import --checkpoint=checkpoint_15900 --config=audioset_mini --workdir=runs/released \\
      --config.data.root=ROOT --config.data.frames=32 --config.data.mel_mean=1.102 --config.data.mel_stddev=2.762

The dataset's labels must stand in the order of the checkpoint's classes.
"""

COST_HELP = """\
Prints what the model of a config costs for one clip: parameters, multiply-accumulates of the forward pass (half of
the operations in XLA's cost analysis; and of matrix products alone), and the memory that it keeps for the backward
pass with XLA's attention. Needs no dataset; where the config leaves the number of classes to it, 527 are taken.

examples:
  mbt-train cost --config=audioset_mini
  mbt-train cost --config=audioset_mini --config.model.fusion=cross_attention --json
  mbt-train cost --config=audioset_mini --config.data.seconds=4 --sweep=fusion_layer --plot=fig3.png

--sweep=fusion_layer makes the table of the paper's Fig. 3 (right): both strategies for every second L_f, and beside
them Scenic's cross-attention, which runs every layer over the tokens of all modalities.
"""


class _Parser(argparse.ArgumentParser):
    """Tells an error in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    args, rest = _parser().parse_known_args(argv)
    if rest and args.command == "evaluate":
        _parser().error(f"unknown argument {rest[0]}")
    # TensorFlow only reads data here: no talk of its devices, and the same pixels on every CPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from mbt.train.errors import RunError, UsageError

    try:
        COMMANDS[args.command](args, rest)
    except (UsageError, RunError) as error:
        print(f"mbt-train {args.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # a full disk, a folder that went away
        print(f"mbt-train {args.command}: {error}; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmbt-train: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mbt-train", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = _command(commands, "train", "train a model, or go on with a run", TRAIN_HELP)
    train.add_argument("--config", required=True, metavar="FILE_OR_NAME", help="e.g. demo, or my_config.py")
    train.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="folder of the run")
    evaluate = _command(commands, "evaluate", "score a trained model", EVALUATE_HELP)
    evaluate.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="folder of the run")
    evaluate.add_argument("--split", help="of the snapshot; default: the config's data.eval_split")
    evaluate.add_argument("--views", type=int, help="windows per clip; default: the config's data.views")
    evaluate.add_argument("--data_root", metavar="ROOT", help="folder of the dataset, where it has moved")
    evaluate.add_argument("--clips", type=pathlib.Path, metavar="FILE", help="evaluate only on these clips")
    evaluate.add_argument("--allow_missing", action="store_true", help="even if the snapshot lacks some of --clips")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    released = _command(commands, "import", "make a run of Scenic's checkpoint", IMPORT_HELP)
    released.add_argument("--checkpoint", required=True, type=pathlib.Path, metavar="FILE", help="Scenic's checkpoint")
    released.add_argument("--config", required=True, metavar="FILE_OR_NAME", help="e.g. audioset_mini")
    released.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="folder of the run")
    cost = _command(commands, "cost", "count a model's parameters, operations and memory", COST_HELP)
    cost.add_argument("--config", required=True, metavar="FILE_OR_NAME", help="e.g. audioset_mini, or my_config.py")
    cost.add_argument("--sweep", choices=["fusion_layer"], help="a table over L_f")
    cost.add_argument("--plot", type=pathlib.Path, metavar="PNG", help="draws the sweep")
    cost.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _command(commands, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _train(args: argparse.Namespace, overrides: list[str]) -> None:
    from mbt.train import commands

    result = commands.train(args.config, overrides, args.workdir)
    _print_table(result)


def _evaluate(args: argparse.Namespace, _: list[str]) -> None:
    from mbt.train import commands

    result = commands.evaluate(
        args.workdir,
        split=args.split,
        views=args.views,
        root=args.data_root,
        clips=args.clips,
        allow_missing=args.allow_missing,
    )
    if args.json:
        print(json.dumps(result))
    else:
        _print_table(result)


def _import(args: argparse.Namespace, overrides: list[str]) -> None:
    from mbt.train import released

    _print_table(released.import_scenic(args.config, overrides, args.workdir, args.checkpoint))


def _cost(args: argparse.Namespace, overrides: list[str]) -> None:
    from mbt.train import cost
    from mbt.train.errors import UsageError

    if args.plot and not args.sweep:
        raise UsageError(f"--plot={args.plot}: only a sweep is drawn; add --sweep=fusion_layer")
    if args.sweep is None:
        rows, keep = cost.one(args.config, overrides), False
    else:
        rows, keep = cost.sweep(args.config, overrides, args.plot), True
    if args.json:
        print(json.dumps({"rows": rows} if keep else rows[0]))
    else:
        print(cost.to_table(rows))


def _print_table(values: dict) -> None:
    for name, value in values.items():
        print(f"{name:14} {_to_text(value)}")


def _to_text(value) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return ", ".join(value) if isinstance(value, list) else str(value)


COMMANDS = {"train": _train, "evaluate": _evaluate, "import": _import, "cost": _cost}


if __name__ == "__main__":
    sys.exit(main())
