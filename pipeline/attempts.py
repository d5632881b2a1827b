"""A clip that gives trouble, tried until it is known whose trouble it is.

What a clip does alone, three times, with memory free, is its own doing. Time is no limit of that kind, for another
machine is faster: such a clip is left out this time, and nothing else waits for it.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from mbt.pipeline import memory
from mbt.pipeline.decode import UnusableError
from mbt.pipeline.errors import WorkerTroubleError
from mbt.pipeline.ffmpeg import DecoderCrashError, OutOfMemoryError
from mbt.pipeline.patience import StalledError, TooSlowError

TRIES = 3
# What a clip does alone, each of so many times, and the reason for which it is then unusable.
_OWN_DOING = {DecoderCrashError: "decoder_crashed", OutOfMemoryError: "too_much_memory"}
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
    errors: list[WorkerTroubleError] = []
    while len(errors) <= TRIES:  # the first try is one beside others
        try:
            # One that idles can do so beside others, too.
            with memory.alone() if errors and not isinstance(errors[-1], StalledError) else contextlib.nullcontext():
                memory.place().begin_anew()
                return decode()
        except WorkerTroubleError as error:
            errors.append(error)
            if _is_certain(error) or [isinstance(one, StalledError) for one in errors] == [True] * TRIES:
                break
    raise _verdict(errors) from errors[-1]


def _is_certain(error: WorkerTroubleError) -> bool:
    """Whether the same machine would fail in the same way again."""
    return isinstance(error, TooSlowError) and not isinstance(error, StalledError)


def _verdict(errors: Sequence[WorkerTroubleError]) -> Exception:
    error = errors[-1]
    detail = f"{error}, {TRIES} times"
    if _is_certain(error):
        return PassingError("too_slow", str(error))
    if any(type(other) is not type(error) for other in errors[-TRIES:]):
        return WorkerTroubleError(str(error))
    if isinstance(error, TooSlowError):
        return PassingError("too_slow", detail)
    reason = next((reason for kind, reason in _OWN_DOING.items() if isinstance(error, kind)), None)
    if reason is None:
        return WorkerTroubleError(detail)
    if memory.is_free():
        return UnusableError(reason, detail)
    return PassingError("out_of_memory", f"{detail}, on a machine that has no more")
