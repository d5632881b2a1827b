"""What every worker of a run must know, and a DoFn whose process dies with the launcher."""

import dataclasses

import apache_beam as beam

from mbt.pipeline import lifeline
from mbt.pipeline.progress import Reporter
from mbt.pipeline.settings import FetchSettings


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
      fetch: how media are fetched.
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
    fetch: FetchSettings


class Worker(beam.DoFn):
    """A DoFn whose process dies with the launcher."""

    def __init__(self, job: Job):
        self._job = job
        self._reporter = Reporter(job.progress)

    def setup(self) -> None:
        """Ties this process to the launcher's."""
        if self._job.launcher is not None:
            lifeline.hold(self._job.launcher)
