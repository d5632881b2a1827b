"""The server that runs a portable job: Prism, or Beam's job server for Flink.

What is started here dies with this process. Beam starts these servers too, but leaves them behind when it is killed.
"""

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import IO

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
)
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners import common
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.job_server import ExternalJobServer
from apache_beam.runners.portability.prism_runner import PrismJobServer
from apache_beam.runners.worker import data_plane

from mbt.pipeline import disk, reaper, runner
from mbt.pipeline.errors import EngineError, IncompleteError, UnknownFlagError

_POLL_S = 0.1
_ANSWER_S = 10.0
_OF_STORE = re.compile(r"\b(?:botocore|boto3|google\.(?:api_core|auth)|requests)\.[\w.]+: .*")


class JobServerError(RuntimeError):
    """The engine cannot be reached or started; the message says what to do."""


@contextlib.contextmanager
def running(options: PipelineOptions, flags: tuple[str, ...]) -> Iterator[None]:
    """Sees to it that the server of a portable runner runs, and that `options` name it.

    Args:
      options: Beam's.
      flags: what they were made of; those that Beam for Python does not know are the server's.

    Raises:
      JobServerError: it does not run, or does not know a flag.
    """
    with contextlib.ExitStack() as stack:
        if runner.is_portable(options):
            portable = options.view_as(PortableOptions)
            _check_worker_pool(options)
            if portable.job_endpoint is None and not _goes_to_cluster(options):
                portable.job_endpoint = stack.enter_context(_started(options))
            if portable.job_endpoint is not None:
                _check_answers("--job_endpoint", portable.job_endpoint)
                _check_flags(portable.job_endpoint, runner.unknown_flags(flags))
        yield


@contextlib.contextmanager
def pipeline(options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """A pipeline that runs at the end of the block.

    Raises:
      EngineError: a portable engine gave up.
      IncompleteError: a local worker's store or disk did.
    """
    if not runner.is_portable(options):
        logging.getLogger(common.__name__).setLevel(logging.CRITICAL)  # the traceback, which is raised as well
        try:
            with beam.Pipeline(options=options) as local:
                yield local
        except RuntimeError as error:  # Beam's, with the worker's traceback as text: what is no store's is a defect
            if (found := _OF_STORE.search(_said(error))) is not None:
                raise IncompleteError(f"{found[0]}; what is done is kept, and the same command goes on") from error
            if (system := disk.in_text(str(error))) is not None:
                raise IncompleteError(f"{disk.said(system)}; then the same command goes on") from error
            raise
        return
    try:
        with _unheard(), beam.Pipeline(options=options) as portable:
            yield portable
    except Exception as error:  # a RuntimeError, or whatever the connection to the server ends with
        raise EngineError(
            f"{runner.name(options)} ended the job: {_said(error)}; what is done is kept, and the same command goes on"
        ) from error


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keeps back what engines say meanwhile, which may be pages of Java.

    Beam passes it on to the root logger, and its threads print how their connections end, as long as the process lives.
    """
    root = logging.getLogger()

    def is_heard(record: logging.LogRecord) -> bool:
        return False

    root.addFilter(is_heard)
    threading.excepthook = _print_others
    logging.getLogger(data_plane.__name__).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.removeFilter(is_heard)


def _print_others(args: threading.ExceptHookArgs) -> None:
    if not _is_of_connection(args.exc_value):
        threading.__excepthook__(args)


def _is_of_connection(error: BaseException | None) -> bool:
    return type(error).__module__.partition(".")[0] == "grpc"


def _said(error: Exception) -> str:
    """The line of it that says what went wrong: of a worker's traceback the last one, else the first."""
    text = error.details() if _is_of_connection(error) and hasattr(error, "details") else str(error)
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if any("Traceback (most recent" in each for each in lines) else lines[0]
    return f"the connection to it ended ({line})" if _is_of_connection(error) else line


@contextlib.contextmanager
def _started(options: PipelineOptions) -> Iterator[str]:
    """A server of our own; yields its endpoint."""
    with tempfile.TemporaryDirectory(prefix="mbt-job-server-") as folder:
        command, endpoint = _command(options, folder)
        with open(os.path.join(folder, "log"), "w+b") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=reaper.group(),
            )
            try:
                if not _comes_up(process, endpoint, options.view_as(PortableOptions).job_server_timeout):
                    raise JobServerError(f"{command[0]} {_how_it_ended(process, log)}")
                yield endpoint
            finally:
                process.kill()
                process.wait()


def _comes_up(process: subprocess.Popen, endpoint: str, limit_s: float) -> bool:
    """Waits for a server, as long as it runs."""
    until = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < until:
        if _answers(endpoint, _POLL_S):
            return True
        time.sleep(_POLL_S)
    return False


def _how_it_ended(process: subprocess.Popen, log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    how = "does not answer" if process.poll() is None else f"ended with status {process.returncode}"
    return f"{how}: {lines[-1]}" if lines else how


def _command(options: PipelineOptions, folder: str) -> tuple[list, str]:
    is_prism = runner.name(options) == runner.PRISM
    if not is_prism and runner.name(options) != runner.FLINK:
        raise JobServerError("--runner=PortableRunner needs --job_endpoint=HOST:PORT of a job server that runs")
    if is_prism:
        _check_file("--prism_location", options.view_as(PrismRunnerOptions).prism_location)
        server: PrismJobServer | FlinkJarJobServer = PrismJobServer(options)
        advice = "name a binary with --prism_location=PATH (docs/runners.md says how to make one)"
    else:
        _check_file("--flink_job_server_jar", options.view_as(FlinkRunnerOptions).flink_job_server_jar)
        of_server = options.view_as(JobServerOptions)
        if shutil.which(of_server.job_server_java_launcher) is None:
            raise JobServerError(
                "--runner=FlinkRunner needs Java for Beam's job server, and here is no "
                f"{of_server.job_server_java_launcher}: install it, or name a job server that runs with "
                "--job_endpoint=HOST:PORT"
            )
        of_server.artifacts_dir = of_server.artifacts_dir or os.path.join(folder, "artifacts")
        server = FlinkJarJobServer(options)
        advice = "name a jar with --flink_job_server_jar=PATH, or a job server that runs with --job_endpoint=HOST:PORT"
    try:
        return server.subprocess_cmd_and_endpoint()
    except (OSError, RuntimeError, ValueError) as error:  # a download that fails, mostly
        raise JobServerError(f"{runner.name(options)}: {error}; {advice}") from error


def _goes_to_cluster(options: PipelineOptions) -> bool:
    """Whether Beam hands the job, as one jar, to a Flink cluster itself."""
    flink = options.view_as(FlinkRunnerOptions)
    is_remote = runner.name(options) == runner.FLINK and flink.flink_master not in MAGIC_HOST_NAMES
    if is_remote:
        _check_answers("--flink_master", _endpoint(FlinkRunner.add_http_scheme(flink.flink_master)))
    return is_remote and flink.flink_submit_uber_jar


def _endpoint(address: str) -> str:
    url = urllib.parse.urlsplit(address)
    try:
        return f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}"
    except ValueError:  # no port of a number below 65,536
        return url.netloc


def _check_worker_pool(options: PipelineOptions) -> None:
    """Prism on this machine panics where no worker pool answers; a cluster may see one that we do not."""
    portable = options.view_as(PortableOptions)
    address = portable.lookup_environment_option("external_service_address") or portable.environment_config
    is_here = runner.name(options) == runner.PRISM and portable.job_endpoint is None
    if is_here and portable.environment_type == "EXTERNAL":
        _check_answers("--environment_config", address or "")


def _check_answers(flag: str, endpoint: str) -> None:
    if not _answers(endpoint, _ANSWER_S):
        raise JobServerError(f"{flag}={endpoint}: nothing answers there; give HOST:PORT of a server that runs")


def _answers(endpoint: str, limit_s: float) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]") or "localhost", int(port)), limit_s).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _check_file(flag: str, path: str | None) -> None:
    if path and "://" not in path and not os.path.isfile(path):
        raise JobServerError(f"{flag}={path}: no such file")


def _check_flags(endpoint: str, unknown: list[str]) -> None:
    """Refuses flags that the server does not know either; Beam would leave them out."""
    if not unknown:
        return
    request = beam_job_api_pb2.DescribePipelineOptionsRequest()
    try:
        service = ExternalJobServer(endpoint, _ANSWER_S).start()
        described = service.DescribePipelineOptions(request, timeout=_ANSWER_S)
    except (grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise JobServerError(f"{endpoint}: no job server answers there; does it know {unknown[0]}?") from error
    names = {f"--{option.name}" for option in described.options}
    for word in unknown:
        if word.startswith("-") and word.partition("=")[0] not in names:
            raise UnknownFlagError(word, names)
