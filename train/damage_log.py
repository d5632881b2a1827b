"""`bad_records.jsonl`: the damaged records that a run met, a line each."""

import json
import os
import pathlib

from mbt.schemas import durable, own_json
from mbt.train.errors import UsageError
from mbt.train.reader import Reader

BAD_RECORDS_FILE = "bad_records.jsonl"


class DamageLog:
    """Appends what a reader finds damaged, unless an earlier part of the run listed it."""

    def __init__(self, path: pathlib.Path, reader: Reader):
        self._path = path
        self._reader = reader
        self._known = {_key(entry) for entry in _whole(path)}

    def write(self) -> None:
        """Writes what is new."""
        new = [entry for entry in self._reader.bad if _key(entry) not in self._known]
        if not new:
            return
        with durable.appended(self._path) as file:
            file.writelines(json.dumps(entry) + "\n" for entry in new)
            file.flush()
            os.fsync(file.fileno())
        self._known |= {_key(entry) for entry in new}


def _whole(path: pathlib.Path) -> list[dict]:
    """What the file has, after its last line was dropped where the process died while it wrote it.

    Raises:
      UsageError: another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        os.truncate(path, sum(map(len, lines[:-1])))
        del lines[-1]
    try:
        return [own_json.parse(line) for line in lines]
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}; delete it, and what is damaged is listed anew") from error


def _key(entry: dict) -> tuple[str, str]:
    return entry["shard"], entry["clip"]
