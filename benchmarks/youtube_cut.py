"""A clip of a YouTube video: the whole video and a local cut, or only the clip by yt-dlp's `download_ranges`.

Against `tests/fake_youtube.py`, which adds a delay to each request and sends media at a limited rate; what is asked for
without an end comes at 32 KiB/s, as YouTube does it (https://github.com/yt-dlp/yt-dlp/issues/17612). The videos have
the bit rate of YouTube's 360p, in one file or in two. `WHOLE_UP_TO_S` of `pipeline/youtube_range.py` is chosen by it.

    python benchmarks/youtube_cut.py [--minutes=1,3,5,10,20] [--delay_ms=100] [--megabytes_per_second=4]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mbt.pipeline import ffmpeg, youtube, youtube_range

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fake_youtube import FakeYouTube, Video

CLIP_S = 10
UNBOUNDED_BYTES_PER_SECOND = 32 << 10
KILOBITS = 500  # picture and sound of a typical 360p file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", default="1,3,5,10,20", help="lengths of videos (default: %(default)s)")
    parser.add_argument("--delay_ms", type=int, default=100, help="added to each request (default: %(default)s)")
    parser.add_argument("--megabytes_per_second", type=float, default=4.0, help="of the media (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"a clip of {CLIP_S} s from the middle; {arguments.delay_ms} ms to each request,")
    print(f"media at {arguments.megabytes_per_second:g} MB/s; medians of {arguments.rounds}")
    print("minutes  files  way    wall s   CPU s  requests      MB")
    with tempfile.TemporaryDirectory() as folder:
        clip = generate(Path(folder) / "clip.mp4")
        for minutes in map(float, arguments.minutes.split(",")):
            together = repeat(clip, minutes * 60, Path(folder) / "18.mp4")
            for formats in ({18: together}, split(together)):
                video = Video(formats=formats, seconds=minutes * 60)
                for way in ("whole", "range"):
                    results = [measure(way, video, folder, arguments) for _ in range(arguments.rounds)]
                    wall_s, cpu_s, requests, sent = (statistics.median(column) for column in zip(*results, strict=True))
                    row = f"{wall_s:6.2f}  {cpu_s:6.2f}  {requests:8.0f}  {sent / 1e6:6.1f}"
                    print(f"{minutes:7g}  {len(formats):5}  {way}  {row}", flush=True)
    limit = youtube_range.WHOLE_UP_TO_S / 60
    print(f"goal: whole up to the length where it stops to cost less; the limit is set to {limit:g} minutes")


def generate(path: Path) -> Path:
    """Ten seconds of moving picture with a keyframe every 5 s, as YouTube sets them, at the wanted rate."""
    picture = f"mandelbrot=size=640x360:rate=25:maxiter=150,noise=alls=12:allf=t,trim=duration={CLIP_S}"
    words = ["-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "anoisesrc=a=0.05", "-t", str(CLIP_S)]
    rate = [
        "-b:v",
        f"{KILOBITS - 96}k",
        "-maxrate",
        f"{KILOBITS - 96}k",
        "-bufsize",
        "800k",
        "-b:a",
        "96k",
        "-g",
        "125",
    ]
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([ffmpeg.executable(), "-y", *words, *codecs, *rate, str(path)], check=True)
    return path


def repeat(clip: Path, seconds: float, path: Path) -> Path:
    """A film of that length, made of the clip again and again, with its index in front."""
    words = ["-v", "error", "-y", "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds), "-c", "copy"]
    subprocess.run([ffmpeg.executable(), *words, "-movflags", "+faststart", str(path)], check=True)
    return path


def split(together: Path) -> dict[int, Path]:
    """Picture and sound on their own, in fragments with an index in front, as YouTube has them."""
    paths = {134: together.with_name("134.mp4"), 140: together.with_name("140.mp4")}
    flags = ["-c", "copy", "-movflags", "dash+global_sidx+frag_keyframe+default_base_moof"]
    for stream, path in zip("va", paths.values(), strict=True):
        words = ["-v", "error", "-y", "-i", str(together), "-map", f"0:{stream}", *flags]
        subprocess.run([ffmpeg.executable(), *words, str(path)], check=True)
    return paths


def measure(way: str, video: Video, folder: str, arguments: argparse.Namespace) -> tuple[float, ...]:
    """(wall seconds, CPU seconds of yt-dlp and ffmpeg, requests, bytes) of one clip, the start of yt-dlp included."""
    rate = round(arguments.megabytes_per_second * 1e6)
    settings = youtube.Settings(ffmpeg=ffmpeg.executable(), download=way)
    middle_us = round(video.seconds / 2 * 1e6)
    span_us = (middle_us, middle_us + CLIP_S * 1_000_000)
    rates = {"bytes_per_second": rate, "unbounded_bytes_per_second": UNBOUNDED_BYTES_PER_SECOND}
    with FakeYouTube(default=video, delay_s=arguments.delay_ms / 1000, **rates) as fake:
        os.environ["SSL_CERT_FILE"] = fake.ca_file
        before, started = _children_cpu(), time.monotonic()
        done = youtube.download("measured000", span_us, folder, settings, fake.proxy_url)
        if way == "whole":
            cut(done, span_us, folder)
        wall_s = time.monotonic() - started
        youtube.close()  # its CPU time counts when it has ended
        os.remove(done.path)
        return wall_s, _children_cpu() - before, fake.requests(), fake.media_bytes


def cut(done: youtube.Downloaded, span_us: tuple[int, int], folder: str) -> None:
    """What keeps only the clip of a whole video."""
    start_s, length_s = span_us[0] / 1e6, (span_us[1] - span_us[0]) / 1e6
    words = ["-v", "error", "-y", "-ss", str(start_s), "-t", str(length_s), "-i", done.path, "-c", "copy"]
    subprocess.run([ffmpeg.executable(), *words, f"{folder}/cut.mp4"], check=True)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
