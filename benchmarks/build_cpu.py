"""CPU seconds of a whole build per 10 s clip, beside a bare ffmpeg command that does the same decoding.

The bare command has the build's own flags and throws its output away; the build adds fetching, spectrogram, record,
checksums, shard, index and snapshot, and its own start. Bare runs are interleaved with builds, in one run of this
script, because machines are noisy.

    python benchmarks/build_cpu.py [--clips=100] [--media=FILE]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from mbt.pipeline import decode, ffmpeg

SECONDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100, help="clips in the build (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="builds (default: %(default)s)")
    parser.add_argument("--media", help="a file of at least 10 s (default: a generated one, 640 x 360 H.264 and AAC)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media = arguments.media or generate(Path(folder) / "clip.mp4")
        bare, builds, starts = [], [], []
        for round_number in range(arguments.rounds):
            bare += [bare_cpu(media) for _ in range(10)]
            starts.append(build_cpu(media, 1, f"{folder}/one-{round_number}") - bare[-1])
            builds.append(build_cpu(media, arguments.clips, f"{folder}/all-{round_number}") / arguments.clips)
            bare += [bare_cpu(media) for _ in range(10)]
    per_clip, baseline = statistics.median(builds), statistics.median(bare)
    print(f"bare ffmpeg, one pass, one thread: {baseline:.3f} CPU s per {SECONDS} s clip (median of {len(bare)})")
    print(f"mbt-data build of {arguments.clips} clips:    {per_clip:.3f} CPU s per clip, start included (median of {len(builds)})")
    print(f"  of which start and end:          {statistics.median(starts) / arguments.clips:.3f}")
    print(f"ratio {per_clip / baseline:.3f} (goal: at most 1.15)")


def generate(path: Path) -> str:
    """A clip of pictures and sound that compress like real ones: moving texture with grain, and a sweep in noise."""
    picture = "mandelbrot=size=640x360:rate=30:maxiter=200,noise=alls=8:allf=t"
    sound = "aevalsrc=0.2*sin(2*PI*(200+80*t)*t)+0.1*(random(0)-0.5):s=44100"
    words = ["-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-t", str(SECONDS)]
    codecs = ["-c:v", "libx264", "-preset", "fast", "-crf", "26", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k"]
    subprocess.run([ffmpeg.executable(), *words, *codecs, str(path)], check=True)
    return str(path)


def bare_cpu(media: str) -> float:
    words = decode.arguments(media, 0, SECONDS * 1_000_000)
    command = [ffmpeg.executable(), "-y", *(word.format("/dev/null", "/dev/null") for word in words)]
    return _cpu_of(command)


def build_cpu(media: str, clips: int, output: str) -> float:
    annotations = f"{output}.csv"
    with open(annotations, "w", encoding="utf-8") as file:
        file.write("video_path,start,end,label,id\n")
        file.writelines(f"{os.path.abspath(media)},0,{SECONDS},label,{number}\n" for number in range(clips))
    return _cpu_of(
        [sys.executable, "-m", "mbt.pipeline.main", "build", f"--annotations={annotations}", f"--output={output}"]
    )


def _cpu_of(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
