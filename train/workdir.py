"""The folder of a run: its config, its result, and the lock that keeps a second writer out."""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator

from ml_collections import ConfigDict

from mbt.schemas import durable, own_json
from mbt.train import lock
from mbt.train.config import differences, from_json, to_json
from mbt.train.errors import UsageError

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
CHECKPOINTS_FOLDER = "checkpoints"


def read_config(workdir: pathlib.Path) -> ConfigDict | None:
    """The resolved config of the run in a folder; None where there is none.

    Raises:
      UsageError: it cannot be read, or is of another version of this program.
    """
    path = workdir / CONFIG_FILE
    try:
        return from_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def began_without(workdir: pathlib.Path, key: str) -> bool:
    """Whether the version that last wrote a run's config had no such key; `read_config` completes it."""
    values = own_json.parse((workdir / CONFIG_FILE).read_bytes())
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return True
        values = values[name]
    return False


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the whole checkpoints of a run that may still be written, ascending."""
    folder = workdir / CHECKPOINTS_FOLDER
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def read_run(workdir: pathlib.Path, flag: str = "--workdir") -> ConfigDict:
    """The resolved config of a run, to ask its model something on whatever devices are here.

    Args:
      workdir: of the run.
      flag: that named it, for the message.

    Raises:
      UsageError: there is no run, or its config cannot be read.
    """
    config = read_config(workdir)
    if config is None:
        raise UsageError(f"{flag}={workdir}: no run there; `mbt-train train --workdir={workdir}` makes one")
    if config.model.attention == "cudnn":
        config.model.attention = "auto"  # the same where there is cuDNN, which may not be where the model is asked
    return config


def check_writable(folder: pathlib.Path) -> None:
    """Refuses a folder, which need not be there, that cannot be made or written to.

    Raises:
      UsageError: naming it.
    """
    try:
        with tempfile.TemporaryFile(dir=next(path for path in (folder, *folder.absolute().parents) if path.exists())):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}; give a --workdir that can") from error


def check_same_run(workdir: pathlib.Path, old: ConfigDict, new: ConfigDict) -> None:
    """Refuses to go on with a run under another config."""
    if changed := differences(old, new):
        raise UsageError(f"{workdir} holds a run with another config ({'; '.join(changed)}); give another --workdir")


def of_process(name: str, process: int) -> str:
    """A file of one process of a run: of the first one under its plain name, of the others with their number."""
    stem, _, suffix = name.partition(".")
    return f"{stem}-{process}.{suffix}" if process else name


def write_json(path: pathlib.Path, value: dict) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the resolved config."""
    write_text(workdir / CONFIG_FILE, to_json(config))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    durable.write(path, text.encode())


def read_result(workdir: pathlib.Path) -> dict | None:
    """The result of a finished run; None where there is none.

    Raises:
      UsageError: it cannot be read.
    """
    path = workdir / RESULT_FILE
    try:
        return own_json.parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}; delete it, and the same command writes it again") from error


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the folder and holds it alone, see `lock.held`.

    Raises:
      UsageError: the folder cannot be written, or another process holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            durable.make_folder(workdir)
            stack.enter_context(lock.held(workdir))
        except OSError as error:
            raise _unwritable(workdir, error) from error
        yield


def _unwritable(workdir: pathlib.Path, error: OSError) -> UsageError:
    return UsageError(f"--workdir={workdir}: cannot be written: {error.strerror}")
