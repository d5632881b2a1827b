"""The same build on every engine, by real processes: Beam's own runner, and Prism and Flink, which `make engines` gets.

Prism has one SDK worker and ends the job when that dies; Flink, told to restart, asks the pool for new workers.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from apache_beam.version import __version__ as beam_version

from mbt.pipeline import ledger
from mbt.schemas.manifest import Manifest

pytestmark = pytest.mark.engines

ENGINES = Path(__file__).parents[1] / ".engines"
COMMAND = str(Path(sys.executable).with_name("mbt-data"))
SHARDS = 16
# Of a bar, whose rate may be clips a second or seconds a clip.
BAR = re.compile(r" \d+/\d+ \[")
# `python -c POOL`: a process that is one SDK worker; with an argument it starts a process for each worker asked for.
POOL = """
import sys, time
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer as Pool
import mbt.pipeline.build, mbt.pipeline.fetching
address, server = Pool.start(use_process=len(sys.argv) > 1)
print(address, flush=True)
time.sleep(3600)
"""
# Flink restarts nothing unless it is told to. `[local]` is a cluster within the job server that reads FLINK_CONF_DIR.
RESTARTS = {
    "config.yaml": "restart-strategy.type: fixed-delay\nrestart-strategy.fixed-delay.attempts: 3\n",
    "flink-conf.yaml": "restart-strategy: fixed-delay\nrestart-strategy.fixed-delay.attempts: 3\n",  # before Flink 2
}


@pytest.fixture(scope="module")
def prism() -> list[str]:
    """Flags."""
    program = ENGINES / f"prism-{beam_version}"
    if not program.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is missing: make engines")
    return ["--runner=PrismRunner", f"--prism_location={program}"]


@pytest.fixture(scope="module")
def flink() -> list[str]:
    """Flags."""
    named = os.environ.get("FLINK_JOB_SERVER_JAR")
    jars = [Path(named)] if named else [*ENGINES.glob("*flink*.jar"), *ENGINES.glob("flink/*.jar")]
    if not jars:
        pytest.skip("no job server for Flink: make engines got none, and FLINK_JOB_SERVER_JAR names none")
    flags = ["--flink_master=[local]", "--parallelism=2", "--max_fetch_workers=2"]
    return ["--runner=FlinkRunner", f"--flink_job_server_jar={jars[0]}", *flags]


@contextlib.contextmanager
def worker_pool(*arguments: str) -> Iterator[tuple[list[str], psutil.Process]]:
    """A process outside the command's tree: flags that name it, and the process."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [sys.executable, "-c", POOL, *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        pool = psutil.Process(process.pid)
        try:
            address = process.stdout.readline().strip()
            yield ["--environment_type=EXTERNAL", f"--environment_config={address}"], pool
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for worker in [*pool.children(), pool]:
                    worker.kill()


@dataclasses.dataclass(frozen=True)
class Forty:
    """A list of 40 real clips and two that cannot be, and how to build it."""

    csv: Path
    media: Path

    def words(self, root: Path, *flags: str) -> list[str]:
        words = [f"--annotations={self.csv}", f"--media_root={self.media}", f"--output={root}", "--json"]
        return [COMMAND, "build", *words, f"--num_shards={SHARDS}", *flags]

    def build(self, root: Path, *flags: str, **environment: str) -> dict:
        done = subprocess.run(
            self.words(root, *flags), capture_output=True, text=True, check=False, env=os.environ | environment
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, root: Path, *flags: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.words(root, *flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )


@pytest.fixture(scope="module")
def forty(shared, write_csv, tmp_path_factory) -> Forty:
    """The first second of each clip, or what there is of it: every container and codec, in little time."""
    folder = tmp_path_factory.mktemp("forty")
    clips = sorted((shared / "clips" / "av").iterdir())
    assert len(clips) == 40
    (folder / "empty.mp4").touch()
    paths = [*(path.name for path in clips), "missing.mp4", str(folder / "empty.mp4")]
    rows = [{"video_path": path, "start": 0, "end": 1, "label": Path(path).suffix[1:]} for path in paths]
    return Forty(csv=write_csv(folder / "clips.csv", rows), media=shared / "clips" / "av")


def shards(root: Path) -> dict[str, str]:
    """Name to digest, of shards and indices."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "shards").iterdir()}


def outcomes(root: Path) -> list[tuple]:
    """Of each clip, by the ledger."""
    columns = ("clip_id", "outcome", "reason", "digest", "media", "start_us", "end_us")
    return sorted(tuple(row[name] for name in columns) for row in ledger.state(str(root)).to_pylist())


def records(root: Path) -> int:
    (path,) = root.glob("snapshots/*/manifest.json")
    return Manifest.from_json(path.read_text()).splits["train"].num_records


@pytest.fixture(scope="module")
def reference(forty, tmp_path_factory) -> Path:
    """Built by Beam's own runner, in one process."""
    root = tmp_path_factory.mktemp("reference") / "out"
    forty.build(root)
    assert records(root) == 40 and len(shards(root)) == 2 * SHARDS
    assert sorted(row[1] for row in outcomes(root)) == ["ok"] * 40 + ["transient", "unusable"]
    return root


@pytest.mark.parametrize("engine", ["threads", "processes", "prism", "prism and a worker", "flink and two workers"])
def test_every_engine_writes_the_same_bytes(engine, forty, reference, tmp_path, request):
    with contextlib.ExitStack() as stack:
        if engine in ("threads", "processes"):
            mode = {"threads": "multi_threading", "processes": "multi_processing"}[engine]
            flags = [f"--direct_running_mode={mode}", "--direct_num_workers=2"]
        else:
            flags = request.getfixturevalue(engine.split()[0])
        if "worker" in engine:
            flags = flags + stack.enter_context(worker_pool(*(["processes"] if "flink" in engine else [])))[0]
        forty.build(tmp_path / "out", *flags)
    assert shards(tmp_path / "out") == shards(reference)
    assert outcomes(tmp_path / "out") == outcomes(reference)


def published(root: Path) -> dict[str, tuple[int, int]]:
    """The shards that have an index, which comes last: name to inode and time of change."""
    indices = [path for path in root.glob("shards/*.index") if path.with_suffix(".tfrecord").exists()]
    files = [file for path in indices for file in (path, path.with_suffix(".tfrecord"))]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def wait_for_shards(process: subprocess.Popen, root: Path, count: int) -> dict[str, tuple[int, int]]:
    """Waits until so many are published, in mid-build; what is published then."""
    wait_until(lambda: process.poll() is not None or len(published(root)) >= 2 * count)
    assert process.poll() is None, process.communicate()
    return published(root)


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 400  # a hang, not a slow machine
    while not happened():
        assert time.monotonic() < until, "that never happened"
        time.sleep(0.02)


def check_nothing_was_lost(root: Path, before: dict[str, tuple[int, int]], reference: Path) -> None:
    """No shard of before was written again, all bytes are right, and no record is there twice."""
    assert before.items() <= published(root).items()
    assert shards(root) == shards(reference)
    assert records(root) == 40
    assert outcomes(root) == outcomes(reference)


def check_one_line(said: str) -> None:
    """All that a job says that its engine ended, beside the bars."""
    lines = [line for line in said.replace("\r", "\n").splitlines() if ":" in line and not BAR.search(line)]
    assert len(lines) == 1, "\n".join(lines)
    (line,) = lines
    assert line.startswith("mbt-data: PrismRunner ended the job: ") and line.endswith("the same command goes on")


def test_prism_says_that_its_worker_died_and_goes_on(prism, forty, reference, tmp_path):
    root = tmp_path / "out"
    with worker_pool() as (flags, pool):
        process = forty.start(root, *prism, *flags)
        before = wait_for_shards(process, root, 3)
        pool.kill()
        _, said = process.communicate()
    assert process.returncode == 1
    assert len(before) < 2 * SHARDS and not list(root.glob("snapshots/*"))
    check_one_line(said)
    with worker_pool() as (flags, _):
        done = forty.build(root, *prism, *flags)
    assert done["shards_reused"] >= len(before) / 2
    check_nothing_was_lost(root, before, reference)


def test_flink_goes_on_where_all_workers_but_one_die(flink, forty, reference, tmp_path):
    root = tmp_path / "out"
    for name, text in RESTARTS.items():
        (tmp_path / name).write_text(text)
    with worker_pool("processes") as (flags, pool):
        process = forty.start(root, *flink, *flags, "--sdk_worker_parallelism=2", FLINK_CONF_DIR=str(tmp_path))
        before = wait_for_shards(process, root, 1)
        workers = pool.children()  # two or more, of which two have a bundle each
        for worker in workers[1:]:
            worker.kill()
        wait_until(lambda: process.poll() is not None or not set(pool.children()) <= set(workers))
        assert process.poll() is None, "the job ended without new workers"
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert len(before) < 2 * SHARDS
    check_nothing_was_lost(root, before, reference)


def test_the_death_of_prism_itself_is_one_line(prism, forty, tmp_path):
    process = forty.start(tmp_path / "out", *prism)
    wait_for_shards(process, tmp_path / "out", 1)
    (server,) = [child for child in psutil.Process(process.pid).children() if "prism" in child.name()]
    server.kill()
    _, said = process.communicate()
    assert process.returncode == 1
    check_one_line(said)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_of_prism_outlives_the_command(prism, forty, tmp_path, how):
    process = forty.start(tmp_path / "out", *prism)
    wait_for_shards(process, tmp_path / "out", 1)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("prism" in child.name() for child in below)
    process.send_signal(how)
    process.communicate()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive
