"""Dataflow: which job is submitted, what of this machine must not be in it, and how the launcher waits for it.

docs/dataflow.md gives the reasons for the numbers.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.internal import cloudpickle_pickler
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from mbt.pipeline import gcs, known, runner, secret, storage
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.options import Options

FETCH, BUILD = "fetch", "build"

# One process a machine: --downloads and --sleep are a machine's, and processes in containers of their own would not
# see each other's locks.
_ONE_PROCESS = "no_use_multiple_sdk_containers"
_PROCESS_PER_CPU = "use_multiple_sdk_containers"
# Of a worker: one ffmpeg at its limit of 2 GiB, Python, and yt-dlp's processes. Said of the whole job, not of the steps
# that need it: these would get workers of their own, beside those of the other steps.
_MIN_RAM = "min_ram=4GB"
_MIN_RAM_NAMES = ("min_ram", "minRam")  # Beam knows both
# Else Beam stages a list of what is installed on this machine, with the folders where it lies.
_SAYS_NOTHING_OF_US = "disable_logging_submission_environment"
_SECRET_FLAGS = ("s3_secret_access_key", "s3_session_token", "azure_connection_string")
_LONGEST_REASON = 400

_running: list[str] = []  # the job that this process waits for, and how to look at it and end it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage's workers are.

    Attributes:
      machine_type: of Compute Engine.
      max_workers: that autoscaling may start.
      disk_gb: of each: the image, and what is downloaded or encoded at a time.
      experiment: how many processes a worker has.
    """

    machine_type: str
    max_workers: int
    disk_gb: int
    experiment: str


STAGES = {
    FETCH: Stage(machine_type="e2-standard-2", max_workers=8, disk_gb=60, experiment=_ONE_PROCESS),
    BUILD: Stage(machine_type="n2d-standard-4", max_workers=25, disk_gb=40, experiment=_PROCESS_PER_CPU),
}


def is_chosen(beam_options: PipelineOptions) -> bool:
    """Whether Dataflow is to run the job, by any of the names that Beam takes."""
    name = (beam_options.view_as(StandardOptions).runner or "").rpartition(".")[2].lower()
    return name in ("dataflow", "dataflowrunner")


def refuse(options: Options) -> None:
    """Refuses what cannot work on machines that see nothing of this one, before anything is written.

    Raises:
      RefusedError: naming the flag, and what to say instead.
    """
    if storage.scheme(options.root) != "gs":
        raise RefusedError(f"--output={options.root}: Dataflow's workers cannot write there; give a folder on gs://")
    if options.ffmpeg is not None:
        raise RefusedError(f"--ffmpeg={options.ffmpeg}: workers have the one of their image; leave it out")
    for flag in ("cookies", "proxies", "youtube_api_key"):
        place = getattr(options.fetch, flag)
        if place and not secret.is_elsewhere(place) and storage.is_local(place):
            raise RefusedError(f"--{flag}={place}: Dataflow's workers do not have this file; say {secret.FORMS}")
    _refuse_beam_flags(runner.pipeline_options(options.beam).get_all_options())
    try:
        beam.Pipeline(options=job_options(options, FETCH, storage.join(options.root, "tmp")))
    except ValueError as error:
        raise RefusedError(" ".join(str(error).split())) from error


def _refuse_beam_flags(given: dict[str, Any]) -> None:
    if missing := [f"--{name}=..." for name in ("project", "region") if not given[name]]:
        raise RefusedError(f"Dataflow needs {' and '.join(missing)}")
    for flag in ("no_wait_until_finish", "template_location", "streaming"):
        if given[flag]:
            raise RefusedError(f"--{flag}: each stage waits for its job, which runs now and ends; leave it out")
    for flag in _SECRET_FLAGS:
        if given[flag]:
            raise RefusedError(f"--{flag}: it would stand in the job, where many can read it; leave it out")


def refuse_local_sources(clips: pa.Table) -> None:
    """Refuses clips that lie on this machine.

    Raises:
      RefusedError: naming one.
    """
    local = clips.filter(pc.invert(known.is_remote(clips)))
    if len(local):
        raise RefusedError(
            f"{len(local)} of {len(clips)} clips lie on this machine, such as {local['source'][0].as_py()}, where "
            "Dataflow's workers cannot read them: copy them to gs:// and say --media_root=gs://BUCKET/FOLDER"
        )


def job_options(options: Options, stage: str, folder: str) -> PipelineOptions:
    """What Dataflow is told of a stage's job: Beam's flags as they were given, and ours where they were not.

    Args:
      options: of the command.
      stage: `FETCH` or `BUILD`.
      folder: of the run's temporary files, on gs://.
    """
    filled = runner.pipeline_options(options.beam)
    ours = STAGES[stage]
    cloud, worker = filled.view_as(GoogleCloudOptions), filled.view_as(WorkerOptions)
    debug, standard = filled.view_as(DebugOptions), filled.view_as(StandardOptions)
    cloud.job_name = f"{_name(options, cloud)}-{stage}{_part(options)}"
    _default(cloud, "temp_location", storage.join(folder, "dataflow"))
    setup = filled.view_as(SetupOptions)
    if not (setup.setup_file or setup.extra_packages):
        _default(worker, "sdk_container_image", _image(cloud))
    _default(worker, "machine_type", ours.machine_type)
    _default(worker, "disk_size_gb", ours.disk_gb)
    _default(worker, "autoscaling_algorithm", "THROUGHPUT_BASED")
    lanes = options.fetch.workers if stage == FETCH else None  # more machines than lanes would idle
    _default(worker, "max_num_workers", max(lanes or ours.max_workers, worker.num_workers or 0))
    if lanes:  # a lane is one element: autoscaling, which goes by how many wait, would see no need
        _default(worker, "num_workers", min(lanes, worker.max_num_workers))
    _default(debug, "number_of_worker_harness_threads", 1)  # a clip's ffmpeg, or --downloads, keeps a process busy
    given = {experiment.split("=")[0] for experiment in debug.experiments or ()}
    if not given & {_ONE_PROCESS, _PROCESS_PER_CPU}:
        debug.add_experiment(ours.experiment)
    debug.add_experiment(_SAYS_NOTHING_OF_US)
    if not any(hint.partition("=")[0] in _MIN_RAM_NAMES for hint in standard.resource_hints):
        standard.resource_hints = [*standard.resource_hints, _MIN_RAM]
    return filled


def _default(view: Any, name: str, value: object) -> None:
    if getattr(view, name) is None:
        setattr(view, name, value)


def _image(cloud: GoogleCloudOptions) -> str:
    """Where docs/dataflow.md puts the image of this version."""
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    repository = f"{cloud.region}-docker.pkg.dev/{cloud.project.replace(':', '/')}/mbt-flax"
    return f"{repository}/worker:{metadata.version('mbt-flax')}-{python}"


def _name(options: Options, cloud: GoogleCloudOptions) -> str:
    """Of a dataset's jobs. The service runs one job of a name at a time."""
    words = re.sub(r"[^a-z0-9]+", "-", options.name.lower())[:24].strip("-")
    return cloud.job_name or f"mbt-{words}-{hashlib.sha256(options.root.encode()).hexdigest()[:8]}"


def _part(options: Options) -> str:
    number, of = options.part
    return "" if of == 1 else f"-{number}-of-{of}"


def refuse_beside_another(options: Options) -> None:
    """Refuses to start while a job of this dataset runs, whose launcher was killed: its plan would be deleted.

    Raises:
      RefusedError: naming the job; or the service does not answer.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import dataflow

    job = job_options(options, FETCH, storage.join(options.root, "tmp"))
    cloud = job.view_as(GoogleCloudOptions)
    cloud.staging_location = cloud.temp_location
    asked = dataflow.ListJobsRequest(
        project_id=cloud.project, location=cloud.region, filter=dataflow.ListJobsRequest.Filter.ACTIVE
    )
    prefix = cloud.job_name.removesuffix(_part(options)).removesuffix(FETCH)
    part = r"-\d+-of-\d+" if options.part[1] == 1 else _part(options)
    names = re.compile(rf"{re.escape(prefix)}(?:{FETCH}|{BUILD})(?:{part})?")
    try:
        for found in _client(job).list_jobs(asked):
            if names.fullmatch(found.name):
                raise RefusedError(
                    f"Dataflow is still running a job of this dataset, {found.name}: wait until it has ended, then the "
                    f"same command goes on from there. To end it now: {_to_cancel(cloud, found.id)}"
                )
    except (GoogleAPIError, GoogleAuthError) as error:
        raise RefusedError(f"Dataflow does not answer: {_short(error)}") from error


def _client(job: PipelineOptions):
    """The client that Beam makes, with its endpoint and credentials."""
    from apache_beam.runners.dataflow.internal import apiclient

    return apiclient.DataflowApplicationClient(job)._jobs_client


@contextlib.contextmanager
def pipeline(job: PipelineOptions, stage: str) -> Iterator[beam.Pipeline]:
    """A pipeline for the steps of a stage; at the end of the block it is submitted and waited for.

    Raises:
      IncompleteError: the service does not take it, it does not end well, or it is not known how it ends.
    """
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
    from apache_beam.runners.runner import PipelineState

    logging.getLogger("apache_beam.runners.dataflow").setLevel(logging.CRITICAL + 1)  # we say it, in a line
    # Beam's own functions are pickled by value, each with the file that it came from: without this machine's folders.
    config: Any = cloudpickle_pickler.DEFAULT_CONFIG
    config.filepath_interceptor = cloudpickle.get_relative_path
    made = beam.Pipeline(options=job)
    yield made
    try:
        result: Any = made.run()
    except (*gcs.ERRORS, DataflowJobAlreadyExistsError, OSError, RuntimeError) as error:
        raise IncompleteError(
            f"Dataflow did not take the {stage} job: {_short(error)}. When that is mended, the same command goes on"
        ) from error
    cloud = job.view_as(GoogleCloudOptions)
    _say(cloud, stage, result.job_id())
    try:
        if (state := result.wait_until_finish()) != PipelineState.DONE:  # cancelled before it was first asked about
            raise IncompleteError(
                f"Dataflow's {stage} job {result.job_id()} ended as {state}. What is done is kept, and the same "
                "command goes on"
            )
    except DataflowRuntimeException as error:
        raise IncompleteError(
            f"Dataflow's {stage} job {result.job_id()} ended as {result.state}: {_short(error)}. What is done is "
            "kept, and the same command goes on"
        ) from error
    except (AssertionError, *gcs.ERRORS) as error:  # the assertion is Beam's, whose thread gave up asking
        raise IncompleteError(
            f"Dataflow's {stage} job {result.job_id()} is out of sight ({_short(error)}), and goes on without this "
            "command. Give the same command again when it has ended"
        ) from error
    finally:
        _running.clear()


def _say(cloud: GoogleCloudOptions, stage: str, job_id: str) -> None:
    page = f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job_id}?project={cloud.project}"
    _running[:] = [
        f"mbt-data: Dataflow's {stage} job {job_id} goes on without this command, which can be given again when it has "
        f"ended. To end it now: {_to_cancel(cloud, job_id)}\n"
    ]
    print(f"mbt-data: Dataflow runs the {stage} job {job_id}: {page}", file=sys.stderr, flush=True)


def say_what_goes_on() -> None:
    """For a handler of signals that ends this process at once: its job does not end with it."""
    for text in _running:
        os.write(2, text.encode())


def _to_cancel(cloud: GoogleCloudOptions, job_id: str) -> str:
    return f"gcloud dataflow jobs cancel {job_id} --project={cloud.project} --region={cloud.region}"


def _short(error: BaseException) -> str:
    """The last line of an error, which of a worker's traceback is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:_LONGEST_REASON].rstrip(".")
