"""`mbt-train cost`: counts what a model costs."""

import argparse
import json

from mbt.train.commands import flags

NAME = "cost"
HELP = "count a model's parameters, operations and memory"

DESCRIPTION = """\
Prints what the model of a config costs for one clip: parameters, multiply-accumulates of the forward pass (half of
the operations in XLA's cost analysis; and of matrix products alone), and the memory that it keeps of one more clip for
the backward pass, with XLA's attention and with cuDNN's, which keeps no weights. Needs no dataset; where the config
leaves the number of classes to it, 527 are taken.

examples:
  mbt-train cost --config=audioset_mini
  mbt-train cost --config=audioset_mini --config.model.fusion=cross_attention --json
  mbt-train cost --config=audioset_mini --config.data.seconds=4 --sweep=fusion_layer --plot=fig3.png

--sweep=fusion_layer makes the table of the paper's Fig. 3 (right): both strategies for every second L_f, and beside
them Scenic's cross-attention, which runs every layer over the tokens of all modalities.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_config(parser)
    parser.add_argument("--sweep", choices=["fusion_layer"], help="a table over L_f")
    parser.add_argument("--plot", type=flags.path, metavar="PNG", help="draws the sweep")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
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
