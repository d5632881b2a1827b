"""`mbt-train train`: trains a model, or goes on with a run."""

import argparse

from mbt.train.commands import flags, printing

NAME = "train"
HELP = "train a model, or go on with a run"

DESCRIPTION = """\
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
  labels.json      names of the classes
  metrics.jsonl    loss, learning rate, scores; one JSON object a line
  times.jsonl      speed
  tensorboard/     the same; tensorboard --logdir=DIR
  checkpoints/     everything that the next step reads
  result.json      written when the run is finished

exit status: 0 done, 1 stopped by bad data or a loss that is not finite, 2 a wrong command, 130 interrupted
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_config(parser)
    flags.add_workdir(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from mbt.train import run as run_lib

    printing.print_table(run_lib.train(args.config, overrides, args.workdir))
