"""Several processes that train together, one a host or one a device; with one alone nothing here is needed."""

import re

import jax

from mbt.train.errors import UsageError


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of a run, before JAX is used otherwise.

    Args:
      coordinator: host:port of process 0, the same for all. None, with both others, asks the cluster: Slurm, Open MPI,
        Kubernetes and TPU pods are known to JAX.
      num_processes: of the run.
      process_id: of this one, from 0.

    Raises:
      UsageError: the three do not fit together, or there is no cluster to ask.
    """
    _check(coordinator, num_processes, process_id)
    # Where there is no GPU or TPU, processes exchange numbers through gloo.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the processes of the run did not find each other: {str(error).splitlines()[0]}") from error


def host() -> int:
    """Number of this process, from 0."""
    return jax.process_index()


def hosts() -> int:
    """Number of processes."""
    return jax.process_count()


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given):
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise UsageError("coordinator, number of processes and process id are given together, or none of them")
    if not re.fullmatch(r"\S+:\d+", coordinator):
        raise UsageError(f"coordinator {coordinator!r}: must be HOST:PORT of process 0")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"process id {process_id}: must be from 0 to {num_processes - 1}")
