"""How a command ends when it does not end well."""


class RefusedError(Exception):
    """The command cannot be carried out as given; nothing was written. Exit status 2."""


class IncompleteError(Exception):
    """Something is left to do; what is done is kept. Exit status 1."""


class EngineError(IncompleteError):
    """The engine of a job is gone; its worker's threads, if they are this process's, may wait for it for ever."""


class WorkerTroubleError(RuntimeError):
    """This machine failed (time, memory, disk), not the input: the shard wants another try."""
