"""`mbt-data build`, from the options to the summary: read, fetch, build, publish."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NoReturn

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from mbt.pipeline import build, canary, ffmpeg, ledger, plan, runner, snapshot, storage
from mbt.pipeline import dataset as datasets
from mbt.pipeline.annotations import AnnotationsError, read_csv, read_header
from mbt.pipeline.options import BuildOptions
from mbt.pipeline.progress import Bar
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import DATASET_FILE, Dataset, Manifest

TMP_FOLDER = "tmp"
_DISK_SLACK_BYTES = 64 << 20
_ROWS_AT_A_TIME = 16_384
_NAMES = pa.list_(pa.string())
_INDICES = pa.list_(pa.int32())


class RefusedError(Exception):
    """The command cannot be carried out as given; nothing was written."""


class IncompleteError(Exception):
    """Some shards could not be made; nothing was published."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a build ended with."""

    manifest: Manifest
    is_new: bool
    num_built: int
    num_reused: int
    seconds: float
    clips_path: str
    unused_columns: tuple[str, ...]


def run(options: BuildOptions) -> Result:
    """Builds a dataset, or brings it up to date.

    Raises:
      RefusedError: wrong flags, an unreadable CSV, another dataset, another writer, too little disk.
      IncompleteError: this machine failed on some shards; the rest is built, and the same command goes on.
    """
    started = time.monotonic()
    try:
        beam_options = runner.pipeline_options(options.beam)
        program = ffmpeg.executable(options.ffmpeg)
        header = read_header(options.annotations)
        datasets.check_output(options.output)
        datasets.check_name(options.output, datasets.read(options.output), options.name)
        with datasets.one_writer(options.output):
            built = _Build(options, beam_options, program).run()
    except (
        AnnotationsError,
        runner.BeamFlagsError,
        datasets.DatasetError,
        ffmpeg.FfmpegMissingError,
        canary.CanaryError,
    ) as error:
        raise RefusedError(str(error)) from error
    seconds = time.monotonic() - started
    return dataclasses.replace(built, seconds=seconds, unused_columns=header.unused)


class _Build:
    """One run of the command: what its stages share."""

    def __init__(self, options: BuildOptions, beam_options: PipelineOptions, program: str):
        self._options = options
        self._beam_options = beam_options
        self._program = program
        self._root = options.output
        self._run = ledger.new_run(self._root)
        self._work = storage.join(self._root, TMP_FOLDER, f"run-{self._run:06d}")

    def run(self) -> Result:
        """All stages in turn."""
        self._clear_leftovers()
        existing = datasets.read(self._root)
        salt = existing.salt if existing else self._options.name
        valid, invalid = self._read(salt)
        dataset = datasets.begin_or_extend(
            existing,
            valid,
            name=self._options.name,
            shards=self._options.num_shards,
            ffmpeg_path=self._options.ffmpeg,
            program=self._program,
        )
        if not dataset.num_shards:
            raise RefusedError(f"{self._options.annotations} holds no valid clip: {_first_reason(invalid)}")
        columns = self._fetched(valid)
        del valid
        sorted_plan = with_label_indices(plan.with_shards(columns, dataset), dataset)
        tasks = list(plan.tasks(sorted_plan, dataset, datasets.identity(dataset), self._options.media_root))
        self._check_disk(sorted_plan, tasks)
        if dataset != existing:
            storage.write(storage.join(self._root, DATASET_FILE), dataset.to_json().encode())
        there = self._shard_names()
        self._build(sorted_plan, tasks)
        return self._publish(dataset, sorted_plan, invalid, tasks, there)

    def _clear_leftovers(self) -> None:
        """Deletes what killed runs left: this process is the only writer."""
        if storage.is_local(self._root):
            storage.delete_folder(storage.join(self._root, TMP_FOLDER))

    def _read(self, salt: str) -> tuple[pa.Table, pa.Table]:
        """The valid and the invalid rows."""
        rows = itertools.islice(read_csv(self._options.annotations, self._options.media_root), self._options.limit)
        table = plan.clip_table(rows, salt)
        is_valid = pc.equal(table["outcome"], Outcome.NOT_TRIED.value)
        return table.filter(is_valid), table.filter(pc.invert(is_valid))

    def _fetched(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        """The columns with outcome, media and digest, after fetching what the ledger does not have."""
        asked = _with_known(table, ledger.state(self._root))
        path = storage.join(self._work, "fetch.parquet")
        plan.write(asked.take(pc.sort_indices(asked["source"])), path)
        with self._job(len(table), "fetch") as job, beam.Pipeline(options=self._beam_options) as pipeline:
            _ = pipeline | beam.Create([path]) | build.Fetch(job)
        return _with_outcomes(table, ledger.state(self._root))

    def _build(self, table: pa.Table, tasks: list[plan.Task]) -> None:
        plan_path, tasks_path = (storage.join(self._work, name) for name in ("build.parquet", "tasks.jsonl"))
        plan.write(table, plan_path)
        build.write_tasks(tasks_path, plan_path, tasks)
        num_clips = pc.sum(pc.equal(table["outcome"], Outcome.OK.value)).as_py() or 0
        with self._job(num_clips, "build") as job, beam.Pipeline(options=self._beam_options) as pipeline:
            _ = pipeline | beam.Create([tasks_path]) | build.Build(job)

    @contextlib.contextmanager
    def _job(self, num_clips: int, title: str) -> Iterator[build.Job]:
        local = runner.is_local(self._beam_options)
        with contextlib.ExitStack() as stack:
            folder = None
            if local:
                folder = self._progress_folder(title, stack)
                stack.enter_context(Bar(folder, num_clips, title))
            yield build.Job(
                root=self._root,
                work=self._work,
                run=self._run,
                dataset_name=self._options.name,
                media_root=self._options.media_root,
                canary=canary.digest(self._program),
                ffmpeg_path=self._options.ffmpeg,
                threads=runner.threads_per_worker(self._beam_options),
                time_limit_s=self._options.time_limit_s,
                launcher=os.getpid() if local else None,
                progress=folder,
            )

    def _progress_folder(self, title: str, stack: contextlib.ExitStack) -> str:
        if not storage.is_local(self._root):
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="mbt-progress-"))
        folder = storage.join(self._work, f"progress-{title}")
        os.makedirs(folder)
        return folder

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

    def _publish(
        self, dataset: Dataset, table: pa.Table, invalid: pa.Table, tasks: list[plan.Task], there: set[str]
    ) -> Result:
        failures = self._failures(tasks)
        if failures:
            raise IncompleteError(
                f"{len(failures)} of {len(tasks)} shards could not be made, so no snapshot is published "
                f"(the first: {failures[0]}). What is built is kept: run the same command again to go on."
            )
        manifest, is_new = snapshot.publish(
            self._root,
            dataset,
            table,
            invalid,
            ((task, build.read_result(self._work, task) or {}) for task in tasks),
            name=self._options.snapshot,
            annotations_sha256=_digest(self._options.annotations),
        )
        storage.delete_folder(storage.join(self._root, TMP_FOLDER))
        num_reused = sum(f"{task.stem}.index" in there for task in tasks)
        return Result(
            manifest=manifest,
            is_new=is_new,
            num_built=len(tasks) - num_reused,
            num_reused=num_reused,
            seconds=0.0,
            clips_path=storage.join(self._root, snapshot.FOLDER, manifest.snapshot, snapshot.CLIPS_FILE),
            unused_columns=(),
        )

    def _failures(self, tasks: list[plan.Task]) -> list[str]:
        failures = []
        for task in tasks:
            result = build.read_result(self._work, task)
            if result is None or "error" in result:
                failures.append(f"{task.stem}: {result['error'] if result else 'its worker died'}")
        return failures


def _with_known(table: pa.Table, state: pa.Table) -> pa.Table:
    """The table with the ledger's newest word on each clip, where that is about the same source."""
    known = _looked_up(table, state)
    return pa.table(
        {
            "id": table["id"],
            "source": table["source"],
            "known_outcome": known["outcome"],
            "known_media": known["media"],
            "known_signature": known["signature"],
        }
    )


def _with_outcomes(table: pa.Table, state: pa.Table) -> dict[str, pa.ChunkedArray]:
    known = _looked_up(table, state)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name in ("outcome", "reason", "detail", "media"):
        columns[name] = known[name]
    columns["outcome"] = pc.if_else(pc.equal(known["outcome"], ""), Outcome.NOT_TRIED.value, known["outcome"])
    # Local media lie where the source says; half of the digest is as good, and both are millions of long strings.
    columns["media"] = pc.if_else(pc.equal(known["media"], table["source"]), "", known["media"])
    columns["digest"] = pc.utf8_slice_codeunits(known["digest"], 0, 32)
    return columns


def _looked_up(table: pa.Table, state: pa.Table) -> pa.Table:
    """The row of `state` for each clip of `table`; empty strings where there is none about the same source."""
    places = pc.index_in(table["id"], value_set=state["clip_id"].combine_chunks())
    found = state.take(places)
    same = pc.fill_null(pc.equal(found["source"], table["source"]), False)
    names = ["outcome", "reason", "detail", "media", "digest", "signature"]
    return pa.table({name: pc.if_else(same, pc.fill_null(found[name], ""), "") for name in names})


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


def _first_reason(invalid: pa.Table) -> str:
    if not len(invalid):
        return "it has no rows"
    row = invalid.slice(0, 1).to_pylist()[0]
    return f"line {row['line']}: {row['detail']}"


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"


def _end_at_once(signal_number: int, _: object) -> NoReturn:
    """Ctrl-C and SIGTERM: threads that wait for a decoder would hold up an orderly end for minutes, to no use.

    Children die with this process, whatever is published is whole, and the next run clears the rest.
    """
    os.write(2, b"\nmbt-data: interrupted; the same command goes on from here\n")
    os._exit(128 + signal_number)


def main(options: BuildOptions) -> int:
    """Runs the build and prints its end; returns the exit status."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what a big table leaves, which the default pool keeps
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, _end_at_once)
    try:
        result = run(options)
    except RefusedError as error:
        print(f"mbt-data: {error}", file=sys.stderr)
        return 2
    except IncompleteError as error:
        print(f"mbt-data: {error}", file=sys.stderr)
        return 1
    print(json.dumps(_as_json(result), indent=1) if options.json else _as_text(result, options))
    return 0


def _as_json(result: Result) -> dict:
    return {
        "snapshot": result.manifest.snapshot,
        "new": result.is_new,
        "shards_built": result.num_built,
        "shards_reused": result.num_reused,
        "seconds": round(result.seconds, 3),
        "clips": result.clips_path,
        "unused_columns": result.unused_columns,
        "splits": {
            name: {"clips": split.num_clips, "records": split.num_records, "lost": split.lost}
            for name, split in result.manifest.splits.items()
        },
        "unassigned": result.manifest.unassigned,
    }


def _as_text(result: Result, options: BuildOptions) -> str:
    manifest = result.manifest
    lines = []
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        lines.append(
            f"{name}: {split.num_clips} clips, {split.num_records} records, "
            f"{len(split.shards)} shards, {size / 1e6:.1f} MB"
        )
        lines += [f"  {count:>8}  {reason}" for reason, count in _by_count(split.lost)]
    if manifest.unassigned:
        lines.append("rows whose split could not be read:")
        lines += [f"  {count:>8}  {reason}" for reason, count in _by_count(manifest.unassigned)]
    if result.unused_columns:
        lines.append(f"columns not used: {', '.join(result.unused_columns)}")
    news = "snapshot" if result.is_new else "nothing changed; still snapshot"
    lines.append(
        f"{result.num_built} shards built, {result.num_reused} already there, {result.seconds:.1f} s; "
        f"{news} {manifest.snapshot}"
    )
    if any(split.lost for split in manifest.splits.values()) or manifest.unassigned:
        lines.append(f"why each clip is missing: {result.clips_path}")
    lines.append(f"train on it: mbt-train train --config=demo --workdir=run --config.data.root={options.output}")
    return "\n".join(lines)


def _by_count(lost: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(lost.items(), key=lambda item: -item[1])
