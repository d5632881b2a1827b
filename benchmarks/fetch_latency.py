"""How much of what a server's latency allows `mbt-data fetch` reaches, probing included, and in how much memory.

A server that answers each request after 300 ms gives 8 / 0.3 clips a second to 8 requests at a time, and no more. The
bare baseline is that: 8 threads that download and do nothing else, against the same server in the same run.

python benchmarks/fetch_latency.py [--clips=500] [--latency=0.3] [--downloads=8]
"""

import argparse
import concurrent.futures
import http.server
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import requests

from mbt.pipeline import ffmpeg

MBT_DATA = str(Path(sys.executable).with_name("mbt-data"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.3, help="seconds (default: %(default)s)")
    parser.add_argument("--downloads", type=int, default=8, help="at a time (default: %(default)s)")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        body = clip(Path(folder) / "clip.mp4")
        ready, port = multiprocessing.Event(), multiprocessing.Value("i")
        server = multiprocessing.Process(target=serve, args=(body, known.latency, ready, port), daemon=True)
        server.start()
        ready.wait()
        url = f"http://127.0.0.1:{port.value}"
        bare = bare_rate(url, known.clips, known.downloads)
        fetched, memory_mib = fetch(Path(folder), url, known.clips, known.downloads)
        server.kill()
    ideal = known.downloads / known.latency
    print(f"latency allows {ideal:.1f} clips/s; bare downloads reached {bare:.1f}")
    print(
        f"mbt-data fetch, probing included: {fetched:.1f} clips/s, "
        f"{fetched / ideal:.2f} of what latency allows (goal: 0.80)"
    )
    half = len(memory_mib) // 2
    first, second = max(memory_mib[:half], default=0.0), max(memory_mib[half:])
    print(f"peak memory of all its processes: {first:.0f} MiB in the first half of the run, {second:.0f} in the second")


def clip(path: Path) -> bytes:
    """A film of 1 s."""
    sources = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-f", "lavfi", "-i", "sine"]
    command = [ffmpeg.executable(), "-v", "error", *sources, "-t", "1", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.read_bytes()


def serve(body: bytes, latency_s: float, ready, port) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            time.sleep(latency_s)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.value = server.server_port
    ready.set()
    server.serve_forever()


def bare_rate(url: str, clips: int, downloads: int) -> float:
    """Clips per second of threads that only download."""
    session = threading.local()

    def get(number: int) -> None:
        if not hasattr(session, "of_thread"):
            session.of_thread = requests.Session()
        session.of_thread.get(f"{url}/{number}.mp4", timeout=60).raise_for_status()

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(downloads) as pool:
        list(pool.map(get, range(clips)))
    return clips / (time.perf_counter() - started)


def fetch(folder: Path, url: str, clips: int, downloads: int) -> tuple[float, list[float]]:
    """Clips per second from the first attempt to the last, and what memory was used, ten times a second."""
    lines = ["video_path,start,end,label,id", *(f"{url}/{number}.mp4,0,1,a,{number}" for number in range(clips))]
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    words = ["fetch", f"--annotations={folder}/clips.csv", f"--output={folder}/out", f"--downloads={downloads}"]
    words += ["--allow_private_hosts"]
    process = subprocess.Popen([MBT_DATA, *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    done: list[bytes] = []
    reader = threading.Thread(target=lambda: done.append(process.communicate()[0]))
    reader.start()
    samples = []
    while reader.is_alive():
        samples.append(rss_mib(process.pid))
        time.sleep(0.1)
    reader.join()
    status = json.loads(done[0])
    assert status["splits"]["train"]["ok"] == clips, status
    return status["clips_per_second"], samples


def rss_mib(pid: int) -> float:
    total = 0
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / (1 << 20)


if __name__ == "__main__":
    main()
