"""`bad_records.jsonl`: the damaged records that a run met, a line each."""

import json
import pathlib

from mbt.train.reader import Reader

BAD_RECORDS_FILE = "bad_records.jsonl"


class DamageLog:
    """Appends what a reader finds damaged, unless an earlier part of the run listed it."""

    def __init__(self, path: pathlib.Path, reader: Reader):
        self._path = path
        self._reader = reader
        self._known = {_key(json.loads(line)) for line in path.read_text().splitlines()} if path.exists() else set()

    def write(self) -> None:
        """Writes what is new."""
        new = [entry for entry in self._reader.bad if _key(entry) not in self._known]
        if not new:
            return
        with self._path.open("a") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in new)
        self._known |= {_key(entry) for entry in new}


def _key(entry: dict) -> tuple[str, str]:
    return entry["shard"], entry["clip"]
