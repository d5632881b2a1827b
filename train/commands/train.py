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

ROOT is a folder or gs://BUCKET/FOLDER, DIR a folder. A config is a Python file with get_config(), or the name of one
that comes with mbt-flax; any of its keys is changed with --config.KEY=VALUE. mbt/train/config.py lists all keys, their
defaults and what they mean.

in the workdir:
  config.json        the config with every number that the data decided, and the dataset's version
  labels.json        names of the classes
  metrics.jsonl      loss, learning rate, scores; one JSON object a line
  times.jsonl        speed, and the share of the time that waited for data
  tensorboard/       both, and pictures of batches where train.images_every asks for them; tensorboard --logdir=DIR
  checkpoints/       everything that the next step reads: the last two, and the best by train.best
  bad_records.jsonl  records that were damaged and replaced, by shard and clip
  not_finite.json    the step and the clips of a loss that was not finite
  profile/           a trace of --profile_steps
  result.json        written when the run is finished
  lock               held while the run goes on

SIGTERM saves the step that is under way, on all machines the same, and ends with status 143; killed otherwise, a run
goes on from its last checkpoint. Several machines: start the same command on each, with the first one's address, or
with --distributed under Slurm, Open MPI, Kubernetes, or on a TPU pod; `mbt-train launch` writes these commands. The
workdir must be one that all of them see. When one process dies, all others end within a minute.

exit status:
  0    done
  1    stopped by damaged data, a loss that is not finite, or a full disk
  2    a wrong command, config, dataset, checkpoint or workdir, found before anything is compiled
  75   another process of the run died or never came; the same command goes on from the last checkpoint
  130  interrupted from the keyboard
  143  stopped by SIGTERM, and saved; the same command goes on from there
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_config(parser)
    flags.add_workdir(parser)
    parser.add_argument("--profile_steps", metavar="FIRST:LAST", help="trace these steps, such as 10:15")
    flags.add_processes(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from mbt.train import profile
    from mbt.train import run as run_lib

    run_lib.train(
        args.config,
        overrides,
        args.workdir,
        profile=profile.parse(args.profile_steps) if args.profile_steps else None,
        processes=flags.processes_of(args),
        tell=printing.print_table,
    )
