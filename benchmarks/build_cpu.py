"""CPU seconds of a whole build per 10 s clip, beside a bare ffmpeg command that does the same decoding.

The bare command has the build's own flags and writes the JPEGs and the PCM to two files; the build adds fetching,
spectrogram, record, checksums, shard, index and snapshot, and its own start. As many bare commands run at a time as the
build runs, because two threads of one core slow each other down. They are interleaved with the builds, in one run of
this script, because machines are noisy.

    python benchmarks/build_cpu.py [--clips=200] [--media=FILE] [--before=../old/.venv/bin/python]
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from mbt.pipeline import decode, ffmpeg, runner

SECONDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200, help="clips in the build (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="builds (default: %(default)s)")
    parser.add_argument("--bare", type=int, default=10, help="bare commands a time and core (default: %(default)s)")
    parser.add_argument("--media", help="a file of at least 10 s (default: a generated one, 640 x 360 H.264 and AAC)")
    parser.add_argument("--before", help="the Python of another version of mbt-flax, whose builds alternate with these")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media = arguments.media or generate(Path(folder) / "clip.mp4")
        bare, builds, starts, ratios = [], [], [], []
        for round_number in range(arguments.rounds):
            bare.append(bare_cpu(media, folder, arguments.bare))
            starts.append(build_cpu(media, 1, f"{folder}/one-{round_number}") - bare[-1])
            builds.append(build_cpu(media, arguments.clips, f"{folder}/all-{round_number}") / arguments.clips)
            shutil.rmtree(f"{folder}/all-{round_number}")
            if arguments.before:
                before = build_cpu(media, arguments.clips, f"{folder}/before", python=arguments.before)
                ratios.append(builds[-1] * arguments.clips / before)
                shutil.rmtree(f"{folder}/before")
            bare.append(bare_cpu(media, folder, arguments.bare))
    per_clip, baseline = statistics.median(builds), statistics.median(bare)
    runs = f"median of {len(bare)} times {arguments.bare * runner.cores()}"
    print(f"bare ffmpeg, one pass, one thread: {baseline:.3f} CPU s per {SECONDS} s clip ({runs})")
    print(f"mbt-data build, start included:    {per_clip:.3f} CPU s per clip of {arguments.clips}")
    print(f"  of which start and end:          {statistics.median(starts) / arguments.clips:.3f}")
    print(f"ratio {per_clip / baseline:.3f} (goal: at most 1.15)")
    if ratios:
        print(f"against {arguments.before}: {statistics.median(ratios):.3f} of its CPU ({_listed(ratios)})")


def generate(path: Path) -> str:
    """A clip of pictures and sound that compress like real ones: moving texture with grain, and a sweep in noise."""
    picture = "mandelbrot=size=640x360:rate=30:maxiter=200,noise=alls=8:allf=t"
    sound = "aevalsrc=0.2*sin(2*PI*(200+80*t)*t)+0.1*(random(0)-0.5):s=44100"
    words = ["-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-t", str(SECONDS)]
    codecs = ["-c:v", "libx264", "-preset", "fast", "-crf", "26", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k"]
    subprocess.run([ffmpeg.executable(), *words, *codecs, str(path)], check=True)
    return str(path)


def bare_cpu(media: str, folder: str, rounds: int) -> float:
    """CPU seconds of one bare command, as many running at a time as there are cores."""
    words = decode.arguments(media, 0, SECONDS * 1_000_000)
    before, commands = _children_cpu(), 0
    for _ in range(rounds):
        running = []
        for slot in range(runner.cores()):
            targets = [f"{folder}/{slot}.{name}" for name in ("mjpeg", "pictures", "pcm", "sound")]
            command = [ffmpeg.executable(), "-y", *(word.format(*targets) for word in words)]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        commands += len(running)
        for process in running:
            assert process.wait() == 0
    return (_children_cpu() - before) / commands


def build_cpu(media: str, clips: int, output: str, python: str = sys.executable) -> float:
    """CPU seconds of a build from nothing."""
    words = [f"--annotations={write_annotations(media, clips, output)}", f"--output={output}"]
    return _cpu_of([python, "-m", "mbt.pipeline.main", "build", *words])


def write_annotations(media: str, clips: int, output: str) -> str:
    """A CSV that names the same file so many times."""
    annotations = f"{output}.csv"
    with open(annotations, "w", encoding="utf-8") as file:
        file.write("video_path,start,end,label,id\n")
        file.writelines(f"{os.path.abspath(media)},0,{SECONDS},label,{number}\n" for number in range(clips))
    return annotations


def _listed(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))


def _cpu_of(command: list[str]) -> float:
    before = _children_cpu()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _children_cpu() - before


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
