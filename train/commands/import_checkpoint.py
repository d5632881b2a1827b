"""`mbt-train import`: makes a run of a checkpoint that Scenic released."""

import argparse

from mbt.train.commands import flags, printing

NAME = "import"
HELP = "make a run of Scenic's checkpoint"

DESCRIPTION = """\
Makes a run of a checkpoint that Scenic's MBT released, ready for `mbt-train evaluate`: a workdir with a config and
a checkpoint, and no training. Width, depth, heads, patches, bottlenecks, pooling and classes are read from the file;
inputs (data.seconds, frames, crop) are the config's and must have as many patches as the file has positions.

examples:
  mbt-train import --checkpoint=checkpoint_15900 --config=scenic_audioset_mini --workdir=runs/released \\
      --config.data.root=ROOT

The dataset's labels must stand in the order of the checkpoint's classes.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--checkpoint", required=True, type=flags.path, metavar="FILE", help="Scenic's checkpoint")
    flags.add_config(parser)
    flags.add_workdir(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from mbt.train import released

    printing.print_table(released.import_scenic(args.config, overrides, args.workdir, args.checkpoint))
