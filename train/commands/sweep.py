"""`mbt-train sweep`: the paper's ablations."""

import argparse
import json

from mbt.train.commands import flags

NAME = "sweep"
HELP = "train the models of one of the paper's ablations, and draw its figure"

# Kept here, too, so that --help and a wrong name need no imports; a test holds both lists together.
SWEEPS = (
    *("fig3_fusion_layer", "bottlenecks", "fig4_span", "fig5_data"),
    *("fig7_sharing", "fig8_async", "modality_mixup", "backbone", "initialisation", "update", "digits", "datasets"),
)

DESCRIPTION = """\
Trains every model of an ablation with several seeds, one `mbt-train train` after the other, and draws the paper's
figure of the scores, mean and standard deviation. Run again, the same command goes on: finished runs are kept.

  fig3_fusion_layer  bottlenecks and cross-attention over L_f, and what they cost
  bottlenecks        over the number of bottleneck tokens
  fig4_span          audio, visual and fused over the window t
  fig5_data          audio, visual and fused over the number of training clips; of audioset_500k
  fig7_sharing       one set of weights in all layers against two, over L_f
  fig8_async         windows that begin together against independent ones, over t
  modality_mixup     mixup against modality mixup
  backbone           ViT-S, ViT-B, ViT-L; with --config.init.vit=DIR/{size}.npz each from its own weights
  initialisation     from no weights and from those of --config.init.vit=DIR/{weights}.npz
  update             bottlenecks updated by all modalities at once, or by one after the other
  digits             written and spoken digits, from nothing; with --config.data.root=DIR/{task}/dataset
  datasets           mid against late fusion; with --config.data.root=DIR/{config} the dataset of each protocol

examples:
  mbt-train sweep modality_mixup --workdir=sweeps --config.data.root=ROOT --config.init.vit=VIT_B_16.npz
  mbt-train sweep modality_mixup --workdir=sweeps --config.data.root=ROOT --print_commands > commands.txt
  mbt-train sweep modality_mixup --workdir=sweeps --config.data.root=ROOT --report
  mbt-train sweep fig4_span --config=demo --workdir=sweeps --config.data.root=ROOT --seeds=1

--print_commands prints the commands of the runs that are left, one a line, for the scheduler of a cluster, and starts
none; --report draws what is finished.

in DIR/NAME:
  LINE-X/seed-N/  the runs
  runs.csv        a row for each finished run, with all its scores
  summary.json    mean and standard deviation
  figure.png

exit status: 0 done, 1 a run failed (the others are run and reported), 2 a wrong command, 143 terminated
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("name", choices=SWEEPS, metavar="NAME", help="one of those above")
    flags.add_workdir(parser)
    parser.add_argument("--config", type=flags.root, metavar="FILE_OR_NAME", help="default: audioset_mini, or as above")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model; default: 3")
    parser.add_argument("--score", help="of the figure; default: map, top1 or top1_action, by the loss and heads")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--print_commands", action="store_true", help="print what is left to run, and run nothing")
    mode.add_argument("--report", action="store_true", help="report what is finished, and run nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    from mbt.train import sweep
    from mbt.train.sweeps import figure
    from mbt.train.sweeps.ablations import ABLATIONS

    if args.print_commands:
        left = sweep.commands(args.name, args.config, overrides, args.workdir, seeds=args.seeds)
        for line in [json.dumps({"commands": left})] if args.json else left:
            print(line)
        return
    summary = sweep.sweep(
        args.name, args.config, overrides, args.workdir, seeds=args.seeds, score=args.score, report=args.report
    )
    if args.json:
        print(json.dumps(summary))
        return
    print(figure.to_table(summary["points"], summary["score"]))
    if ABLATIONS[args.name].finding:
        print(f"\nthe paper: {ABLATIONS[args.name].finding}")
    print(f"figure     {args.workdir / args.name / sweep.FIGURE_FILE}")
