"""A clip that gives trouble, tried until it is known whose trouble it is.

What a clip does alone, three times, with memory free, is its own doing. Time is no limit of that kind, for another
machine is faster: such a clip is left out this time, and nothing else waits for it.
"""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from mbt.pipeline import memory
from mbt.pipeline.decode import UnusableError
from mbt.pipeline.errors import WorkerTroubleError
from mbt.pipeline.ffmpeg import DecoderCrashError, OutOfMemoryError
from mbt.pipeline.patience import StalledError, TooSlowError

TRIES = 3
_Made = TypeVar("_Made")


class PassingError(Exception):
    """A clip gives nothing here and now, by its own doing; another day or machine may fare better.

    Attributes:
      reason: one stable word.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def tried(decode: Callable[[], _Made]) -> _Made:
    """What `decode` gives, which runs ffmpeg on one clip; tried anew, alone, where ffmpeg fails.

    Raises:
      UnusableError: there is nothing to be had of these media.
      PassingError: there is nothing to be had of them now.
      WorkerTroubleError: this machine failed, three times.
    """
    surroundings: contextlib.AbstractContextManager = contextlib.nullcontext()
    for remaining in reversed(range(TRIES)):
        try:
            with surroundings:
                memory.place().begin_anew()
                return decode()
        except WorkerTroubleError as error:
            # One that idles can do so beside others.
            surroundings = contextlib.nullcontext() if isinstance(error, StalledError) else memory.alone()
            if not remaining or _is_certain(error):
                raise _verdict(error) from error
    raise AssertionError("unreachable")


def _is_certain(error: WorkerTroubleError) -> bool:
    """Whether the same machine would fail in the same way again."""
    return isinstance(error, TooSlowError) and not isinstance(error, StalledError)


def _verdict(error: WorkerTroubleError) -> Exception:
    detail = f"{error}, {TRIES} times"
    if isinstance(error, TooSlowError):
        return PassingError("too_slow", str(error) if _is_certain(error) else detail)
    if isinstance(error, DecoderCrashError):
        return UnusableError("decoder_crashed", detail)
    if isinstance(error, OutOfMemoryError):
        if memory.is_free():
            return UnusableError("too_much_memory", detail)
        return PassingError("out_of_memory", f"{detail}, on a machine that has no more")
    return WorkerTroubleError(detail)
