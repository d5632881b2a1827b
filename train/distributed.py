"""Several processes that train together, one a host or one a device; with one alone nothing here is needed."""

import atexit
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax._src.clusters import ClusterEnv  # public only as a part of initialize(), which takes it as it is
from jax.experimental import multihost_utils

from mbt.train import rendezvous
from mbt.train.errors import INTERRUPTED, RunError, StoppedError, UsageError
from mbt.train.relay import relay
from mbt.train.watch import Watch

# Told from an error of this process in that time: whether it only follows from the death of another one.
MOMENT_S = 2.0
# JAX goes by the clock, and after its 100 s would abort a job that was suspended as a whole: the watch knows better.
HEARTBEATS_S = 7 * 24 * 3600


@contextlib.contextmanager
def joined(
    processes: rendezvous.Processes, *, run: str = "", advice: Callable[[], str] = lambda: "start it again"
) -> Iterator[None]:
    """Joins the processes of a run, before JAX is used otherwise, and ends this one when another one dies.

    Args:
      processes: who they are.
      run: what must be the same for all.
      advice: what is to be done when one is lost, asked in that moment.

    Raises:
      UsageError: they do not fit together, or there is no cluster to ask.
      LostError: one of them did not come.
    """
    place, devices = find_place(processes, run)
    meeting = rendezvous.meet(place)
    watch = Watch(place.me, meeting.connections, meeting.names, advice)
    watch.start()
    try:
        _initialize(place, meeting.port, devices)
        yield
    except BaseException as error:
        _fail(watch, place.me, error)
        raise
    watch.leave()


def host() -> int:
    """Number of this process, from 0."""
    return jax.process_index()


def hosts() -> int:
    """Number of processes."""
    return jax.process_count()


def agreed(number: int | None) -> int | None:
    """What process 0 found, for all: of a run that still trains, one may see a newer checkpoint than another."""
    if hosts() == 1:
        return number
    words = multihost_utils.broadcast_one_to_all(np.array([number is not None, number or 0], np.int32))
    return int(words[1]) if words[0] else None


def _initialize(place: rendezvous.Place, port: int, devices: list[int] | None) -> None:
    # Where there is no GPU or TPU, processes exchange numbers through gloo.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port if place.me == 0 else relay(place.host, port)}",
        place.count,
        place.me,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        heartbeat_timeout_seconds=HEARTBEATS_S,
        coordinator_bind_address=f"{'127.0.0.1' if place.loopback else '[::]'}:{port}",
    )


def _fail(watch: Watch, me: int, error: BaseException) -> None:
    """Tells the others, unless they know better."""
    if isinstance(error, StoppedError):
        watch.leave()
        return
    if isinstance(error, RunError):
        time.sleep(MOMENT_S)
    elif not isinstance(error, UsageError | OSError | KeyboardInterrupt):
        # Often what a collective says whose partner has died: the watch finds out which, and ends this process.
        time.sleep(watch.silence_s + MOMENT_S)
    status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "status", 1)
    watch.fail(status, f"process {me} ended: {' '.join(str(error).split()) or type(error).__name__}")
    atexit.register(_end, status)


def _end(status: int) -> None:
    """Before JAX, at exit, waits five minutes for processes that do not come."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def find_place(processes: rendezvous.Processes, run: str) -> tuple[rendezvous.Place, list[int] | None]:
    """Where to meet, and which of this machine's GPUs are this process's; None for all."""
    coordinator, count, me, timeout_s = processes
    devices = None
    if (coordinator, count, me) == (None, None, None):
        coordinator, count, me, devices = _ask_cluster(timeout_s)
    if coordinator is None or count is None or me is None:
        raise UsageError("coordinator, number of processes and process id are given together, or none of them")
    if not (found := re.fullmatch(r"\[?(\S+?)\]?:(\d+)", coordinator)):
        raise UsageError(f"coordinator {coordinator!r}: must be HOST:PORT of process 0")
    if not 0 < int(found[2]) < 1 << 16:
        raise UsageError(f"coordinator {coordinator!r}: {found[2]} is no port")
    if count < 1:
        raise UsageError(f"number of processes {count}: must be positive")
    if not 0 <= me < count:
        raise UsageError(f"process id {me}: must be from 0 to {count - 1}")
    place = rendezvous.Place(host=found[1], port=int(found[2]), count=count, me=me, run=run, timeout_s=timeout_s)
    return place, devices


def _ask_cluster(timeout_s: float) -> tuple[str, int, int, list[int] | None]:
    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(timeout_s))
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        raise UsageError(f"the processes of the run did not find each other: {str(error).splitlines()[0]}") from error
    coordinator, count, me, devices = found
    if coordinator is None or count is None or me is None:
        raise UsageError(
            "the processes of the run did not find each other: no cluster is known here; give --coordinator, "
            "--num_processes and --process_id"
        )
    return coordinator, count, me, None if _alone_on_its_host() else list(devices or []) or None


def _alone_on_its_host() -> bool:
    """JAX gives each process of Slurm and Open MPI one GPU; one that is alone has all."""
    slurm, open_mpi = (os.environ.get(name, "") for name in ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE"))
    return bool(re.fullmatch(r"1(\(x\d+\))?", slurm)) or open_mpi == "1"
