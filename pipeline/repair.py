"""A damaged shard to the file that it was: whole records are copied, the others decoded anew from the same media."""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

from mbt.pipeline import dataset as datasets
from mbt.pipeline import decode, ledger, media, plan, shard_file, storage
from mbt.pipeline.ffmpeg import WorkerTroubleError
from mbt.pipeline.record import Record, of_example, parse
from mbt.pipeline.shard import Builder
from mbt.pipeline.shard_check import Listed, Range, of_rows
from mbt.pipeline.shard_file import Entry, IndexParts, OtherBytesError, ShardFile
from mbt.pipeline.sources import stays_in_place
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Dataset, Shard
from mbt.schemas.tfrecord import CorruptRecordError

# What an attempt says of media: as `known.with_outcomes` puts it into a plan's row.
Media = dict[str, str | int]
_COLUMNS = ["clip_id", "run", "attempt", "source", "outcome", "digest", "media", "media_start_us"]
_NOWHERE = "/"


class _CannotError(Exception):
    """The shard cannot be rebuilt; says why."""


def attempts(root: str) -> dict[str, list[Media]]:
    """Clip id to all media that were ever fetched for it, newest first."""
    found: dict[str, list[Media]] = collections.defaultdict(list)
    rows = ledger.read(root, _COLUMNS).to_pylist()
    for row in sorted(rows, key=lambda row: (row["run"], row["attempt"]), reverse=True):
        if row["outcome"] == Outcome.OK:
            path = "" if row["media"] == row["source"] else row["media"]
            known = {"media": path, "digest": row["digest"][:32], "media_start_us": row["media_start_us"]}
            found[row["clip_id"]].append(known)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repair:
    """Rebuilds shards of a dataset.

    Attributes:
      root: of the dataset.
      encoder: settings of this machine's.
      program: the ffmpeg that decodes by them.
      threads: clips decoded at a time.
      attempts: see `attempts`.
    """

    root: str
    encoder: dict
    program: str
    threads: int
    attempts: dict[str, list[Media]]

    def rebuild(self, listed: Listed, rows: Sequence[dict], labels: Sequence[str]) -> str:
        """Rebuilds a shard to the very file that its manifest names; returns why not, or nothing.

        Args:
          listed: the shard.
          rows: of a clip table that belong to it.
          labels: of that table's snapshot.
        """
        stem = shard_file.stem_of(listed.shard.path)
        try:
            dataset = listed.dataset
            media_root, made = self._rows(dataset, [row for row in rows if row["inputs"]], labels)
            old = self._old(listed.shard, made)
            with old or contextlib.nullcontext():
                self._check_media(dataset, made, old)
                builder = Builder(
                    root=self.root,
                    dataset_name=dataset.name,
                    media_root=media_root,
                    program=self.program,
                    threads=self.threads,
                    time_limit_s=decode.TIME_LIMIT_S,
                    rules=dataset.rules,
                    index_version=dataset.index_version,
                )
                builder.rebuild(stem, made, old, listed.shard)
        except (_CannotError, OtherBytesError, WorkerTroubleError, OSError) as error:
            return str(error)
        except storage.errors() as error:
            return storage.said(error)
        return ""

    def _rows(self, dataset: Dataset, rows: list[dict], labels: Sequence[str]) -> tuple[str, list[dict]]:
        """The rows as the build had them, with media and digests, and what their paths are relative to."""
        position = {label: index for index, label in enumerate(labels)}
        rows = [row | {"label_indices": [position[label] for label in row["labels"]]} for row in rows]
        identity, missing = dataset.identity, ""
        for media_root in _media_roots(rows):
            made = []
            for row in rows:
                tried = (plan.with_digests(row | known, identity, media_root) for known in self.attempts[row["id"]])
                found = next((one for one in tried if one["inputs"] == row["inputs"]), None)
                if found is None:
                    missing = missing or row["id"]
                    break
                made.append(found)
            else:
                return media_root, made
        raise _CannotError(f"the ledger has no media from which clip {missing!r} was made")

    def _old(self, shard: Shard, rows: list[dict]) -> ShardFile | None:
        """The shard's whole records; where its index is damaged, or another's, they are found by the clip table."""
        stem = shard_file.stem_of(shard.path)
        if (old := shard_file.open_shard(self.root, stem)) is not None:
            if f"{old.index.shard_crc32c:08x}" == shard.crc32c:
                return old
            old.close()
        try:
            return ShardFile(self.root, stem, salvaged(self.root, stem, rows))
        except FileNotFoundError:
            return None

    def _check_media(self, dataset: Dataset, rows: list[dict], old: ShardFile | None) -> None:
        """Refuses where a record must be decoded anew, and that is not possible as it was.

        Its media may not be there or be others now, or the shard is of an encoder that is not this one's.
        """
        lost = [row for row in rows if old is None or not _is_whole(old, row["id"])]
        if lost and dataset.encoder != self.encoder:
            differs = datasets.changed(dataset, dataclasses.replace(dataset, encoder=self.encoder))[0]
            raise _CannotError(
                f"it was made by another encoder ({differs} differs), by which clip {lost[0]['id']!r} cannot be "
                "decoded any more; mbt-data build makes a snapshot by this one's"
            )
        why = []
        for row in lost:
            why += self._not_there(row)
        if why:
            raise _CannotError("; ".join(why))

    def _not_there(self, row: dict) -> list[str]:
        path = storage.join(self.root, row["media"]) if row["media"] else row["source"]
        try:
            digest, _ = media.digest_of(path)
        except OSError:
            return [f"clip {row['id']!r}: its media {path} are not there any more"]
        return [] if digest.startswith(row["digest"]) else [f"clip {row['id']!r}: {path} has changed since"]


def _is_whole(old: ShardFile, clip_id: str) -> bool:
    if clip_id not in old.places:
        return clip_id in old.absent
    try:
        old.record(old.places[clip_id])
    except (CorruptRecordError, OSError):
        return False
    return True


def _media_roots(rows: list[dict]) -> list[str]:
    """What paths in the records may have been relative to: every folder above a local source, and none of them."""
    folders: dict[str, None] = {}
    for row in rows:
        folder = os.path.dirname(row["source"]) if stays_in_place(row["source"]) else _NOWHERE
        while folder not in folders:
            folders[folder] = None
            folder = os.path.dirname(folder)
    return [*folders, "/nowhere/at/all"]


def salvaged(root: str, stem: str, rows: list[dict]) -> shard_index.Index:
    """An index of those records of a shard that are whole, from their bytes and from the clip table.

    Raises:
      FileNotFoundError: there is no such file.
    """
    parts, ids = IndexParts(), []
    by_id = {row["id"]: row for row in rows}
    with storage.open_file(storage.join(root, shard_file.FOLDER, stem + ".tfrecord")) as file:
        for place in of_rows(rows):
            if (record := _record(file, place)) is not None:
                row = by_id[place.clip_id]
                record = dataclasses.replace(record, treatments=tuple(row.get("treatments") or ()))
                entry = Entry(
                    id=row["id"],
                    labels=row["label_indices"],
                    inputs=row["inputs"],
                    content=row["content"],
                    made=record,
                )
                parts.add(place.offset, entry, record)
                ids.append(place.clip_id)
    absent = [_absent(row) for row in rows if row["outcome"] != Outcome.OK]
    return shard_index.Index(**parts.arrays(), ids=tuple(ids), absent=tuple(absent))


def _absent(row: dict) -> dict[str, Any]:
    said = {name: row[name] for name in ("id", "outcome", "reason", "detail")}
    said["rule"] = row.get("rule", shard_index.FIRST_RULES)
    return said | {name: row[name].hex() for name in ("inputs", "content")}


def _record(file: BinaryIO, place: Range) -> Record | None:
    """The record there, if it is whole."""
    try:
        payload = shard_file.unframed(shard_file.read_framed(file, place.offset, place.length), place.length)
        return of_example(payload, parse(payload))
    except (CorruptRecordError, ValueError):
        return None
