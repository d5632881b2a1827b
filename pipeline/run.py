"""The commands that read annotations: `fetch`, `import`, `build`, `status`, `plan`, from the options to the result."""

from mbt.pipeline import beam_alone  # noqa: F401, I001  # before anything that imports Beam

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from mbt.pipeline import (
    canary,
    copies,
    dataflow,
    ffmpeg,
    forecast,
    job_server,
    known,
    proxies,
    runner,
    secret,
    standing,
    storage,
    writer,
)
from mbt.pipeline import dataset as datasets
from mbt.pipeline.annotations.read import read
from mbt.pipeline.annotations.rows import AnnotationsError
from mbt.pipeline.assemble import Assembly, Result
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.options import Options
from mbt.pipeline.work import Clips, Work, read_clips, read_some_clips
from mbt.schemas.manifest import FormatError


def build(options: Options) -> Result:
    """Builds a dataset, or brings it up to date.

    Raises:
      RefusedError: wrong flags, unreadable annotations, another dataset, another writer, too little disk, or another
        encoder and no media to use it on.
      IncompleteError: this machine failed on some shards, or fetching was stopped; the same command goes on.
    """
    started = time.monotonic()
    with _refusals(), _writing(options) as work:
        built = Assembly(work).run()
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
        status_ = _standing(options, clips)
        work.end()
        return status_


def adopt(options: Options, folder: str, pattern: str) -> tuple[standing.Status, int]:
    """Takes over a lab's own copies; returns how far the dataset is, and how many clips have a copy.

    Raises:
      RefusedError: as in `build`, or the folder or pattern is wrong.
    """
    with _refusals():
        names = copies.parse(pattern)
        if storage.is_local(folder) and not os.path.isdir(folder):
            raise RefusedError(f"{folder}: no such folder")
        beam_options = runner.pipeline_options(options.beam)
        if dataflow.is_chosen(beam_options):
            raise RefusedError("--runner=DataflowRunner: the copies lie on this machine; leave it out")
        FileSystems.set_options(beam_options)
        files = copies.find(folder, names)
        if not files:
            raise RefusedError(f"{folder} holds no file named like {names.text}; see mbt-data import --help")
        with _writing(options) as work:
            clips = work.read(work.salt())
            found = dict(copies.match(known.identities(clips.valid), files, names))
            for turn in range(max(map(len, found.values()), default=0)):  # a second copy is for where the first is bad
                turns = {clip: paths[turn] for clip, paths in found.items() if turn < len(paths)}
                work.fetch(clips.valid, {clip: (path, names.is_clip) for clip, path in turns.items()})
            status_ = _standing(options, clips)
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
        clips = read_clips(options, existing.salt if existing else options.name)
        return _standing(options, clips)


def _standing(options: Options, clips: Clips) -> standing.Status:
    media_root = options.selection.media_root
    return standing.of(clips.valid, clips.invalid, options.root, clips.notes, media_root=media_root)


def plan(options: Options, *, within_s: float, sample: int) -> forecast.Forecast:
    """What a build would take; an empty `root` stands for a dataset that was not begun.

    Raises:
      RefusedError: wrong flags, unreadable annotations, another dataset, or a clip of the sample failed here.
    """
    with _refusals(), tempfile.TemporaryDirectory(prefix="mbt-plan-") as empty:
        options = dataclasses.replace(options, root=options.root or empty)
        existing = datasets.read(options.root)
        datasets.check_name(options.root, existing, options.name)
        clips = read_some_clips(options, existing.salt if existing else options.name)
        try:
            return forecast.of(clips, options, within_s=within_s, sample=sample)
        except ffmpeg.WorkerTroubleError as error:
            raise RefusedError(f"{error}: the sample could not be measured; --sample=0 measures none") from error


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    # Gives back what a big table leaves, which the default pool keeps.
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    except (
        AnnotationsError,
        runner.BeamFlagsError,
        job_server.JobServerError,
        datasets.DatasetError,
        writer.WriterError,
        proxies.ProxiesError,
        copies.PatternError,
        ffmpeg.FfmpegMissingError,
        canary.CanaryError,
        FormatError,
    ) as error:
        raise RefusedError(str(error)) from error


def _share_s3_flags(options: PipelineOptions) -> None:
    """Lets processes that work for this one find S3: Beam's local runner (2.77) tells them none of its flags."""
    given = options.view_as(S3Options)
    for name, value in {
        "AWS_ACCESS_KEY_ID": given.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": given.s3_secret_access_key,
        "AWS_SESSION_TOKEN": given.s3_session_token,
        "AWS_ENDPOINT_URL_S3": given.s3_endpoint_url,
        "AWS_DEFAULT_REGION": given.s3_region_name,
    }.items():
        if value:
            os.environ[name] = value


@contextlib.contextmanager
def _writing(options: Options) -> Iterator[Work]:
    """Everything that can be refused before anything is written, and then the dataset, held."""
    beam_options = runner.pipeline_options(options.beam)
    _share_s3_flags(beam_options)
    FileSystems.set_options(beam_options)  # before the first look at ROOT: clients keep the credentials they begin with
    program = ffmpeg.executable(options.ffmpeg)
    if dataflow.is_chosen(beam_options):
        dataflow.refuse(options)
    _check_secrets(options, anywhere=runner.is_local(beam_options))
    if not runner.is_one_machine(beam_options) and not (options.fetch.workers or options.fetch.proxies):
        raise RefusedError(
            "many machines would multiply the load on the servers: say --max_fetch_workers=N (machines that fetch at a "
            "time), or give --proxies"
        )
    read(options.selection)
    datasets.check_output(options.root)
    datasets.check_name(options.root, datasets.read(options.root), options.name)
    part = writer.Part(*options.part)
    with (
        job_server.running(beam_options, options.beam),
        writer.hold(options.root, part, take_over=options.take_over),
    ):
        if dataflow.is_chosen(beam_options):
            dataflow.refuse_beside_another(options)
        work = Work(options, beam_options, program, part)
        try:
            yield work
        finally:
            work.forget_media()


def _check_secrets(options: Options, *, anywhere: bool) -> None:
    """Finds out before anything starts what workers could not read; what only they can reach, they find out."""
    for flag in ("proxies", "cookies", "youtube_api_key"):
        place = getattr(options.fetch, flag)
        if place and (anywhere or not secret.is_elsewhere(place)):
            try:
                proxies.read(place) if flag == "proxies" else secret.read(place)
            except secret.SecretError as error:
                raise RefusedError(f"--{flag}={error}") from error
