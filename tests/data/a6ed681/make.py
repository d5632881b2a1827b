"""Makes `fixture.tar.xz`: two datasets and a run, as the code at commit a6ed681 left them.

    git worktree add ../old a6ed681 && cd ../old && make lint      # its .venv
    .venv/bin/python .../tests/data/a6ed681/make.py fixture.tar.xz

Never made again with newer code: it stands for what is on the disks of those who used that version.

    films/                  the files that rows name: local ones, and those that were served as http://media.example/
    clips.csv, released.csv the annotations; a local path is relative
    root/                   a dataset of clips.csv, media kept
    released/               a dataset of released.csv, with --keep_media=no
    run/                    a training run on `root`, killed by SIGKILL after its first checkpoint
    metrics.jsonl           what the same run logged that nobody killed
"""

import contextlib
import http.server
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import imageio_ffmpeg

HOST = "http://media.example"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
BIN = pathlib.Path(sys.executable).parent
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "32k")
RUN = [
    *("data.seconds=0.4", "data.frames=2", "data.crop=16", "data.eval_split=test"),
    *("model.width=8", "model.depth=2", "model.heads=2", "model.mlp_dim=8", "model.fusion_layer=1"),
    *("model.stochastic_depth=0.5", "train.batch_size=4", "train.eval_batch_size=3", "train.steps=12"),
    *("train.log_every=1", "train.eval_every=4", "train.checkpoint_every=5"),
]


def film(path: pathlib.Path, picture: str, sound: str, *options: str, seconds: float = 0.6) -> None:
    """Writes a small film."""
    streams = [word for each in (picture, sound) if each for word in ("-f", "lavfi", "-i", each)]
    command = [FFMPEG, "-v", "error", "-y", *streams, "-t", str(seconds), *(options or X264), str(path)]
    subprocess.run(command, check=True)


def films(folder: pathlib.Path) -> None:
    """All that rows name."""
    folder.mkdir()
    for number in range(6):
        film(folder / f"film{number}.mp4", f"testsrc2=s={32 + 8 * number}x24:r=25", f"sine=f={300 + 150 * number}")
    film(folder / "film.webm", "testsrc=s=32x24:r=25", "sine=f=900", "-c:v", "libvpx-vp9", "-c:a", "libopus")
    # Of a long film only what the clip shows is kept.
    film(folder / "long.mp4", "testsrc2=s=32x24:r=5", "sine=f=700", *X264, "-g", "5", seconds=30)
    # One picture for the whole song: refused when it was fetched, since seeking leaves no picture.
    film(folder / "still.mp4", "testsrc2=s=32x24:r=1/10", "sine=f=500", *X264, seconds=6)
    film(folder / "silent.mp4", "testsrc2=s=32x24:r=25", "", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    # The size changes in the middle: refused when it was to be decoded.
    for name, size in (("one.ts", "32x24"), ("two.ts", "64x48")):
        film(folder / name, f"testsrc2=s={size}:r=25", "sine=f=600", *X264, "-g", "5", seconds=1)
    (folder / "grow.ts").write_bytes(b"".join((folder / name).read_bytes() for name in ("one.ts", "two.ts")))
    for name in ("one.ts", "two.ts"):
        (folder / name).unlink()
    (folder / "junk.mp4").write_bytes(b"no film at all " * 100)


def annotations(folder: pathlib.Path) -> None:
    """The two lists."""
    rows = [
        *(f"{HOST}/film{number}.mp4,0,0.6,{'ab'[number % 2]},train,web-{number}" for number in range(3)),
        f"{HOST}/film.webm,0,0.6,a,train,web-whole",
        f"{HOST}/long.mp4,25,25.6,b,train,web-cut",
        f"{HOST}/still.mp4,3,5,a,train,refused-at-fetch",
        "films/film3.mp4,0,0.6,b,train,local-3",
        "films/grow.ts,0,1.6,a,train,refused-at-decode",
        f"{HOST}/nowhere.mp4,0,1,a,train,gone",
        f"{HOST}/silent.mp4,0,0.6,a,train,unusable",
        "films/junk.mp4,0,1,b,test,junk",
        f"{HOST}/film4.mp4,0,0.6,a,test,test-4",
        f"{HOST}/film5.mp4,0,0.6,b,test,test-5",
        "films/film0.mp4,0,0.6,a,test,local-0",
    ]
    header = "video_path,start,end,label,split,id"
    (folder / "clips.csv").write_text("\n".join([header, *rows, ""]))
    (folder / "released.csv").write_text("\n".join([header, *rows[:3], ""]))


@contextlib.contextmanager
def proxy(folder: pathlib.Path):
    """A proxy that answers for every host, with the files of a folder; yields its URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(folder))

        def translate_path(self, path):
            return super().translate_path("/" + path.rpartition("/")[2])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def build(folder: pathlib.Path, name: str, url: str, root: str, *words: str) -> None:
    """Builds a dataset."""
    (folder / "proxies.txt").write_text(url + "\n")
    where = [f"--annotations={folder}/{name}.csv", f"--output={folder}/{root}", f"--proxies={folder}/proxies.txt"]
    subprocess.run([BIN / "mbt-data", "build", *where, "--name=small", "--num_shards=2", *words], check=True)
    (folder / "proxies.txt").unlink()


def train(folder: pathlib.Path, workdir: str) -> subprocess.Popen:
    """Starts a run."""
    keys = [f"--config.{key}" for key in (f"data.root={folder}/root", *RUN)]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_USE_LEGACY_KERAS": "1"}
    words = [BIN / "mbt-train", "train", "--config=demo", f"--workdir={folder}/{workdir}", *keys]
    return subprocess.Popen(words, env=environment)


def runs(folder: pathlib.Path) -> None:
    """A run to its end, and the same one killed."""
    assert train(folder, "whole").wait() == 0
    shutil.copy(folder / "whole" / "metrics.jsonl", folder / "metrics.jsonl")
    process, checkpoint = train(folder, "run"), folder / "run" / "checkpoints" / "5"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def main() -> None:
    """Makes the archive."""
    target = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        films(folder / "films")
        annotations(folder)
        with proxy(folder / "films") as url:
            build(folder, "clips", url, "root", "--snapshot=first")
            build(folder, "released", url, "released", "--snapshot=first", "--keep_media=no")
        runs(folder)
        with tarfile.open(target, "w:xz") as archive:
            for each in ("films", "clips.csv", "released.csv", "root", "released", "run", "metrics.jsonl"):
                archive.add(folder / each, arcname=each)


if __name__ == "__main__":
    main()
