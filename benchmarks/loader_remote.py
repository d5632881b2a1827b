"""How many clips a second the trainer's loader gives from gs:// when each request takes 50 ms, against local files.

    python benchmarks/loader_remote.py [--clips=24] [--batch=32] [--steps=20] [--rounds=5] [--root=ROOT]

Records and batches are those of `loader.py`. Both loaders are processes that stay, on the same cores, and are measured
in turns. The server is a process of its own on these cores, so what it takes is lost to the remote loader alone. It
serves from the page cache with sendfile; its CPU time is told apart. Goal: at least 0.9 of the local clips a second.
"""

import argparse
import contextlib
import heapq
import itertools
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import loader

GOAL = 0.9
WARM = 8  # batches: more than are made ahead while nobody asks
ENDLESS = 10**6  # steps
RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24, help="records, copies of one (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="clips a batch (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="batches measured at a time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds each request takes (default: %(default)s)")
    parser.add_argument("--root", help="a dataset with a split `train`, instead of generated records")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", metavar="PLACE", help=argparse.SUPPRESS)  # a loader of the records there
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.root, arguments.delay)
    elif arguments.load:
        load(arguments.root, arguments.load, arguments.batch, arguments.steps)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        root = arguments.root or loader.generate(Path(folder), arguments.clips)
        serving = child(stack, {}, f"--root={root}", f"--delay={arguments.delay}", "--serve")
        url = serving.stdout.readline().strip()
        words = [f"--root={root}", f"--batch={arguments.batch}", f"--steps={arguments.steps}"]
        env = {"STORAGE_EMULATOR_HOST": url}
        loaders = {place: child(stack, env, *words, f"--load={place}") for place in (root, "gs://bucket")}
        results: dict[str, list[dict]] = {place: [] for place in loaders}
        for place in [*loaders] * arguments.rounds:
            results[place].append(ask(loaders[place]))
        served = server_cpu(url)
    report(*results.values(), arguments, 1e6 * served["cpu"] / served["requests"])


def child(stack: contextlib.ExitStack, env: dict[str, str], *words: str) -> subprocess.Popen:
    """This script as another process, which ends with the stack."""
    command = [sys.executable, __file__, *words]
    process = subprocess.Popen(
        command, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def ask(process: subprocess.Popen) -> dict:
    process.stdin.write("go\n")
    return json.loads(process.stdout.readline())


def server_cpu(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/cpu") as answer:
        return json.load(answer)


def load(root: str, place: str, size: int, steps: int) -> None:
    """Makes batches of the records in a place; for each line that comes, measures so many."""
    from mbt.train.records import make_reader, train_batches
    from mbt.train.snapshot import Records, load_manifest

    manifest = load_manifest(root, "latest")
    config = loader.make_config(root, manifest, size, ENDLESS)
    batches = train_batches(make_reader(Records(place, manifest.splits["train"]), config), config)
    for _ in sys.stdin:
        print(json.dumps(measure(batches, steps, steps * size)), flush=True)
    os._exit(0)


def measure(batches: Iterator, steps: int, clips: int) -> dict:
    for _ in range(WARM):
        next(batches)
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(batches)
    rate = clips / (time.perf_counter() - clock)
    return {"rate": rate, "cpu": 1000 * (time.process_time() - cpu) / clips}


def report(local: list[dict], remote: list[dict], arguments: argparse.Namespace, server_us: float) -> None:
    def median(results: list[dict], name: str) -> float:
        return statistics.median(result[name] for result in results)

    print(f"batches of {arguments.batch}; {1000 * arguments.delay:.0f} ms a request; medians of {len(local)} turns\n")
    print("| records | clips/s | CPU ms a clip, client included |\n|---|---|---|")
    print(f"| local | {median(local, 'rate'):.0f} | {median(local, 'cpu'):.2f} |")
    print(f"| gs:// | {median(remote, 'rate'):.0f} | {median(remote, 'cpu'):.2f} |\n")
    print(f"the server's own CPU time: {server_us:.0f} us a request")
    ratios = [there["rate"] / here["rate"] for here, there in zip(local, remote, strict=True)]
    print(f"clips/s of gs:// to local: {statistics.median(ratios):.2f} (goal: at least {GOAL}), by turns", end=" ")
    print(", ".join(f"{ratio:.2f}" for ratio in ratios))


def serve(root: str, delay: float) -> None:
    """Answers GETs of parts of objects in any bucket, each so many seconds after it came."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    ready, due, number = selectors.DefaultSelector(), [], itertools.count()
    ready.register(listener, selectors.EVENT_READ)
    Connection.begun = time.process_time()
    while True:
        wait = max(0, due[0][0] - time.monotonic()) if due else None
        for key, _ in ready.select(wait):
            if key.fileobj is listener:
                Connection(listener.accept()[0], Path(root), ready)
            elif key.data.goes_on():
                heapq.heappush(due, (time.monotonic() + delay, next(number), key.data))
        while due and due[0][0] <= time.monotonic():
            heapq.heappop(due)[2].answer()


class Connection:
    """A client's connection: one request at a time."""

    files: dict[str, int] = {}  # noqa: RUF012  open, by name
    requests, begun = 0, 0.0  # how many were answered, and the process's CPU time before the first

    def __init__(self, client: socket.socket, root: Path, ready: selectors.BaseSelector):
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client, self.root, self.ready = client, root, ready
        self.head, self.left = b"", (0, 0, 0)  # of the answer: file, offset, bytes
        ready.register(client, selectors.EVENT_READ, self)

    def goes_on(self) -> bool:
        """Reads or writes what can be; whether a whole request is there."""
        if self.left[2]:
            self.write()
            return False
        try:
            got = self.client.recv(1 << 16)
        except ConnectionError:
            got = b""
        self.head += got
        if not got:
            self.ready.unregister(self.client)
            self.client.close()
        elif self.head.startswith(b"GET /cpu "):
            self.head = b""
            text = json.dumps({"cpu": time.process_time() - Connection.begun, "requests": Connection.requests}).encode()
            self.client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        return self.head.endswith(b"\r\n\r\n")

    def answer(self) -> None:
        """Begins the answer to the request that is there."""
        Connection.requests += 1
        name = urllib.parse.unquote(self.head.split(b" ", 2)[1].decode()).split("/", 2)[2]
        if name not in self.files:
            self.files[name] = os.open(self.root / name, os.O_RDONLY)
        size, wanted = os.fstat(self.files[name]).st_size, RANGE.search(self.head)
        first, last = (int(wanted[1]), min(int(wanted[2]), size - 1)) if wanted else (0, size - 1)
        self.head, self.left = b"", (self.files[name], first, last + 1 - first)
        status = f"206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}" if wanted else "200 OK"
        lines = ['ETag: "1"', "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", f"Content-Length: {last + 1 - first}"]
        self.client.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "\r\n"]).encode(), socket.MSG_MORE)
        self.write()

    def write(self) -> None:
        """Sends what the client takes now."""
        file, offset, left = self.left
        with contextlib.suppress(BlockingIOError):
            while left:
                sent = os.sendfile(self.client.fileno(), file, offset, left)
                offset, left = offset + sent, left - sent
        if bool(left) != bool(self.ready.get_key(self.client).events & selectors.EVENT_WRITE):
            self.ready.modify(self.client, selectors.EVENT_WRITE if left else selectors.EVENT_READ, self)
        self.left = (file, offset, left)


if __name__ == "__main__":
    main()
