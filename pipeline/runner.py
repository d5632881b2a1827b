"""Beam's side of the command line: which runner, with how many workers."""

import contextlib
import io
import os
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions, _BeamArgumentParser

# Today's DirectRunner picks Prism or FnApiRunner by itself; a default that picks is no default.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", LOCAL_RUNNER, LOCAL_RUNNER + ".FnApiRunner")
_PROCESSES_FROM_CORES = 17  # above 16, one interpreter cannot feed all cores


class BeamFlagsError(ValueError):
    """Beam does not know a flag, or not its value."""


def pipeline_options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options for these flags, with our defaults.

    Raises:
      BeamFlagsError: naming the flag.
    """
    _check_flags(flags)
    options = PipelineOptions(list(flags))
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    if standard.runner in (None, *_LOCAL_NAMES):
        standard.runner = "FnApiRunner"
        if not any(flag.split("=")[0] in ("--direct_running_mode", "--direct_num_workers") for flag in flags):
            many = cores() >= _PROCESSES_FROM_CORES
            direct.direct_running_mode = "multi_processing" if many else "in_memory"
            direct.direct_num_workers = cores() if many else 1
    return options


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs on this machine, below this process."""
    return options.view_as(StandardOptions).runner == "FnApiRunner"


def threads_per_worker(options: PipelineOptions) -> int:
    """Clips that a worker process decodes at a time, so that all cores are busy and no more."""
    if not is_local(options):
        return 1
    direct = options.view_as(DirectOptions)
    return max(1, cores() // max(1, direct.direct_num_workers or cores()))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_flags(flags: Sequence[str]) -> None:
    parser = _BeamArgumentParser(allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in kind.__dict__:
            kind._add_argparse_args(parser)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            _, unknown = parser.parse_known_args(list(flags))
    except SystemExit:
        raise BeamFlagsError(complaint.getvalue().strip().splitlines()[-1].split("error: ")[-1]) from None
    if unknown:
        raise BeamFlagsError(f"unknown flag {unknown[0]}")
