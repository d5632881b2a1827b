"""From the clips to a snapshot: fetch what is left, plan the shards, build those that changed, publish."""

import collections
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from types import MappingProxyType

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import build as building
from mbt.pipeline import dataset as datasets
from mbt.pipeline import known, ledger, loss_guard, media, plan, reencoding, release, snapshot, storage
from mbt.pipeline.annotations.files import split_and_path
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.shard import LeftOut
from mbt.pipeline.work import Clips, Work
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import DATASET_FILE, Dataset, Manifest

_CHUNK_BYTES = 1 << 20
_DISK_SLACK_BYTES = 64 << 20
_ROWS_AT_A_TIME = 1024  # as Python objects they take ten times the memory
# What says nothing of a clip's source.
_PASSING = [Outcome.BLOCKED.value, Outcome.TRANSIENT.value]
_NAMES = pa.list_(pa.string())
_INDICES = pa.list_(pa.int32())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a build ended with; `clips` counts those of the shards that it built by how they came into them."""

    manifest: Manifest
    is_new: bool
    num_built: int
    num_reused: int
    clips: collections.Counter
    seconds: float
    clips_path: str
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made:
    """What building came to: the last plan, with its shards, and what the shards of all plans were made of."""

    table: pa.Table
    tasks: list[plan.Task]
    clips: collections.Counter
    left_out: dict[str, LeftOut]


class Assembly:
    """One build: from the clips to the snapshot."""

    def __init__(self, work: Work):
        self._work = work
        self._options = work.options
        self._root = work.root

    def run(self) -> Result:
        """All stages in turn."""
        existing = datasets.read(self._root)
        clips = self._work.read(self._work.salt())
        dataset = datasets.begin_or_extend(
            existing,
            clips.valid,
            name=self._options.name,
            shards=self._options.num_shards,
            labels=clips.labels,
            ffmpeg_path=self._options.ffmpeg,
            program=self._work.program,
        )
        reencoding.check(self._options, clips.valid, existing, dataset)
        self._work.fetch(clips.valid)
        there = self._shard_names()
        table, tasks = self._planned(clips.valid, dataset)
        self._check_losses(table)
        self._check_disk(table, tasks)
        if dataset != existing:
            storage.write(storage.join(self._root, DATASET_FILE), dataset.to_json().encode())
        made = self._made(clips.valid, dataset, table, tasks)
        result = self._publish(dataset, clips, made, there)
        if not self._options.keep_media:
            self._release(clips.valid.filter(pc.invert(_are_among(clips.valid, made.left_out))))
        self._work.end()
        return result

    def _made(self, valid: pa.Table, dataset: Dataset, table: pa.Table, tasks: list[plan.Task]) -> _Made:
        """Builds the shards of a plan, and plans and builds anew for as long as clips stand in their way.

        There is an end: every time a clip's media are fetched that were not before, or another clip is left out.
        """
        clips: collections.Counter = collections.Counter()
        fetched: set[str] = set()
        left_out: dict[str, LeftOut] = {}
        while True:
            self._build(table, tasks)
            clips.update(self._counts(tasks))
            # Their media were deleted once they were in a shard, or damaged, and a new record is to be made of them.
            wanted = self._wanted(tasks)
            # And these give none today: a shard without them has another name.
            more = self._left_out(tasks) | {clip: _damaged(clip) for clip in wanted & fetched}
            wanted -= fetched
            if wanted:
                more |= self._fetch_again(valid, wanted)
            if not wanted and more.keys() <= left_out.keys():
                return _Made(table=table, tasks=tasks, clips=clips, left_out=left_out)
            fetched |= wanted
            left_out |= more
            table, tasks = self._planned(valid, dataset, left_out)

    def _planned(
        self, valid: pa.Table, dataset: Dataset, left_out: Mapping[str, LeftOut] = MappingProxyType({})
    ) -> tuple[pa.Table, list[plan.Task]]:
        """The clips in the order of the shards, and the shards to make of them."""
        state = ledger.state(self._root)
        columns = known.with_outcomes(valid, state, drop_removed=self._options.drop_removed)
        if left_out:
            columns |= _passing(valid, columns, left_out)
        table = with_label_indices(plan.with_shards(columns, dataset), dataset)
        media_root, parent = self._options.selection.media_root, snapshot.latest(self._root)
        return table, list(plan.tasks(table, dataset, media_root, parent))

    def _check_losses(self, table: pa.Table) -> None:
        """Refuses to publish a split that is small only because servers refused us, or files are not there.

        Raises:
          IncompleteError: too many clips are lost to what may pass, or all of them.
        """
        media_root = self._options.selection.media_root
        loss_guard.check(table, self._root, allowed=self._options.allow_loss, media_root=media_root)

    def _counts(self, tasks: list[plan.Task]) -> collections.Counter:
        """Clips by how they came into shards, of those that were built just now."""
        counts: collections.Counter = collections.Counter()
        for _, result in building.read_results(self._work.folder, tasks):
            counts.update((result or {}).get("clips", {}))
        return counts

    def _wanted(self, tasks: list[plan.Task]) -> set[str]:
        """Clips of which a new record is to be made, and whose media were deleted or damaged."""
        results = building.read_results(self._work.folder, tasks)
        return {clip for _, result in results if result for clip in result.get("wanted", ())}

    def _left_out(self, tasks: list[plan.Task]) -> dict[str, LeftOut]:
        """Clips that gave no record for now, by id. The ledger does not say so: the next run tries them again."""
        results = building.read_results(self._work.folder, tasks)
        clips = [LeftOut(**clip) for _, result in results if result for clip in result.get("left_out", ())]
        return {clip.id: clip for clip in clips}

    def _fetch_again(self, valid: pa.Table, wanted: set[str]) -> dict[str, LeftOut]:
        """Fetches media that were there before; the clips, by id, of which they do not come now."""
        rows = valid.filter(pc.is_in(valid["id"], value_set=pa.array(sorted(wanted), pa.string())))
        self._work.fetch(rows, anew=True)
        found = known.of(rows, ledger.state(self._root))
        passing = pc.is_in(found["outcome"], value_set=pa.array(_PASSING, pa.string()))
        ids, words = (
            rows.filter(passing)["id"].to_pylist(),
            found.filter(passing).select(["reason", "detail"]).to_pylist(),
        )
        return {clip: LeftOut(id=clip, **word) for clip, word in zip(ids, words, strict=True)}

    def _release(self, valid: pa.Table) -> None:
        """Deletes fetched media that are in shards now; the ledger says so first, so that it is true when killed."""
        store = media.listing(self._root)
        found = known.of(valid, ledger.state(self._root))
        in_shards = known.is_there(found, drop_removed=self._options.drop_removed)
        in_shards = pc.and_(in_shards, known.is_remote(valid))
        valid, found = valid.filter(in_shards), found.filter(in_shards)
        held = pc.not_equal(found["signature"], ledger.RELEASED)
        rows, words = valid.filter(held).to_pylist(), found.filter(held).to_pylist()
        release.mark(self._root, self._work.run, (row | word for row, word in zip(rows, words, strict=True)))
        keys = (media.key(row["source"], row["start_us"], row["end_us"]) for row in valid.to_pylist())
        storage.delete(*(storage.join(self._root, store[key]) for key in keys if key in store))

    def _build(self, table: pa.Table, tasks: list[plan.Task]) -> None:
        plan_path, tasks_path = (storage.join(self._work.folder, name) for name in ("build.parquet", "tasks.jsonl"))
        plan.write(table, plan_path)
        building.write_tasks(tasks_path, plan_path, tasks)
        num_clips = pc.sum(pc.equal(table["outcome"], Outcome.OK.value)).as_py() or 0
        with self._work.job(num_clips, "build") as shared, self._work.pipeline("build") as pipeline:
            built = pipeline | beam.Create([tasks_path]) | building.Build(shared)
            _ = built[building.STATISTICS] | beam.Map(building.write_statistics, self._work.folder)

    def _shard_names(self) -> set[str]:
        return set(storage.sizes(storage.join(self._root, snapshot.SHARDS)))

    def _check_disk(self, table: pa.Table, tasks: list[plan.Task]) -> None:
        """Refuses to begin what the disk cannot hold."""
        if not storage.is_local(self._root):
            return
        there = self._shard_names()
        length_us = 0
        for task in tasks:
            if task.stem + ".index" not in there:
                rows = table.slice(task.first_row, task.num_rows)
                length_us += pc.sum(pc.subtract(rows["end_us"], rows["start_us"])).as_py() or 0
        needed, free = plan.estimated_bytes(length_us), shutil.disk_usage(self._root).free
        if needed + _DISK_SLACK_BYTES > free:
            raise RefusedError(
                f"{self._root} has {_gib(free)} GiB free, but the shards to build take about {_gib(needed)} GiB: "
                "free some, use another --output, or build a part with --limit"
            )

    def _publish(self, dataset: Dataset, clips: Clips, made: _Made, there: set[str]) -> Result:
        table, tasks = made.table, made.tasks
        failures = self._failures(tasks)
        if failures:
            raise IncompleteError(
                f"{len(failures)} of {len(tasks)} shards could not be made, so no snapshot is published "
                f"(the first: {failures[0]}). What is built is kept: run the same command again to go on."
            )
        self._check_losses(table)  # again, for media may have been fetched anew meanwhile
        self._check_records(table, tasks)
        manifest, is_new = snapshot.publish(
            self._root,
            dataset,
            table,
            clips.invalid,
            ((task, result or {}) for task, result in building.read_results(self._work.folder, tasks)),
            statistics={split: building.read_statistics(self._work.folder, split) for split in dataset.num_shards},
            name=self._options.snapshot,
            annotations_sha256=_digest(self._options.selection.files),
        )
        num_reused = sum(f"{task.stem}.index" in there for task in tasks)
        return Result(
            manifest=manifest,
            is_new=is_new,
            num_built=len(tasks) - num_reused,
            num_reused=num_reused,
            clips=made.clips,
            seconds=0.0,
            clips_path=storage.join(self._root, snapshot.FOLDER, manifest.snapshot, snapshot.CLIPS_FILE),
            notes=(*clips.notes, *self._unanswered(clips.valid)),
        )

    def _unanswered(self, valid: pa.Table) -> list[str]:
        """What is said of clips that were there and were asked for again in vain."""
        found = known.of(valid, ledger.state(self._root))
        now = pc.fill_null(pc.equal(found["run"], self._work.run), False)
        asked = pc.and_(now, known.is_there(found))
        silent = pc.and_(now, known.is_unanswered(found))
        if not pc.any(silent).as_py():
            return []
        clip, word = valid.filter(silent)["id"][0].as_py(), found.filter(silent).slice(0, 1).to_pylist()[0]
        share = f"{pc.sum(silent).as_py()} of {pc.sum(asked).as_py()}"
        return [
            f"{share} clips that were asked for again gave no answer, such as {clip!r} ({word['outcome']}, "
            f"{word['reason']}): they stay as they were, and nothing new is known of them"
        ]

    def _check_records(self, table: pa.Table, tasks: list[plan.Task]) -> None:
        """Refuses to publish nothing: no clip can be used.

        Raises:
          IncompleteError: there is no record.
        """
        absent: dict[str, dict] = {}
        for _, result in building.read_results(self._work.folder, tasks):
            if result and result["num_records"]:
                return
            absent |= {clip["id"]: clip for clip in (result or {}).get("absent", ())}
        loss_guard.check_records(_with_absent(table, absent), 0, self._options.selection.media_root)

    def _failures(self, tasks: list[plan.Task]) -> list[str]:
        failures = []
        for task, result in building.read_results(self._work.folder, tasks):
            if result is None or "error" in result:
                failures.append(f"{task.stem}: {result['error'] if result else 'its worker died'}")
        return failures


def _damaged(clip: str) -> LeftOut:
    detail = "its media were damaged in the store, fetched again, and damaged again"
    return LeftOut(id=clip, reason=loss_guard.DAMAGED, detail=detail)


def _are_among(valid: pa.Table, left_out: Mapping[str, LeftOut]) -> pa.ChunkedArray:
    return pc.is_in(valid["id"], value_set=pa.array(list(left_out), pa.string()))


def _passing(
    valid: pa.Table, columns: Mapping[str, pa.ChunkedArray], left_out: Mapping[str, LeftOut]
) -> dict[str, pa.ChunkedArray]:
    """The outcomes, of which those of the clips that are left out say so."""
    places = pc.index_in(valid["id"], value_set=pa.array(list(left_out), pa.string()))
    changed = {"outcome": pc.if_else(pc.is_valid(places), Outcome.TRANSIENT.value, columns["outcome"])}
    for name in ("reason", "detail"):
        words = pa.array([getattr(clip, name) for clip in left_out.values()], pa.string())
        changed[name] = pc.coalesce(words.take(places), columns[name])
    return changed


def with_label_indices(table: pa.Table, dataset: Dataset) -> pa.Table:
    """The table with labels as indices too, ascending, and the names in the same order."""
    position = {label: index for index, label in enumerate(dataset.labels)}
    names, indices = [], []
    for batch in table.select(["labels"]).to_batches(_ROWS_AT_A_TIME):
        labels = [sorted(row, key=position.__getitem__) for row in batch["labels"].to_pylist()]
        names.append(pa.array(labels, _NAMES))
        indices.append(pa.array([[position[name] for name in row] for row in labels], _INDICES))
    table = table.set_column(table.column_names.index("labels"), "labels", pa.chunked_array(names, _NAMES))
    return table.append_column("label_indices", pa.chunked_array(indices, _INDICES))


def _with_absent(table: pa.Table, absent: dict[str, dict]) -> pa.Table:
    """The table with what building found of the clips that cannot be used."""
    rows = table.to_pylist()
    for name in ("outcome", "reason", "detail"):
        values = pa.array([absent.get(row["id"], row)[name] for row in rows], pa.string())
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def _digest(paths: tuple[str, ...]) -> str:
    """Of the annotation files; of several, the digest of their digests."""
    digests = [_file_digest(split_and_path(path)[1]) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _file_digest(path: str) -> str:
    if os.path.isdir(path):  # of class folders: the names are the annotations
        names = sorted(os.path.join(base, name) for base, _, inner in os.walk(path) for name in inner)
        return hashlib.sha256("\n".join(os.path.relpath(name, path) for name in names).encode()).hexdigest()
    digest = hashlib.sha256()
    with storage.open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"
