"""Which runner the flags ask for, and what is said where it cannot be had. `test_pipeline_engines.py` runs them."""

import math
import os
import socket
import sys
from collections.abc import Iterator

import apache_beam as beam
import psutil
import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from botocore.exceptions import EndpointConnectionError

from mbt.pipeline import job_server, runner
from mbt.pipeline.errors import IncompleteError, UnknownFlagError


@pytest.fixture
def free() -> str:
    """An address where nothing answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def listening() -> Iterator[str]:
    """An address where somebody listens, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


LOCAL, PRISM, FLINK = "FnApiRunner", "PrismRunner", "FlinkRunner"
LOOPBACK, EXTERNAL = "--environment_type=LOOPBACK", "--environment_type=EXTERNAL"
DATAFLOW = ("--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t")


@pytest.mark.parametrize(
    ("flags", "name", "is_local", "is_one_machine"),
    [
        ((), LOCAL, True, True),
        (("--runner=DirectRunner",), LOCAL, True, True),
        (("--runner=direct",), LOCAL, True, True),
        (("--runner=PrismRunner",), PRISM, True, True),
        (("--runner=prism", EXTERNAL), PRISM, False, True),
        (("--runner=FlinkRunner",), FLINK, True, True),
        (("--runner=FlinkRunner", "--flink_master=[local]"), FLINK, True, True),
        (("--runner=FlinkRunner", "--flink_master=host:8081"), FLINK, False, False),
        (("--runner=FlinkRunner", "--job_endpoint=host:8099"), FLINK, False, False),
        (("--runner=FlinkRunner", EXTERNAL), FLINK, False, False),
        (("--runner=FlinkRunner", "--flink_master=host:8081", LOOPBACK), FLINK, True, True),
        (("--runner=PortableRunner", "--job_endpoint=host:8099"), "PortableRunner", False, False),
        (DATAFLOW, "DataflowRunner", False, False),
    ],
)
def test_who_works_where(flags, name, is_local, is_one_machine):
    """Whether workers can report to the launcher, and whether their load on servers multiplies."""
    options = runner.pipeline_options(flags)
    assert runner.name(options) == name
    assert (runner.is_local(options), runner.is_one_machine(options)) == (is_local, is_one_machine)
    assert runner.threads_per_worker(options) == (runner.cores() if is_local else 1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--runner=FooRunner",), "--runner=FooRunner: it is DirectRunner, PrismRunner"),
        (("--runner=no.such.Runner",), "--runner=no.such.Runner: it is DirectRunner, PrismRunner"),
        (("--runner=apache_beam.runners.NoRunner",), "--runner=apache_beam.runners.NoRunner: it is DirectRunner"),
        (("--runner=FlinkRunner", "--parallelism=two"), "argument --parallelism: invalid int value: 'two'"),
    ],
)
def test_a_wrong_flag_is_refused(flags, said):
    with pytest.raises(runner.BeamFlagsError) as refused:
        runner.pipeline_options(flags)
    assert str(refused.value).startswith(said)


def test_a_flag_that_beam_does_not_know_is_told_from_those_it_does():
    with pytest.raises(UnknownFlagError, match=r"^unknown flag --number_of_retries=2$") as refused:
        runner.pipeline_options(("--runner=PrismRunner", "--number_of_retries=2"))
    assert refused.value.word == "--number_of_retries=2" and "--direct_num_workers" in refused.value.known


def refusal(*flags: str) -> str:
    """What is said instead of running."""
    with (
        pytest.raises((job_server.JobServerError, UnknownFlagError)) as refused,
        job_server.running(runner.pipeline_options(flags), flags),
    ):
        pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--runner=PrismRunner", "--prism_location=/no/prism"), "--prism_location=/no/prism: no such file"),
        (("--runner=FlinkRunner", "--flink_job_server_jar=/no.jar"), "--flink_job_server_jar=/no.jar: no such file"),
        (("--runner=FlinkRunner", "--job_server_java_launcher=no-java"), "FlinkRunner needs Java"),
        (("--runner=PortableRunner",), "--runner=PortableRunner needs --job_endpoint"),
        (("--runner=PrismRunner", EXTERNAL), "--environment_config=: nothing answers there"),
    ],
)
def test_what_is_missing_is_named(flags, said):
    assert said in refusal(*flags)


@pytest.mark.parametrize(
    "flags",
    [
        ("--runner=PrismRunner", "--job_endpoint={}"),
        ("--runner=FlinkRunner", "--job_endpoint={}"),
        ("--runner=FlinkRunner", "--flink_master={}"),
        ("--runner=FlinkRunner", "--flink_master=http://{}", "--flink_submit_uber_jar"),
        ("--runner=PrismRunner", EXTERNAL, "--environment_config={}"),
        ("--runner=PrismRunner", EXTERNAL, "--environment_option=external_service_address={}"),
    ],
)
def test_an_endpoint_that_does_not_answer_is_named(flags, free):
    said = refusal(*(flag.format(free) for flag in flags))
    assert f"={free}: nothing answers there" in said


@pytest.mark.parametrize("port", ["80x", "99999"])
def test_a_port_that_is_none_is_named(port):
    said = refusal("--runner=FlinkRunner", f"--flink_master=localhost:{port}")
    assert f"--flink_master=localhost:{port}: nothing answers there" in said


def test_a_server_that_is_no_job_server_is_named(listening, monkeypatch):
    monkeypatch.setattr(job_server, "_ANSWER_S", 1.0)
    said = refusal("--runner=FlinkRunner", f"--job_endpoint={listening}", "--unheard_of=1")
    assert said == f"{listening}: no job server answers there; does it know --unheard_of=1?"


def test_a_server_that_ends_at_once_says_why(tmp_path):
    program = tmp_path / "prism"
    program.write_text("#!/bin/sh\necho a first line; echo the port is taken >&2; exit 3\n")
    said = refusal("--runner=PrismRunner", f"--prism_location={program}")
    assert said == f"{program} ended with status 3: the port is taken"


def test_the_server_of_a_run_ends_with_it(tmp_path):
    """A stand-in that listens as a job server does, on the port that it is told."""
    program = tmp_path / "prism"
    listen = (
        "import socket,sys,time;s=socket.socket();s.bind(('127.0.0.1',int(sys.argv[2])));s.listen();time.sleep(600)"
    )
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{listen}" "$@"\n')
    flags = ("--runner=PrismRunner", f"--prism_location={program}")
    before = set(psutil.Process().children(recursive=True))
    with job_server.running(runner.pipeline_options(flags), flags):
        started = [one for one in psutil.Process().children() if one not in before and "listen" in str(one.cmdline())]
        assert len(started) == 1
        assert os.getpgid(started[0].pid) != os.getpgid(0)
    assert not started[0].is_running()


@pytest.fixture
def job_endpoint() -> Iterator[str]:
    """Of Beam's own job server, in this process."""
    server = LocalJobServicer()
    yield f"localhost:{server.start_grpc_server(0)}"
    server.stop()


def test_the_reason_that_a_worker_gives_is_the_commands_last_word(job_endpoint):
    def fail(_: int) -> None:
        raise ValueError("the disk is full")

    flags = ("--runner=PortableRunner", f"--job_endpoint={job_endpoint}", LOOPBACK)
    options = runner.pipeline_options(flags)
    with (
        pytest.raises(IncompleteError) as ended,
        job_server.running(options, flags),
        job_server.pipeline(options) as pipeline,
    ):
        _ = pipeline | beam.Create([1]) | "Fail" >> beam.Map(fail)
    said = "PortableRunner ended the job: ValueError: the disk is full [while running 'Fail']; "
    assert str(ended.value).startswith(said)


def test_a_store_that_a_local_worker_cannot_reach_is_said_in_one_line(caplog):
    def fail(_: int) -> None:
        raise EndpointConnectionError(endpoint_url="http://store")

    options = runner.pipeline_options(())
    with pytest.raises(IncompleteError) as ended, job_server.pipeline(options) as pipeline:
        _ = pipeline | beam.Create([1]) | "Fail" >> beam.Map(fail)
    assert str(ended.value).startswith("botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint")
    assert "\n" not in str(ended.value) and not caplog.records


def test_what_is_no_fault_of_a_store_stays_what_it_is():
    options = runner.pipeline_options(())
    with pytest.raises(ZeroDivisionError), job_server.pipeline(options) as pipeline:
        _ = pipeline | beam.Create([0]) | beam.Map(lambda number: 1 // number)


def test_flags_are_refused_that_the_job_server_does_not_know_either(job_endpoint):
    flags = ("--runner=FlinkRunner", f"--job_endpoint={job_endpoint}")
    with job_server.running(runner.pipeline_options(flags), flags):
        pass
    assert refusal(*flags, "--no_such=1") == "unknown flag --no_such=1"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000"}, math.inf),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_a_containers_quota_of_cores(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert runner.quota(tmp_path) == expected
    assert 1 <= runner.cores() <= (os.cpu_count() or 1)
