"""What each host of a run executes: here as processes, under Slurm, or on a TPU pod."""

import dataclasses
import shlex

from mbt.train.errors import UsageError

PROGRAM = "mbt-train"
LINE = 100


def host_command(command: list[str], coordinator: str | None = None, count: int = 0, me: int = 0) -> list[str]:
    """The command of one host, all launchers' common part.

    Args:
      command: `train` or `evaluate`, and its flags.
      coordinator: host:port of process 0; None where the cluster knows who is who.
      count: of processes, with a coordinator.
      me: number of this one, with a coordinator.

    Raises:
      UsageError: it is no command of several processes, or says itself who they are.
    """
    if not command or command[0] not in ("train", "evaluate"):
        raise UsageError(f"{shlex.join(command[:1]) or 'no command'}: give `train` or `evaluate` and its flags, last")
    for word in command:
        if word.split("=")[0] in ("--coordinator", "--num_processes", "--process_id", "--distributed"):
            raise UsageError(f"{word}: the launcher gives this flag")
    if coordinator is None:
        return [PROGRAM, command[0], "--distributed", *command[1:]]
    whereabouts = [f"--coordinator={coordinator}", f"--num_processes={count}", f"--process_id={me}"]
    return [PROGRAM, command[0], *whereabouts, *command[1:]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """A job of Slurm: one process a node, which drives all GPUs of it.

    Attributes:
      nodes: how many.
      gpus: of a node; 0 to train on its CPUs.
      cpus: of a node.
      time: limit, as Slurm writes it; "" for the partition's.
      partition: "" for the default one.
    """

    nodes: int
    gpus: int
    cpus: int
    time: str = ""
    partition: str = ""

    def script(self, command: list[str]) -> str:
        """The whole script, for `sbatch`."""
        options = [f"--job-name=mbt-{command[0] if command else ''}", f"--nodes={self.nodes}", "--ntasks-per-node=1"]
        options += [f"--gpus-per-node={self.gpus}"] if self.gpus else []
        options += [f"--cpus-per-task={self.cpus}"]
        options += [f"--time={self.time}"] if self.time else []
        options += [f"--partition={self.partition}"] if self.partition else []
        options += ["--signal=TERM@120", "--requeue", "--open-mode=append"]
        lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]
        # srun takes a job's --cpus-per-task only where it is told. --wait: for a process that is stopped, not for ever.
        words = ["srun", "--ntasks-per-node=1", f"--cpus-per-task={self.cpus}", "--wait=60", *host_command(command)]
        return "\n".join([*lines, "", _wrapped(words), _REQUEUE]) + "\n"


_REQUEUE = """\
status=$?
# 1 and 2 would come again. After all else, such as a lost process or the end of the time, the run goes on.
[ "$status" -gt 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$status\""""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuPod:
    """A slice of Cloud TPU: one process a host.

    Attributes:
      name: of the slice.
      zone: where it is.
      type: of its chips, and how many.
      version: of the runtime, which goes with the type.
      setup: a shell command for each host, such as mounting what they share.
      spot: whether it may be taken away.
    """

    name: str
    zone: str
    type: str
    version: str
    setup: str = ""
    spot: bool = False

    def commands(self, command: list[str]) -> list[str]:
        """To make the slice, to set it up, to run, and to give it back."""
        gcloud = ["gcloud", "compute", "tpus", "tpu-vm"]
        where = [self.name, f"--zone={self.zone}"]
        create = [*gcloud, "create", *where, f"--accelerator-type={self.type}", f"--version={self.version}"]
        create += ["--spot"] if self.spot else []
        everywhere = [*gcloud, "ssh", *where, "--worker=all"]
        setup = " && ".join([*([self.setup] if self.setup else []), 'pip install "mbt-flax[tpu]"'])
        return [
            _wrapped(create),
            _wrapped([*everywhere, f"--command={setup}"]),
            _wrapped([*everywhere, f"--command={_wrapped(host_command(command))}"]),
            _wrapped([*gcloud, "delete", *where]),
        ]


def _wrapped(words: list[str]) -> str:
    """A command for the shell, in lines."""
    lines = [""]
    for word in map(_quoted, words):
        if lines[-1] and len(lines[-1]) + len(word) > LINE:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _quoted(word: str) -> str:
    """As in `--flag='a value'`."""
    flag, equals, value = word.partition("=")
    return f"{flag}={shlex.quote(value)}" if equals and flag.startswith("--") else shlex.quote(word)
