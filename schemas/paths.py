"""Folders and files as people name them."""

import os
import pathlib


class PathError(ValueError):
    """No path can be meant by that. One line."""


def local(text: str) -> pathlib.Path:
    """A path on this machine.

    Raises:
      PathError: there is none.
    """
    if "://" in text:
        raise PathError(f"{text} is on no disk; give one that is, or one that all machines share")
    return pathlib.Path(anywhere(text))


def anywhere(text: str) -> str:
    """A path on this machine or in an object store, `~` opened: shells leave it after `--flag=`.

    Raises:
      PathError: it is empty, as an unset variable makes it, or of a user whom this machine does not know.
    """
    if not text.strip():
        raise PathError("is empty; is a variable of the command unset?")
    opened = text if "://" in text else os.path.expanduser(text)
    if opened.startswith("~"):
        raise PathError(f"{text}: no such user here; ./{text} is a file of that name")
    return opened
