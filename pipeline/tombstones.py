"""Tombstones: clips that were purged, and why. No build brings one of them back."""

import datetime
import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import storage
from mbt.schemas.clip import Outcome

FILE = "tombstones.json"
PURGED = "purged"  # reason of an invalid row


def read(root: str) -> dict[str, dict[str, str]]:
    """Clip id to `time` and `reason` of its purge; empty where nothing was ever purged."""
    try:
        return json.loads(storage.read(storage.join(root, FILE)))["clips"]
    except FileNotFoundError:
        return {}


def add(root: str, clip_ids: Iterable[str], reason: str) -> None:
    """Adds tombstones; those that are there stay as they are."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clips = {clip_id: {"time": now, "reason": reason} for clip_id in clip_ids} | read(root)
    text = json.dumps({"clips": dict(sorted(clips.items()))}, indent=1, ensure_ascii=False) + "\n"
    storage.write(storage.join(root, FILE), text.encode())


def marked(table: pa.Table, root: str) -> pa.Table:
    """The rows of annotations, those of purged clips made invalid."""
    clips = read(root)
    if not clips:
        return table
    mask = pc.is_in(table["id"], pa.array(list(clips), pa.string()))
    for name, value in (("outcome", Outcome.INVALID.value), ("reason", PURGED), ("detail", f"purged: {FILE} says why")):
        column = pc.if_else(mask, value, table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    return table
