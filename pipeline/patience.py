"""How long a child process may work: by its CPU time, so that a busy machine makes nothing slow."""

import time

from mbt.pipeline.errors import WorkerTroubleError

_IDLE_SHARE = 0.01  # of a core; below it a process waits for something that does not come


class TooSlowError(WorkerTroubleError):
    """A process ran into its time limit."""


class StalledError(TooSlowError):
    """A process did next to nothing for as long as it may work."""


class Patience:
    """Watches a process. It is stopped after its limit of CPU time, or where it idles for as long."""

    def __init__(self, process: int, limit_s: float):
        self._process = process
        self._limit_s = limit_s
        self.begin_anew()

    def begin_anew(self) -> None:
        """Says that the process was kept waiting until now."""
        self._deadline = time.monotonic() + self._limit_s
        self._used_before_s = self._cpu_s()

    def left_s(self) -> float:
        """Until the next `check`."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises where the process is to be stopped.

        Raises:
          TooSlowError: it is.
        """
        if self.left_s():
            return
        used_s = self._cpu_s()
        if used_s >= self._limit_s:
            raise TooSlowError(f"ffmpeg ran into the time limit, {used_s:.0f} s of CPU time")
        if used_s - self._used_before_s < _IDLE_SHARE * self._limit_s:
            raise StalledError(f"ffmpeg ran into the time limit, idle for {self._limit_s:.0f} s")
        self.begin_anew()

    def _cpu_s(self) -> float:
        try:
            return time.clock_gettime(~self._process << 3 | 2)  # Linux's name for the CPU clock of another process
        except OSError:  # it has ended, or this is another system
            return 0.0
