"""The commands that read annotations: `fetch`, `import`, `build`, `status`, from the options to the result."""

import collections
import contextlib
import dataclasses
import datetime
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from mbt.pipeline import (
    breaker,
    canary,
    copies,
    fetching,
    ffmpeg,
    job,
    known,
    ledger,
    media,
    plan,
    proxies,
    runner,
    snapshot,
    standing,
    storage,
    tombstones,
    writer,
)
from mbt.pipeline import (
    build as building,
)
from mbt.pipeline import dataset as datasets
from mbt.pipeline.annotations.read import Annotations, read
from mbt.pipeline.annotations.rows import AnnotationsError
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.options import Options
from mbt.pipeline.progress import Bar
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import DATASET_FILE, Dataset, Manifest

TMP_FOLDER = "tmp"
_DISK_SLACK_BYTES = 64 << 20
_ROWS_AT_A_TIME = 16_384
_NAMES = pa.list_(pa.string())
_INDICES = pa.list_(pa.int32())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a build ended with; `clips` counts those of the built shards by how they came into them."""

    manifest: Manifest
    is_new: bool
    num_built: int
    num_reused: int
    clips: collections.Counter
    seconds: float
    clips_path: str
    notes: tuple[str, ...]


def build(options: Options) -> Result:
    """Builds a dataset, or brings it up to date.

    Raises:
      RefusedError: wrong flags, unreadable annotations, another dataset, another writer, too little disk.
      IncompleteError: this machine failed on some shards, or fetching was stopped; the same command goes on.
    """
    started = time.monotonic()
    with _refusals(), _writing(options) as work:
        built = _Build(work).run()
    return dataclasses.replace(built, seconds=time.monotonic() - started)


def fetch(options: Options) -> standing.Status:
    """Fetches what is left; returns how far that is.

    Raises:
      RefusedError: as in `build`.
      IncompleteError: it was stopped; the same command goes on.
    """
    with _refusals(), _writing(options) as work:
        clips = work.read(work.salt())
        work.fetch(clips.valid)
        status_ = standing.of(clips.valid, clips.invalid, options.root, clips.notes)
        work.end()
        return status_


def adopt(options: Options, folder: str, pattern: str) -> tuple[standing.Status, int]:
    """Takes over a lab's own copies; returns how far the dataset is, and how many clips have a copy.

    Raises:
      RefusedError: as in `build`, or the folder or pattern is wrong.
    """
    with _refusals():
        names = copies.parse(pattern)
        if not os.path.isdir(folder):
            raise RefusedError(f"{folder}: no such folder")
        files = copies.find(os.path.abspath(folder), names)
        if not files:
            raise RefusedError(f"{folder} holds no file named like {names.text}; see mbt-data import --help")
        with _writing(options) as work:
            clips = work.read(work.salt())
            found = dict(copies.match(known.identities(clips.valid), files, names))
            work.fetch(clips.valid, {clip: (path, names.is_clip) for clip, path in found.items()})
            status_ = standing.of(clips.valid, clips.invalid, options.root, clips.notes)
            work.end()
            return status_, len(found)


def status(options: Options) -> standing.Status:
    """How far fetching is.

    Raises:
      RefusedError: unreadable annotations, or no such dataset.
    """
    with _refusals():
        if not storage.folders(options.root):
            raise RefusedError(f"--output={options.root}: nothing was ever fetched there")
        existing = datasets.read(options.root)
        clips = _read(options, existing.salt if existing else options.name)
        return standing.of(clips.valid, clips.invalid, options.root, clips.notes)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    # Gives back what a big table leaves, which the default pool keeps.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    except (
        AnnotationsError,
        runner.BeamFlagsError,
        datasets.DatasetError,
        writer.WriterError,
        proxies.ProxiesError,
        copies.PatternError,
        ffmpeg.FfmpegMissingError,
        canary.CanaryError,
    ) as error:
        raise RefusedError(str(error)) from error


@contextlib.contextmanager
def _writing(options: Options) -> Iterator["_Work"]:
    """Everything that can be refused before anything is written, and then the dataset, held."""
    beam_options = runner.pipeline_options(options.beam)
    FileSystems.set_options(beam_options)  # before the first look at ROOT: clients keep the credentials they begin with
    program = ffmpeg.executable(options.ffmpeg)
    proxies.read(options.fetch.proxies)
    if not runner.is_local(beam_options) and not (options.fetch.workers or options.fetch.proxies):
        raise RefusedError(
            "many machines would multiply the load on the servers: say --max_fetch_workers=N (machines that fetch at a "
            "time), or give --proxies"
        )
    read(options.selection)
    datasets.check_output(options.root)
    datasets.check_name(options.root, datasets.read(options.root), options.name)
    part = writer.Part(*options.part)
    with writer.hold(options.root, part, take_over=options.take_over):
        yield _Work(options, beam_options, program, part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clips:
    """The annotations as tables: the rows that can be clips, and those that cannot."""

    valid: pa.Table
    invalid: pa.Table
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]


def _read(options: Options, salt: str) -> _Clips:
    annotations = read(options.selection)
    table = plan.clip_table(annotations.rows(), salt)
    _check_bad_rows(options, table.filter(pc.equal(table["outcome"], Outcome.INVALID.value)))
    table = tombstones.marked(table, options.root)
    is_valid = pc.equal(table["outcome"], Outcome.NOT_TRIED.value)
    invalid = table.filter(pc.invert(is_valid))
    return _Clips(
        valid=table.filter(is_valid), invalid=invalid, labels=annotations.labels, notes=_notes(annotations, invalid)
    )


def _check_bad_rows(options: Options, invalid: pa.Table) -> None:
    """Refuses more bad rows than are admitted; those that only the whole list shows, such as ids that stand twice."""
    most = options.selection.max_bad_rows
    if most is None and options.selection.dataset != "csv":
        most = 0
    if most is not None and len(invalid) > most:
        raise RefusedError(
            f"{_first_bad(invalid)}. {len(invalid)} rows are bad; mend the file, or admit them: "
            f"--max_bad_rows={len(invalid)}"
        )


def _notes(annotations: Annotations, invalid: pa.Table) -> tuple[str, ...]:
    bad = f"{len(invalid)} bad rows, the first: {_first_bad(invalid)}" if len(invalid) else ""
    return (*annotations.notes, *([bad] if bad else []))


def _first_bad(invalid: pa.Table) -> str:
    row = invalid.slice(0, 1).to_pylist()[0]
    return f"{row['file']}, line {row['line']}: {row['detail']}"


class _Work:
    """One run of a command that writes: what its stages share."""

    def __init__(self, options: Options, beam_options: PipelineOptions, program: str, part: writer.Part):
        self.options = options
        self.beam_options = beam_options
        self.program = program
        self.root = options.root
        self._part = part
        suffix = "" if part == writer.WHOLE else f"-{part.number}-of-{part.of}"
        self._clear_leftovers(suffix)
        self._run = ledger.new_run(self.root)
        self.folder = storage.join(self.root, TMP_FOLDER, f"run-{self._run:06d}{suffix}")

    def _clear_leftovers(self, suffix: str) -> None:
        """Deletes what killed runs left: nobody else writes this part."""
        if self._part == writer.WHOLE:
            storage.delete_folder(storage.join(self.root, TMP_FOLDER))
            return
        for name in storage.folders(storage.join(self.root, TMP_FOLDER)):
            if name.endswith(suffix):
                storage.delete_folder(storage.join(self.root, TMP_FOLDER, name))

    def end(self) -> None:
        """Deletes this run's temporary files."""
        storage.delete_folder(self.folder)
        tmp = storage.join(self.root, TMP_FOLDER)
        if self._part == writer.WHOLE:
            storage.delete_folder(tmp)
        elif storage.is_local(tmp):
            with contextlib.suppress(OSError):
                os.rmdir(tmp)

    def salt(self) -> str:
        """Of the hash that assigns clips to shards."""
        existing = datasets.read(self.root)
        return existing.salt if existing else self.options.name

    def read(self, salt: str) -> _Clips:
        """The annotations."""
        clips = _read(self.options, salt)
        if not len(clips.valid):
            why = _first_bad(clips.invalid) if len(clips.invalid) else "it has no rows"
            raise RefusedError(f"{self.options.selection.files[0]} holds no valid clip: {why}")
        return clips

    def fetch(self, table: pa.Table, own: dict[str, tuple[str, bool]] | None = None) -> None:
        """Fetches what is left of these clips, or adopts a lab's own copies of them.

        Raises:
          IncompleteError: it was stopped.
        """
        rows = known.to_fetch(
            table,
            ledger.state(self.root),
            media.listing(self.root),
            part=self._part,
            copies=own,
            most=self.options.max_attempts,
            recheck=self._recheck(),
        )
        if not len(rows):
            return
        path = storage.join(self.folder, "fetch.parquet")
        plan.write(rows, path)
        count = len(rows)
        del rows
        with self.job(count, "fetch") as shared, beam.Pipeline(options=self.beam_options) as pipeline:
            _ = pipeline | beam.Create([path]) | fetching.Fetch(shared)
        if (why := breaker.read(breaker.path(self.folder))) is not None:
            raise IncompleteError(
                f"stopped early: {why}. No clip counts as lost for that, and nothing was published. "
                "Go on with the same command, in an hour or so where you were throttled; --sleep, --cookies and "
                "--proxies help (see mbt-data fetch --help)"
            )

    def _recheck(self) -> known.Recheck | None:
        if self.options.recheck is None:
            return None
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=self.options.older_than_s)
        return known.Recheck(outcomes=self.options.recheck, before=before)

    @contextlib.contextmanager
    def job(self, num_clips: int, title: str) -> Iterator[job.Job]:
        """What the workers of a stage must know, and a bar that shows how far they are."""
        local = runner.is_local(self.beam_options)
        with contextlib.ExitStack() as stack:
            folder = None
            if local:
                folder = self._progress_folder(title, stack)
                stack.enter_context(Bar(folder, num_clips, title))
            yield job.Job(
                root=self.root,
                work=self.folder,
                run=self._run,
                dataset_name=self.options.name,
                media_root=self.options.selection.media_root,
                canary=canary.digest(self.program),
                ffmpeg_path=self.options.ffmpeg,
                threads=runner.threads_per_worker(self.beam_options),
                time_limit_s=self.options.time_limit_s,
                launcher=os.getpid() if local else None,
                progress=folder,
                fetch=self.options.fetch,
            )

    def _progress_folder(self, title: str, stack: contextlib.ExitStack) -> str:
        if not storage.is_local(self.root):
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="mbt-progress-"))
        folder = storage.join(self.folder, f"progress-{title}")
        os.makedirs(folder)
        return folder


class _Build:
    """One build: from the clips to the snapshot."""

    def __init__(self, work: _Work):
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
        self._work.fetch(clips.valid)
        state = ledger.state(self._root)
        columns = known.with_outcomes(clips.valid, state, drop_removed=self._options.drop_removed)
        clips = dataclasses.replace(clips, valid=clips.valid.schema.empty_table())  # no two copies of millions of rows
        sorted_plan = with_label_indices(plan.with_shards(columns, dataset), dataset)
        media_root, parent = self._options.selection.media_root, snapshot.latest(self._root)
        tasks = list(plan.tasks(sorted_plan, dataset, datasets.identity(dataset), media_root, parent))
        self._check_disk(sorted_plan, tasks)
        if dataset != existing:
            storage.write(storage.join(self._root, DATASET_FILE), dataset.to_json().encode())
        there = self._shard_names()
        self._build(sorted_plan, tasks)
        return self._publish(dataset, sorted_plan, clips, tasks, there)

    def _build(self, table: pa.Table, tasks: list[plan.Task]) -> None:
        plan_path, tasks_path = (storage.join(self._work.folder, name) for name in ("build.parquet", "tasks.jsonl"))
        plan.write(table, plan_path)
        building.write_tasks(tasks_path, plan_path, tasks)
        num_clips = pc.sum(pc.equal(table["outcome"], Outcome.OK.value)).as_py() or 0
        with self._work.job(num_clips, "build") as shared, beam.Pipeline(options=self._work.beam_options) as pipeline:
            _ = pipeline | beam.Create([tasks_path]) | building.Build(shared)

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
        self, dataset: Dataset, table: pa.Table, clips: _Clips, tasks: list[plan.Task], there: set[str]
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
            clips.invalid,
            ((task, building.read_result(self._work.folder, task) or {}) for task in tasks),
            name=self._options.snapshot,
            annotations_sha256=_digest(self._options.selection.files),
        )
        clips_made: collections.Counter = collections.Counter()
        for task in tasks:
            clips_made.update((building.read_result(self._work.folder, task) or {})["clips"])
        self._work.end()
        num_reused = sum(f"{task.stem}.index" in there for task in tasks)
        return Result(
            manifest=manifest,
            is_new=is_new,
            num_built=len(tasks) - num_reused,
            num_reused=num_reused,
            clips=clips_made,
            seconds=0.0,
            clips_path=storage.join(self._root, snapshot.FOLDER, manifest.snapshot, snapshot.CLIPS_FILE),
            notes=clips.notes,
        )

    def _failures(self, tasks: list[plan.Task]) -> list[str]:
        failures = []
        for task in tasks:
            result = building.read_result(self._work.folder, task)
            if result is None or "error" in result:
                failures.append(f"{task.stem}: {result['error'] if result else 'its worker died'}")
        return failures


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


def _digest(paths: tuple[str, ...]) -> str:
    """Of the annotation files; of several, the digest of their digests."""
    digests = [_file_digest(path if os.path.exists(path) else path.partition("=")[2]) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _file_digest(path: str) -> str:
    if os.path.isdir(path):  # of class folders: the names are the annotations
        names = sorted(os.path.join(base, name) for base, _, inner in os.walk(path) for name in inner)
        return hashlib.sha256("\n".join(os.path.relpath(name, path) for name in names).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"
