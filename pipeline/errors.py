"""How a command ends when it does not end well."""

from collections.abc import Iterable


class RefusedError(Exception):
    """The command cannot be carried out as given; nothing was written. Exit status 2."""


class UnknownFlagError(RefusedError):
    """A flag that is neither the command's nor the engine's.

    Attributes:
      word: the flag as it was given.
      known: the engine's flags.
    """

    def __init__(self, word: str, known: Iterable[str]):
        super().__init__(f"unknown flag {word}")
        self.word = word
        self.known = tuple(known)


class IncompleteError(Exception):
    """Something is left to do; what is done is kept. Exit status 1."""


class EngineError(IncompleteError):
    """The engine of a job is gone; its worker's threads, if they are this process's, may wait for it for ever."""


class WorkerTroubleError(RuntimeError):
    """This machine failed (time, memory, disk), not the input: the shard wants another try."""
