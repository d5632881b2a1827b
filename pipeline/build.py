"""Beam: `Build` makes the shards of a plan.

What flows through Beam are row ranges and small outcome rows; media and records never do. A shard is published by the
step that made it, under a name that holds the digest of its inputs: so a second worker that makes it too publishes
the same bytes, and a run that is killed keeps every shard that was finished. (Publishing behind a Reshuffle would wait
until the last shard was built.)
"""

import concurrent.futures
import dataclasses
import functools
import json
import threading
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam

from mbt.pipeline import canary, disk, ffmpeg, plan, runner, storage
from mbt.pipeline.ffmpeg import WorkerTroubleError
from mbt.pipeline.job import Job, Worker
from mbt.pipeline.shard import Builder, LackingError
from mbt.schemas import index as shard_index
from mbt.schemas.statistics import Statistics

RESULTS_FOLDER = "results"
STATISTICS_FOLDER = "statistics"
_READS = 32  # results at a time
_READS_AHEAD = 256  # of which memory is held

BUILT = "built"
FAILED = "failed"
STATISTICS = "statistics"


class Build(beam.PTransform):
    """Makes the shards of a plan.

    Input: paths of task files. Output, tagged `built`: shard file stems; tagged `failed`: (stem, error) of those that
    this run could not make; tagged `statistics`: (split, `Statistics` of its shards that were made).
    """

    def __init__(self, job: Job):
        super().__init__()
        self._job = job

    def expand(self, task_files):
        """Adds the steps."""
        made = (
            task_files
            | "Read tasks" >> beam.FlatMap(read_tasks)  # (path of the plan, Task)
            | "Spread" >> beam.Reshuffle()
            | "Build" >> beam.ParDo(BuildShards(self._job)).with_outputs(FAILED, STATISTICS, main=BUILT)
        )
        statistics = made[STATISTICS] | "Add up" >> beam.CombinePerKey(AddUp())
        return {BUILT: made[BUILT], FAILED: made[FAILED], STATISTICS: statistics}


class AddUp(beam.CombineFn):
    """Adds up statistics. They are exact, so it does not matter in which order workers finish."""

    def create_accumulator(self) -> Statistics:
        """Those of nothing."""
        return Statistics()

    def add_input(self, accumulator: Statistics, element: Statistics) -> Statistics:
        """With those of a shard."""
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Statistics]) -> Statistics:
        """Of several workers."""
        merged = Statistics()
        for each in accumulators:
            merged.add(each)
        return merged

    def extract_output(self, accumulator: Statistics) -> Statistics:
        """As they are."""
        return accumulator


class BuildShards(Worker):
    """Makes one shard per element, and writes what the snapshot must know of it."""

    def setup(self) -> None:
        """Refuses to work on a machine that would write other bytes."""
        super().setup()
        program = ffmpeg.executable(self._job.ffmpeg_path)
        canary.check(program, self._job.canary)
        self._builder = Builder(
            root=self._job.root,
            work=self._job.work,
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
        rows = [plan.with_digests(row, task.identity, self._job.media_root) for row in rows]
        try:
            with _turns(self._job.threads):
                built = self._builder.build(task, rows)
        except LackingError as error:
            left_out = [dataclasses.asdict(clip) for clip in error.left_out]
            result: dict = {"error": str(error), "wanted": error.wanted, "left_out": left_out}
            yield beam.pvalue.TaggedOutput(FAILED, (task.stem, str(error)))
        except (WorkerTroubleError, OSError) as error:
            if disk.is_full(error):
                raise  # no other shard would fare better, and decoding goes on for hours before it meets the disk
            why = disk.said(error, self._job.root) if isinstance(error, OSError) else str(error)
            result = {"error": why}
            yield beam.pvalue.TaggedOutput(FAILED, (task.stem, why))
        except storage.errors() as error:
            result = {"error": storage.said(error)}
            yield beam.pvalue.TaggedOutput(FAILED, (task.stem, storage.said(error)))
        else:
            result = summary(built.index) | {"clips": built.counts}
            yield task.stem
            yield beam.pvalue.TaggedOutput(STATISTICS, (task.split, Statistics.of(built.index)))
        _write_result(self._job.work, task, result)


@functools.cache
def _turns(threads: int) -> threading.Semaphore:
    """What the bundles share that an engine has one process work on at once: shards in the making, `threads` each."""
    return threading.Semaphore(max(1, runner.cores() // threads))


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
        "ids": index.ids,
        "offsets": index.records["offset"].tolist(),
        "lengths": index.records["length"].tolist(),
        "inputs": [digest.hex() for digest in index.records["inputs"].tolist()],
        "absent": index.absent,
        "treatments": index.treatments,
    }


def read_results(work: str, tasks: Sequence[plan.Task]) -> Iterator[tuple[plan.Task, dict | None]]:
    """Each task with what `BuildShards` wrote about it, or None if it never came to that.

    Several at a time: one after the other, those of 65,536 shards would keep a launcher waiting for a store for hours.
    """
    with concurrent.futures.ThreadPoolExecutor(_READS) as pool:
        for first in range(0, len(tasks), _READS_AHEAD):
            some = tasks[first : first + _READS_AHEAD]
            yield from zip(some, pool.map(lambda task: _read_result(work, task), some), strict=True)


def _read_result(work: str, task: plan.Task) -> dict | None:
    try:
        return json.loads(storage.read(_result_path(work, task)))
    except FileNotFoundError:
        return None


def _write_result(work: str, task: plan.Task, result: dict) -> None:
    storage.write(_result_path(work, task), json.dumps(result).encode())


def write_statistics(element: tuple[str, Statistics], work: str) -> None:
    """Writes the statistics of a split, for the launcher."""
    split, statistics = element
    storage.write(_statistics_path(work, split), json.dumps(statistics.to_json()).encode())


def read_statistics(work: str, split: str) -> Statistics:
    """What `write_statistics` wrote."""
    return Statistics.from_json(json.loads(storage.read(_statistics_path(work, split))))


def _statistics_path(work: str, split: str) -> str:
    return storage.join(work, STATISTICS_FOLDER, f"{split}.json")


def _result_path(work: str, task: plan.Task) -> str:
    return storage.join(work, RESULTS_FOLDER, f"{task.stem}.json")
