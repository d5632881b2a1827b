"""What can end a command, and how it is told."""


class UsageError(Exception):
    """The command cannot start: a wrong flag, config, dataset or folder. One line; says what to do."""


class RunError(Exception):
    """The command started and cannot go on: damaged data, a loss that is not finite, a full disk. One line."""


class StoppedError(Exception):
    """A signal asked the run to end; it is saved. One line."""
