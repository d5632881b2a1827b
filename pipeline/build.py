"""Beam: `Fetch` gets the media of a plan's clips, `Build` makes shards of them.

What flows through Beam are row ranges and small outcome rows; media and records never do. A shard is published by the
step that made it, under a name that holds the digest of its inputs: so a second worker that makes it too publishes
the same bytes, and a run that is killed keeps every shard that was finished. (Publishing behind a Reshuffle would wait
until the last shard was built.)
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator

import apache_beam as beam
import pyarrow.parquet as pq

from mbt.pipeline import canary, fetch, ffmpeg, ledger, lifeline, plan, storage
from mbt.pipeline.ffmpeg import WorkerTroubleError
from mbt.pipeline.progress import Reporter
from mbt.pipeline.shard import Builder
from mbt.schemas import index as shard_index

ROWS_PER_RANGE = 512
FETCH_THREADS = 8
RESULTS_FOLDER = "results"

BUILT = "built"
FAILED = "failed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker of a run must know; it is pickled into the job.

    Attributes:
      root: of the dataset.
      work: folder of this run's temporary files, below `root`.
      run: number of the run.
      dataset_name: as it stands in the records.
      media_root: what paths in the records are relative to.
      canary: expected digest of the canary's record.
      ffmpeg_path: the ffmpeg to run, or None for the embedded one.
      threads: clips decoded at a time by a worker process.
      time_limit_s: of one clip's decoding.
      launcher: process id to die with, on this machine; or None.
      progress: local folder for live progress, or None.
    """

    root: str
    work: str
    run: int
    dataset_name: str
    media_root: str
    canary: str
    ffmpeg_path: str | None
    threads: int
    time_limit_s: float
    launcher: int | None
    progress: str | None


class Fetch(beam.PTransform):
    """Gets the media of all clips of a plan; writes attempts to the ledger.

    Input: paths of plans whose rows are sorted by source. Output: `(outcome, clips)` counts of the attempts made.
    """

    def __init__(self, job: Job):
        super().__init__()
        self._job = job

    def expand(self, plans):
        """Adds the steps."""
        return (
            plans
            | "Cut" >> beam.FlatMap(fetch_ranges)  # (path, first_row, num_rows)
            | "Spread" >> beam.Reshuffle()
            | "Fetch" >> beam.ParDo(FetchClips(self._job))  # (outcome, clips)
        )


class Build(beam.PTransform):
    """Makes the shards of a plan.

    Input: paths of task files. Output, tagged `built`: shard file stems; tagged `failed`: (stem, error) of those that
    this run could not make.
    """

    def __init__(self, job: Job):
        super().__init__()
        self._job = job

    def expand(self, task_files):
        """Adds the steps."""
        return (
            task_files
            | "Read tasks" >> beam.FlatMap(read_tasks)  # (path of the plan, Task)
            | "Spread" >> beam.Reshuffle()
            | "Build" >> beam.ParDo(BuildShards(self._job)).with_outputs(FAILED, main=BUILT)
        )


class _Worker(beam.DoFn):
    """A DoFn whose process dies with the launcher."""

    def __init__(self, job: Job):
        self._job = job
        self._reporter = Reporter(job.progress)

    def setup(self) -> None:
        if self._job.launcher is not None:
            lifeline.hold(self._job.launcher)


class FetchClips(_Worker):
    """Fetches a range of rows, the clips of one source at once."""

    def process(self, span: tuple[str, int, int]) -> Iterator[tuple[str, int]]:
        """Yields how many attempts had which outcome."""
        rows = plan.read_rows(*span)
        writer = ledger.Writer(self._job.root, self._job.run)
        counts: collections.Counter = collections.Counter()
        groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["source"])]
        try:
            with concurrent.futures.ThreadPoolExecutor(FETCH_THREADS) as pool:
                for group, result in zip(groups, pool.map(self._fetch, groups), strict=True):
                    if result is not None:
                        counts[result[0].outcome.value] += len(group)
                        _append(writer, group, *result)
                    for row in group:
                        self._reporter.report(result[0].outcome if result else row["known_outcome"])
        finally:
            writer.flush()
        yield from counts.items()

    def _fetch(self, group: list[dict]) -> tuple[fetch.Fetched, int] | None:
        row = group[0]
        if all(
            fetch.still_holds(
                row["known_outcome"], row["source"], row["known_media"], row["known_signature"], self._job.root
            )
            for row in group
        ):
            return None
        return fetch.fetch_with_retries(row["source"], self._job.root)


class BuildShards(_Worker):
    """Makes one shard per element, and writes what the snapshot must know of it."""

    def setup(self) -> None:
        """Refuses to work on a machine that would write other bytes."""
        super().setup()
        program = ffmpeg.executable(self._job.ffmpeg_path)
        canary.check(program, self._job.canary)
        self._builder = Builder(
            root=self._job.root,
            dataset_name=self._job.dataset_name,
            media_root=self._job.media_root,
            program=program,
            threads=self._job.threads,
            time_limit_s=self._job.time_limit_s,
            on_clip=self._reporter.report,
        )

    def process(self, element: tuple[str, plan.Task]) -> Iterator:
        """Yields the stem of the shard, or why it could not be made."""
        path, task = element
        rows = plan.read_rows(path, task.first_row, task.num_rows) if task.num_rows else []
        try:
            index = self._builder.build(task, rows)
        except (WorkerTroubleError, OSError) as error:
            result: dict = {"error": str(error)}
            yield beam.pvalue.TaggedOutput(FAILED, (task.stem, str(error)))
        else:
            result = summary(index)
            yield task.stem
        _write_result(self._job.work, task, result)


def fetch_ranges(path: str) -> Iterator[tuple[str, int, int]]:
    """Cuts a plan into ranges of rows, never between two clips of one source."""
    with storage.open_file(path) as file:
        sources = pq.read_table(file, columns=["source"])["source"]
    first = 0
    while first < len(sources):
        last = min(first + ROWS_PER_RANGE, len(sources))
        while last < len(sources) and sources[last] == sources[last - 1]:
            last += 1
        yield path, first, last - first
        first = last


def write_tasks(path: str, plan_path: str, tasks: Iterable[plan.Task]) -> None:
    """Writes a task file: one JSON line per shard."""
    lines = (json.dumps([plan_path, dataclasses.asdict(task)]) for task in tasks)
    storage.write(path, "\n".join(lines).encode())


def read_tasks(path: str) -> Iterator[tuple[str, plan.Task]]:
    """Reads a task file."""
    for line in storage.read(path).splitlines():
        plan_path, fields = json.loads(line)
        yield plan_path, plan.Task(**fields)


def summary(index: shard_index.Index) -> dict:
    """What a snapshot says of a shard, as JSON."""
    data = shard_index.dump(index)
    return {
        "num_records": len(index.records),
        "bytes": index.shard_bytes,
        "crc32c": f"{index.shard_crc32c:08x}",
        "index_crc32c": f"{shard_index.file_crc32c(data):08x}",
        "num_mel_rows": int(index.records["num_mel_rows"].sum()),
        "mel_sum": index.mel_sum,
        "mel_sum_of_squares": index.mel_sum_of_squares,
        "ids": index.ids,
        "offsets": index.records["offset"].tolist(),
        "lengths": index.records["length"].tolist(),
        "absent": index.absent,
    }


def read_result(work: str, task: plan.Task) -> dict | None:
    """What `BuildShards` wrote about a task, or None if it never came to that."""
    try:
        return json.loads(storage.read(_result_path(work, task)))
    except FileNotFoundError:
        return None


def _write_result(work: str, task: plan.Task, result: dict) -> None:
    storage.write(_result_path(work, task), json.dumps(result).encode())


def _result_path(work: str, task: plan.Task) -> str:
    return storage.join(work, RESULTS_FOLDER, f"{task.stem}.json")


def _append(writer: ledger.Writer, group: list[dict], fetched: fetch.Fetched, attempts: int) -> None:
    for row in group:
        writer.append(
            clip_id=row["id"],
            attempt=attempts,
            source=row["source"],
            outcome=fetched.outcome.value,
            reason=fetched.reason,
            detail=fetched.detail,
            bytes=fetched.bytes,
            digest=fetched.digest,
            media=fetched.media,
            signature=fetched.signature,
            tools=f"requests {fetch.requests.__version__}" if fetch.is_url(row["source"]) else "",
        )
