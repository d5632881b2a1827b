"""SIGTERM, with which schedulers take a machine away: all processes of a run save the same step and end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def until_sigterm() -> Iterator[Callable[[int], bool]]:
    """Yields a function that says, asked after every step, whether the run is to be saved at it and ended.

    With several processes JAX's preemption service has the signal: wherever it arrives, all of them get True after
    the same step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda _step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
