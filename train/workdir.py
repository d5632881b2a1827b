"""The folder of a run: its config, its result, and the lock that keeps a second writer out."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from mbt.train.config import differences, from_json, to_json
from mbt.train.errors import UsageError

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
LOCK_FILE = "lock"


def read_config(workdir: pathlib.Path) -> ConfigDict | None:
    """The resolved config of the run in a folder; None where there is none."""
    path = workdir / CONFIG_FILE
    try:
        return from_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def check_same_run(workdir: pathlib.Path, old: ConfigDict, new: ConfigDict) -> None:
    """Refuses to go on with a run under another config."""
    if changed := differences(old, new):
        raise UsageError(f"{workdir} holds a run with another config ({'; '.join(changed)}); give another --workdir")


def write_json(path: pathlib.Path, value: dict) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the resolved config."""
    write_text(workdir / CONFIG_FILE, to_json(config))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read_result(workdir: pathlib.Path) -> dict | None:
    """The result of a finished run."""
    path = workdir / RESULT_FILE
    return json.loads(path.read_text()) if path.exists() else None


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the folder and holds it alone; the system frees it when the process ends, however it ends.

    Raises:
      UsageError: the folder cannot be written, or another process holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = os.open(workdir / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UsageError(f"--workdir={workdir}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"--workdir={workdir}: another mbt-train is writing there; wait for it or stop it") from error
    else:
        yield
    finally:
        os.close(file)
