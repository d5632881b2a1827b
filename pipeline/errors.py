"""How a command ends when it does not end well."""


class RefusedError(Exception):
    """The command cannot be carried out as given; nothing was written. Exit status 2."""


class IncompleteError(Exception):
    """Something is left to do; what is done is kept. Exit status 1."""
