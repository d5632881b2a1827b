"""What the code at a6ed681 left on disk (`data/a6ed681/make.py`), and a web that counts what it is asked."""

import contextlib
import http.server
import pathlib
import tarfile
import threading
from collections.abc import Iterator

ARCHIVE = pathlib.Path(__file__).with_name("data") / "a6ed681" / "fixture.tar.xz"
# What the old rules refused, when it was fetched and when it was to be decoded.
AT_FETCH = ("refused-at-fetch", "unusable")
AT_DECODE = ("refused-at-decode", "junk")


def unpack(folder: pathlib.Path) -> pathlib.Path:
    """The datasets, the run and the films; also `held.csv`, the annotations without what is to be fetched again."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    lines = (folder / "clips.csv").read_text().splitlines()
    held = [line for line in lines if not line.endswith(AT_FETCH)]
    (folder / "held.csv").write_text("\n".join([*held, ""]))
    return folder


class Web(http.server.ThreadingHTTPServer):
    """A proxy that answers for every host with the films, and keeps the names that it was asked for."""

    daemon_threads = True

    def __init__(self, films: pathlib.Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.films = films
        self.requests: list[str] = []


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Web

    def translate_path(self, path: str) -> str:
        name = path.rpartition("/")[2]
        self.server.requests.append(name)
        return str(self.server.films / name)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web(folder: pathlib.Path) -> Iterator[Web]:
    """The web of an unpacked archive, named by `proxies.txt` there."""
    with Web(folder / "films") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "proxies.txt").write_text(f"http://127.0.0.1:{server.server_port}\n")
        yield server
        server.shutdown()
