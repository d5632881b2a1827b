"""What can end a command, how it is told, and the exit status that it ends with."""

# 128 and the signal's number, as a shell tells the end of a process by SIGINT and SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


class UsageError(Exception):
    """The command cannot start: a wrong flag, config, dataset or folder. One line; says what to do."""

    status = 2


class RunError(Exception):
    """The command started and cannot go on: damaged data, a loss that is not finite, a full disk. One line."""

    status = 1


class StoppedError(Exception):
    """A signal asked the run to end; it is saved. One line."""

    status = TERMINATED


class LostError(Exception):
    """Another process of the run died, or never came. One line."""

    status = 75  # EX_TEMPFAIL of sysexits.h: worth another try
