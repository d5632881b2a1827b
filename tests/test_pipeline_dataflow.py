"""What arrives at Dataflow: a real launch against a server of ours, staged on the storage emulator."""

import base64
import bz2
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from command_server import CommandServer
from fake_dataflow import TOKEN, pipeline_url, serving, working, write_credentials
from media_server import PRIVATE
from media_server import serving as serving_media
from test_packaging import copy_source

from mbt.pipeline import dataflow, runner, storage
from mbt.pipeline.annotations.selection import Selection
from mbt.pipeline.errors import IncompleteError
from mbt.pipeline.main import main
from mbt.pipeline.options import Options
from mbt.pipeline.settings import FetchSettings

MBT_DATA = str(Path(sys.executable).with_name("mbt-data"))
REPOSITORY = Path(__file__).parents[1]
CLIPS = 20_000  # of the launch that most tests look at
CLOUD = ["--runner=DataflowRunner", "--project=my-project", "--region=europe-west4"]
IMAGE = f"europe-west4-docker.pkg.dev/my-project/mbt-flax/worker:0.1.0-py{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def service():
    with serving() as fake:
        yield fake


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Runs `mbt-data` with Dataflow's flags, in an environment that leads to the emulators."""

    env: dict[str, str]
    endpoint: str
    folder: Path
    mbt_data: CommandServer

    def command(self, command: str, root: str, *words: str) -> list[str]:
        flags = [f"--annotations={self.folder}/clips.csv", f"--output={root}", "--max_fetch_workers=4", PRIVATE]
        return [MBT_DATA, command, *flags, *CLOUD, f"--dataflow_endpoint={self.endpoint}", *words]

    def run(self, command: str, root: str, *words: str) -> subprocess.CompletedProcess:
        return self.mbt_data(*self.command(command, root, *words)[1:], env=self.env)


@pytest.fixture(scope="module")
def launcher(mbt_data, service, gcs_emulator, tmp_path_factory) -> Launcher:
    folder = tmp_path_factory.mktemp("launcher")
    env = os.environ | gcs_emulator.env | write_credentials(folder / "key.json", service.url)
    return Launcher(env, service.url, folder, mbt_data)


@pytest.fixture
def here_as_launcher(launcher, monkeypatch):
    """This process has the launcher's environment."""
    for name in launcher.env.keys() - os.environ.keys():
        monkeypatch.setenv(name, launcher.env[name])


@pytest.fixture(autouse=True)
def own_signals():
    """`main` takes signals for its process, which here is the tests'."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def write_clips(path: Path, sources: list[str]) -> None:
    lines = [f"{source},0,1,a,c{number}" for number, source in enumerate(sources)]
    path.write_text("\n".join(["video_path,start,end,label,id", *lines]))


@pytest.fixture(scope="module")
def arrived(launcher, service, gcs_emulator):
    """A launch whose job fails; its process, the job, and all that was staged."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gcs_emulator.env.items():
            patch.setenv(name, value)
        write_clips(launcher.folder / "clips.csv", [f"http://127.0.0.1:1/{number}.mp4" for number in range(CLIPS)])
        storage.write("gs://bucket/proxies.txt", b"http://user:PROXYSECRET@127.0.0.1:1\n")
        secrets = ["--cookies=sm://my-project/cookies", "--youtube_api_key=worker:/etc/mbt/key"]
        service.work = lambda job: 'Traceback\n  File "x.py"\nValueError: out of quota'
        done = launcher.run("build", gcs_emulator.root("arrived"), "--proxies=gs://bucket/proxies.txt", *secrets)
        job = service.jobs[-1]
        folder = job["environment"]["sdkPipelineOptions"]["options"]["staging_location"]
        staged = {file.path: storage.read(f"{folder}/{file.path}") for file in storage.files(folder)}
        yield done, job, staged


def lines_of(text: str) -> list[str]:
    """Our lines, and none of Google's library, which tells of what it could not reach."""
    return [line for line in text.splitlines() if line.startswith("mbt-data")]


def status_of(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as end:
        return end.code


def pickled(pipeline: bytes) -> list[bytes]:
    """What the functions of a pipeline hold, unpacked."""
    found = re.findall(rb"QlpoO[A-Za-z0-9+/]{20,}=*", pipeline)
    return [bz2.decompress(base64.b64decode(each)) for each in found]


def test_the_fetch_job_is_the_one_that_we_say(arrived):
    _done, job, staged = arrived
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    assert job["name"].startswith("mbt-clips-") and job["name"].endswith("-fetch")
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert pool["sdkHarnessContainerImages"][0]["containerImage"] == IMAGE and len(staged) == 1
    assert (pool["machineType"], pool["diskSizeGb"], pool["numThreadsPerWorker"]) == ("e2-standard-2", 60, 1)
    assert pool["autoscalingSettings"] == {"algorithm": 2, "maxNumWorkers": 4}
    assert "no_use_multiple_sdk_containers" in environment["experiments"]
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    proto = beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"])
    # One environment, and so one kind of worker, for the steps that need memory and those that do not.
    (only,) = proto.components.environments.values()
    assert dict(only.resource_hints) == {"beam:resources:min_ram_bytes:v1": b"4000000000"}
    assert beam_runner_api_pb2.DockerPayload.FromString(only.payload).container_image == IMAGE


def test_the_job_holds_no_secret_and_no_path_of_this_machine(arrived, launcher, service):
    done, job, staged = arrived
    functions = pickled(staged["pipeline.pb"])
    assert any(b"sm://my-project/cookies" in each for each in functions), "the search finds nothing in pickles"
    texts = {"job": json.dumps(job).encode(), "said": (done.stdout + done.stderr).encode()} | staged
    texts |= {f"function {number}": each for number, each in enumerate(functions)}
    here = [str(REPOSITORY), sys.prefix, str(Path.home()), str(launcher.folder), str(launcher.folder.parents[1])]
    for name, text in texts.items():
        for word in ("PROXYSECRET", TOKEN, "PRIVATE KEY", *here):
            assert word.encode() not in text, (name, word)
    assert service.tokens == {f"Bearer {TOKEN}"}, "the launch did not use the account's token"


def test_a_job_that_fails_is_told_in_a_line(arrived):
    done, job, _ = arrived
    first, last = lines_of(done.stderr)
    assert done.returncode == 1
    assert f"fetch job {job['id']}" in first and "console.cloud.google.com" in first
    assert "ended as FAILED: ValueError: out of quota" in last and "same command goes on" in last


def test_the_graph_does_not_grow_with_the_clips(arrived):
    _, job, staged = arrived
    assert len(json.dumps(job)) + len(staged["pipeline.pb"]) < 2 * CLIPS  # bytes: their ids alone are more


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of Beam's thread, which asks
def test_a_job_that_is_out_of_sight_is_not_called_a_failure(service, gcs, here_as_launcher):
    job = dataflow.job_options(options(beam=[f"--dataflow_endpoint={service.url}"]), "fetch", gcs.root("sight"))
    service.is_broken = True
    try:
        said = r"is out of sight \(.*\), and goes on without this command"
        with pytest.raises(IncompleteError, match=said), dataflow.pipeline(job, "fetch") as pipeline:
            _ = pipeline | beam.Create([1])
    finally:
        service.is_broken = False
    assert service.jobs[-1]["name"].endswith("-fetch")


@pytest.mark.slow
def test_two_million_clips_are_a_small_job(launcher, service, gcs):
    write_clips(launcher.folder / "clips.csv", [f"http://127.0.0.1:1/{number}.mp4" for number in range(2_000_000)])
    service.work = lambda job: "no workers here"
    done = launcher.run("fetch", gcs.root("millions"))
    assert "no workers here" in done.stderr
    job = service.jobs[-1]
    size = len(json.dumps(job)) + len(storage.read(pipeline_url(job)))
    print(f"{size} bytes")
    assert size < 1_000_000


@pytest.fixture
def media(clip_folder):
    with serving_media() as server:
        for path in clip_folder.glob("*.mp4"):
            server.files[path.name] = path.read_bytes()
        yield server


def test_a_dataset_is_made_by_two_jobs_also_when_the_launcher_is_stopped(
    launcher, service, gcs, media, here_as_launcher, capsys, tmp_path
):
    write_clips(launcher.folder / "clips.csv", [f"{media.url}/{number}.mp4" for number in range(6)])
    root = gcs.root("made")
    service.work = lambda job: "JOB_STATE_RUNNING"
    stopped = subprocess.Popen(
        launcher.command("build", root), env=launcher.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    told = next(line for line in stopped.stderr if line.startswith("mbt-data: Dataflow runs"))
    stopped.send_signal(signal.SIGINT)
    told += stopped.communicate(timeout=60)[1]
    fetch = service.jobs[-1]
    assert stopped.returncode == 130 and "goes on without this command" in told
    assert f"gcloud dataflow jobs cancel {fetch['id']} --project=my-project --region=europe-west4" in told
    assert status_of(launcher.command("build", root)[1:]) == 2
    assert fetch["name"] in capsys.readouterr().err
    work, pipelines = working(launcher.env), []
    service.end(fetch, work(fetch))
    assert fetch["currentState"] == "JOB_STATE_DONE", service.errors
    assert "FetchClips" in fetch["unpickled"] and len(media.requests) == 6
    service.work = lambda job: pipelines.append(storage.read(pipeline_url(job))) or work(job)
    made = launcher.run("build", root, "--json", "--num_shards=2")
    assert made.returncode == 0, made.stderr
    assert len(media.requests) == 6, "what the stopped launcher's job fetched was fetched again"
    build = service.jobs[-1]
    assert build["name"] == fetch["name"].replace("-fetch", "-build") and "BuildShards" in build["unpickled"]
    assert build["environment"]["workerPools"][0]["machineType"] == "n2d-standard-4"
    assert "use_multiple_sdk_containers" in build["environment"]["experiments"]
    assert not any(str(REPOSITORY).encode() in each for each in pickled(pipelines[-1]))
    assert json.loads(made.stdout)["splits"]["train"]["records"] == 6
    local = ["build", f"--annotations={launcher.folder}/clips.csv", f"--output={tmp_path}/local", "--num_shards=2"]
    assert main([*local, PRIVATE]) == 0
    shards = list((tmp_path / "local" / "shards").iterdir())
    assert shards and all(storage.read(f"{root}/shards/{path.name}") == path.read_bytes() for path in shards)
    assert not storage.folders(f"{root}/tmp"), "the job's staged files are left"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the source to make a package of, so that nothing is left in this clone."""
    return copy_source(tmp_path_factory.mktemp("setup_file") / "source")


@pytest.mark.slow  # it installs what a worker installs, from the package index
def test_the_package_that_beam_stages_does_the_job_in_an_empty_environment(
    launcher, service, gcs, media, source, tmp_path
):
    python = tmp_path / "venv" / "bin" / "python"

    def install(job: dict) -> str | None:
        packages = job["environment"]["workerPools"][0]["packages"]
        folder = job["environment"]["sdkPipelineOptions"]["options"]["staging_location"]
        staged.extend(package["name"] for package in packages)
        (tmp_path / "mbt-flax.tar.gz").write_bytes(storage.read(f"{folder}/{staged[0]}"))
        uv = [Path(sys.executable).with_name("uv"), "--quiet"]
        subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True)
        lock = REPOSITORY / "requirements.lock"
        pins = ["--python", python, "--constraint", lock, "--build-constraint", lock]
        subprocess.run([*uv, "pip", "install", *pins, tmp_path / "mbt-flax.tar.gz"], check=True)
        check = [python, REPOSITORY / "containers" / "check_worker.py", lock]
        assert "ready" in subprocess.run(check, cwd="/", check=True, capture_output=True, text=True).stdout
        service.work = work
        return work(job)

    write_clips(launcher.folder / "clips.csv", [f"{media.url}/{number}.mp4" for number in range(4)])
    staged: list[str] = []
    work, before = working(launcher.env, str(python)), len(service.jobs)
    service.work = install
    command = launcher.command("build", gcs.root("sdist"), "--setup_file=./setup.py", "--json", "--num_shards=1")
    done = subprocess.run(command, env=launcher.env, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stderr, service.errors)
    assert staged == ["workflow.tar.gz"] and json.loads(done.stdout)["splits"]["train"]["records"] == 4
    fetch, build = service.jobs[before:]
    assert {"FetchClips", "CallableWrapperDoFn"} <= set(fetch["unpickled"])
    assert {"BuildShards", "AddUp"} <= set(build["unpickled"]), build["unpickled"]
    assert str(source) not in json.dumps(fetch)


def options(**changes) -> Options:
    selection = Selection(dataset="csv", files=("clips.csv",), media_root="gs://bucket/videos")
    settings = FetchSettings(workers=changes.pop("workers", None))
    beam = (*CLOUD, *changes.pop("beam", ()))
    return Options(root="gs://bucket/set", name="My set", selection=selection, fetch=settings, beam=beam, **changes)


def said(stage: str, **changes) -> dict:
    return dataflow.job_options(options(**changes), stage, "gs://bucket/set/tmp/run-000001").get_all_options()


def test_defaults_of_both_stages():
    fetch, build = said("fetch"), said("build")
    assert (fetch["machine_type"], fetch["max_num_workers"], fetch["disk_size_gb"]) == ("e2-standard-2", 8, 60)
    assert (build["machine_type"], build["max_num_workers"], build["disk_size_gb"]) == ("n2d-standard-4", 25, 40)
    for each in (fetch, build):
        assert each["number_of_worker_harness_threads"] == 1 and each["autoscaling_algorithm"] == "THROUGHPUT_BASED"
        assert each["resource_hints"] == ["min_ram=4GB"] and each["sdk_container_image"] == IMAGE
        assert each["temp_location"] == "gs://bucket/set/tmp/run-000001/dataflow"
    assert re.fullmatch(r"mbt-my-set-[0-9a-f]{8}-build", build["job_name"])
    assert said("fetch", part=(1, 2))["job_name"].endswith("-fetch-1-of-2")


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        ("DataflowRunner", True),
        ("dataflow", True),
        ("apache_beam.runners.dataflow.dataflow_runner.DataflowRunner", True),
        ("DirectRunner", False),
        ("FlinkRunner", False),
    ],
)
def test_dataflow_is_known_by_all_its_names(name, is_it):
    assert dataflow.is_chosen(runner.pipeline_options([f"--runner={name}"])) == is_it


def test_lanes_bound_the_machines():
    fetch, build = said("fetch", workers=3), said("build", workers=3)
    assert (fetch["num_workers"], fetch["max_num_workers"]) == (3, 3)
    assert (build["num_workers"], build["max_num_workers"]) == (None, 25)
    assert said("fetch", workers=3, beam=["--max_num_workers=2"])["num_workers"] == 2


def test_beams_own_flags_go_before_ours():
    own = {
        "machine_type": "c3-standard-8",
        "max_num_workers": 500,
        "disk_size_gb": 99,
        "autoscaling_algorithm": "NONE",
        "number_of_worker_harness_threads": 2,
        "sdk_container_image": "gcr.io/other/image:1",
        "temp_location": "gs://other/tmp",
    }
    flags = [f"--{name}={value}" for name, value in own.items()]
    flags += ["--experiments=no_use_multiple_sdk_containers", "--resource_hints=min_ram=30GB", "--job_name=mine"]
    found = said("build", beam=flags)
    assert {name: found[name] for name in own} == own
    assert "use_multiple_sdk_containers" not in found["experiments"] and found["resource_hints"] == ["min_ram=30GB"]
    assert found["job_name"] == "mine-build"
    assert said("build", beam=["--num_workers=40"])["max_num_workers"] == 40
    assert said("build", beam=["--setup_file=./setup.py"])["sdk_container_image"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output=out"], "--output=/"),
        (["--region="], "--region"),
        (["--ffmpeg=/bin/true"], "--ffmpeg=/bin/true"),
        (["--cookies=cookies.txt"], "sm://PROJECT/NAME"),
        (["--proxies=cookies.txt"], "worker:/PATH"),
        (["--cookies=sm://cookies"], "write sm://PROJECT/NAME"),
        (["--no_wait_until_finish"], "--no_wait_until_finish"),
        (["--s3_secret_access_key=KEYSECRET"], "--s3_secret_access_key"),
        (["--project=X", "--dataflow_endpoint=https://dataflow.googleapis.com"], "Invalid Project ID (X)"),
        ([], "6 of 6 clips lie on this machine"),
    ],
)
def test_what_cannot_work_far_away_is_refused_in_a_line(
    gcs, service, here_as_launcher, clip_folder, tmp_path, monkeypatch, capsys, words, message
):
    write_clips(tmp_path / "clips.csv", [str(clip_folder / f"{number}.mp4") for number in range(6)])
    (tmp_path / "cookies.txt").write_text("http://user:PROXYSECRET@127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    flags = [f"--annotations={tmp_path}/clips.csv", f"--output={gcs.root('far-away')}", "--max_fetch_workers=4"]
    jobs = len(service.jobs)
    assert status_of(["build", *flags, *CLOUD, f"--dataflow_endpoint={service.url}", *words]) == 2
    (line,) = lines_of(capsys.readouterr().err)
    assert message in line and "SECRET" not in line
    assert len(service.jobs) == jobs and not storage.folders(gcs.root("far-away") + "/snapshots")
