"""Beam's side of the command line: which runner, with how many workers."""

import contextlib
import importlib
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
    _BeamArgumentParser,
)

from mbt.pipeline.errors import UnknownFlagError

# Today's DirectRunner picks Prism or FnApiRunner by itself; a default that picks is no default.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", LOCAL_RUNNER, LOCAL_RUNNER + ".FnApiRunner")
_LOCAL = "FnApiRunner"
PRISM = "PrismRunner"
FLINK = "FlinkRunner"
_PORTABLE = (PRISM, FLINK, "PortableRunner")
_OTHERS = ("DataflowRunner",)
_FLINK_HERE = ("[auto]", "[local]")  # Beam's names for a cluster that the job server starts within itself
_LOOPBACK = "LOOPBACK"
_PROCESSES_FROM_CORES = 17  # above 16, one interpreter cannot feed all cores


class BeamFlagsError(ValueError):
    """Beam does not know a flag's value."""


def pipeline_options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options for these flags, with our defaults.

    Raises:
      BeamFlagsError: naming the flag that has a wrong value.
      UnknownFlagError: naming one that is none of Beam's.
    """
    unknown = unknown_flags(flags)
    options = PipelineOptions(list(flags))
    standard = options.view_as(StandardOptions)
    standard.runner = _named(standard.runner)
    if unknown and standard.runner != FLINK:  # whose job server has more flags, and is asked for them once it runs
        raise UnknownFlagError(unknown[0], _parser()._option_string_actions)
    if standard.runner == _LOCAL:
        _set_local_workers(options, flags)
    elif standard.runner in _PORTABLE:
        _set_portable_workers(options)
    return options


def unknown_flags(flags: Sequence[str]) -> list[str]:
    """Those that no part of Beam for Python knows.

    Raises:
      BeamFlagsError: a known one has a wrong value.
    """
    parser, complaint = _parser(), io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return parser.parse_known_args(list(flags))[1]
    except SystemExit:
        raise BeamFlagsError(complaint.getvalue().strip().splitlines()[-1].split("error: ")[-1]) from None


def _parser() -> _BeamArgumentParser:
    """Of all flags of Beam for Python."""
    parser = _BeamArgumentParser(allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in kind.__dict__:
            kind._add_argparse_args(parser)
    return parser


def name(options: PipelineOptions) -> str:
    """Which runner it is."""
    return options.view_as(StandardOptions).runner


def is_local(options: PipelineOptions) -> bool:
    """Whether all workers are this process or below it: they can report to it and die with it."""
    return name(options) == _LOCAL or _is_loopback(options)


def is_one_machine(options: PipelineOptions) -> bool:
    """Whether no more than one machine works; Prism has one worker."""
    return is_local(options) or name(options) == PRISM


def is_portable(options: PipelineOptions) -> bool:
    """Whether the job goes to a server: one that runs, or one that is started."""
    return name(options) in _PORTABLE


def threads_per_worker(options: PipelineOptions) -> int:
    """Clips that a worker process decodes at a time, so that all cores are busy and no more."""
    if _is_loopback(options):
        return cores()
    if not is_local(options):
        return 1
    direct = options.view_as(DirectOptions)
    return max(1, cores() // max(1, direct.direct_num_workers or cores()))


def cores() -> int:
    """Cores that this process may use, by its affinity and its group's quota, as in a container."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(here, quota())))


def quota(groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores' worth of time that this process's control group grants (`cpu.max`, or its older form)."""
    older = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    for files in (("cpu.max",), older):
        try:
            granted, of, *_ = (int(word) for file in files for word in (groups / file).read_text().split())
        except (OSError, ValueError):  # there is none, or "max"
            continue
        if granted > 0 and of > 0:
            return granted / of
    return math.inf


def _named(runner: str | None) -> str:
    """One of Beam's names, which it takes in any case; a runner of the user's own by its dotted path."""
    if runner is None or runner in _LOCAL_NAMES:
        return _LOCAL
    known = {each.lower(): each for each in (*_LOCAL_NAMES[:3], *_PORTABLE, *_OTHERS)}
    found = known.get(runner.lower()) or known.get(f"{runner.lower()}runner")
    if found is None and not _is_class(runner):
        raise BeamFlagsError(
            f"--runner={runner}: it is DirectRunner, {PRISM}, {FLINK} or DataflowRunner, or the dotted path of a class"
        )
    return _LOCAL if found in _LOCAL_NAMES else found or runner


def _is_class(path: str) -> bool:
    module, _, name_ = path.rpartition(".")
    try:
        return isinstance(getattr(importlib.import_module(module), name_), type)
    except (AttributeError, ImportError, ValueError):
        return False


def _set_local_workers(options: PipelineOptions, flags: Sequence[str]) -> None:
    direct = options.view_as(DirectOptions)
    if not any(flag.split("=")[0] in ("--direct_running_mode", "--direct_num_workers") for flag in flags):
        many = cores() >= _PROCESSES_FROM_CORES
        direct.direct_running_mode = "multi_processing" if many else "in_memory"
        direct.direct_num_workers = cores() if many else 1


def _set_portable_workers(options: PipelineOptions) -> None:
    """Says what Beam would choose later, so that it is known now: an engine on this machine works in this process."""
    portable = options.view_as(PortableOptions)
    if portable.environment_type is None:
        here = options.view_as(FlinkRunnerOptions).flink_master in _FLINK_HERE and portable.job_endpoint is None
        if name(options) == PRISM or (name(options) == FLINK and here):
            portable.environment_type = _LOOPBACK
    elif not portable.environment_type.startswith("beam:"):
        portable.environment_type = portable.environment_type.upper()
    prism = options.view_as(PrismRunnerOptions)
    prism.prism_log_kind = "text" if prism.prism_log_kind == "console" else prism.prism_log_kind


def _is_loopback(options: PipelineOptions) -> bool:
    return is_portable(options) and options.view_as(PortableOptions).environment_type == _LOOPBACK
