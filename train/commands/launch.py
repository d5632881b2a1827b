"""`mbt-train launch`: one run on several hosts."""

import argparse

from mbt.train.commands import flags

NAME = "launch"
HELP = "train on several hosts: processes here, a Slurm script, commands for a TPU pod"

DESCRIPTION = """\
Says what each host of a run executes. --slurm and --tpu print it, and start nothing; --local=N runs it here, as N
processes on CPUs, to try out before a cluster is asked. The command to launch, `train` or `evaluate` with its flags,
comes last.

examples:
  mbt-train launch --local=2 train --config=demo --workdir=runs/two --config.data.root=ROOT
  mbt-train launch --slurm --nodes=2 --gpus=8 --cpus=64 train --config=audioset_mini_gpu \\
      --workdir=/shared/runs/mini --config.data.root=/shared/audioset --config.train.mesh.data=16 > run.sbatch
  mbt-train launch --tpu=mbt --zone=ZONE --type=v5litepod-32 --version=v2-alpha-tpuv5-lite train ...

Under --local, what process 0 prints is seen, and of others that fail the last lines. SIGTERM and Ctrl-C are passed on
to all processes; when one dies, all end, and the same command goes on from the last checkpoint.

exit status: 0 done (or printed), 2 a wrong command; under --local otherwise that of the first process that did not
end well, and 75 where it was killed
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", type=int, metavar="N", help="run N processes on this machine")
    where.add_argument("--slurm", action="store_true", help="print a script for sbatch")
    where.add_argument("--tpu", metavar="NAME", help="print the gcloud commands for a TPU slice of this name")
    slurm = parser.add_argument_group("with --slurm")
    slurm.add_argument("--nodes", type=int, help="how many")
    slurm.add_argument("--gpus", type=int, default=0, help="of a node; default: none")
    slurm.add_argument("--cpus", type=int, default=16, help="of a node; default: 16")
    slurm.add_argument("--time", default="", help="limit, such as 1-00:00:00; default: the partition's")
    slurm.add_argument("--partition", default="", help="default: the cluster's")
    tpu = parser.add_argument_group("with --tpu")
    tpu.add_argument("--zone", help="such as us-west4-a")
    tpu.add_argument("--type", help="chips and their number, such as v5litepod-32")
    tpu.add_argument("--version", help="of the runtime; goes with the type")
    tpu.add_argument("--setup", default="", metavar="COMMAND", help="for each host first, such as mounting a disk")
    tpu.add_argument("--spot", action="store_true", help="cheaper, and may be taken away")
    parser.add_argument(
        "launched", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="train or evaluate, its flags"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    flags.refuse_others(overrides)
    from mbt.train import launch, local_launch
    from mbt.train.errors import UsageError

    if args.local is not None:
        if args.local < 1:
            raise UsageError(f"--local={args.local}: must be positive")
        raise SystemExit(local_launch.run(args.launched, args.local))
    if args.slurm:
        if not args.nodes or args.nodes < 1:
            raise UsageError("--slurm: --nodes is needed, a positive number")
        job = launch.Slurm(nodes=args.nodes, gpus=args.gpus, cpus=args.cpus, time=args.time, partition=args.partition)
        print(job.script(args.launched), end="")
        return
    if missing := [name for name in ("zone", "type", "version") if not getattr(args, name)]:
        raise UsageError(f"--tpu={args.tpu}: --{missing[0]} is needed")
    pod = launch.TpuPod(
        name=args.tpu, zone=args.zone, type=args.type, version=args.version, setup=args.setup, spot=args.spot
    )
    print("\n".join(pod.commands(args.launched)))
