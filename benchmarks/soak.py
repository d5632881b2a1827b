"""Whether a build of ten times the clips costs ten times the work and no more memory: time per clip, and peak memory.

Clips of 1 s, small, so that what the pipeline does with a clip weighs more than decoding it. Each clip is a file of its
own name, a hard link to one of 20 films: every one is read, digested, decoded and encoded. Where other work shares the
cores, only CPU time says something. `make soak` runs it; it takes ten minutes of two cores.

python benchmarks/soak.py [--clips=2000,20000] [--folder=DIR]
"""

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from build_memory import resident

from mbt.pipeline import ffmpeg

MBT_DATA = str(Path(sys.executable).with_name("mbt-data"))
DISTINCT = 20  # films; a file system allows a file some ten thousand links
SAMPLES_EVERY_S = 0.25  # looking at all processes takes a few milliseconds


@dataclass(frozen=True)
class Cost:
    """Of one build: seconds by the clock and of CPU, and peak MiB of the command and of it with all its children."""

    clips: int
    wall_s: float
    cpu_s: float
    own_mib: float
    family_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="2000,20000", help="a small and a large number (default: %(default)s)")
    parser.add_argument("--folder", help="where to work: the large one takes 0.3 MB a clip (default: a temporary one)")
    known = parser.parse_args()
    counts = [int(word) for word in known.clips.split(",")]
    with tempfile.TemporaryDirectory(dir=known.folder) as name:
        films = [film(Path(name) / f"film{number}.mp4", number) for number in range(DISTINCT)]
        costs = [build(Path(name) / str(count), films, count) for count in counts]
    small, large = costs[0], costs[-1]
    more = (large.cpu_s - small.cpu_s) / (large.clips - small.clips)
    print(f"CPU of each further clip, start left out: {1000 * more:.1f} ms")
    for what, ratio in (
        ("CPU time per clip", large.cpu_s / large.clips / (small.cpu_s / small.clips)),
        ("time per clip by the clock", large.wall_s / large.clips / (small.wall_s / small.clips)),
        ("peak memory of the command", large.own_mib / small.own_mib),
        ("peak memory with its ffmpeg processes", large.family_mib / small.family_mib),
    ):
        print(f"{what}, {large.clips} against {small.clips} clips: {ratio:.3f} (goal: at most 1.10)")


def film(path: Path, number: int) -> Path:
    """1 s of moving bars and a tone."""
    picture, sound = "testsrc2=size=160x120:rate=25", f"sine=frequency={300 + 20 * number}"
    words = ["-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-t", "1", "-pix_fmt", "yuv420p"]
    subprocess.run([ffmpeg.executable(), *words, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


def build(folder: Path, films: list[Path], clips: int) -> Cost:
    """What a build from nothing takes."""
    (folder / "videos").mkdir(parents=True)
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_path", "start", "end", "label"])
        for number in range(clips):
            os.link(films[number % len(films)], folder / "videos" / f"{number}.mp4")
            writer.writerow([f"{number}.mp4", 0, 1, f"class {number % 100}"])
    words = [f"--annotations={folder}/clips.csv", f"--media_root={folder}/videos", f"--output={folder}/out"]
    started, before = time.perf_counter(), children_cpu_s()
    process = subprocess.Popen([MBT_DATA, "build", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own, family = 0, 0
    while process.poll() is None:
        sizes = list(resident(process.pid))
        own, family = max([own, *sizes[:1]]), max(family, sum(sizes))
        time.sleep(SAMPLES_EVERY_S)
    assert process.returncode == 0
    cost = Cost(clips, time.perf_counter() - started, children_cpu_s() - before, own / (1 << 20), family / (1 << 20))
    shutil.rmtree(folder)
    print(
        f"{clips} clips: {cost.wall_s:.0f} s, {1000 * cost.wall_s / clips:.1f} ms a clip by the clock and "
        f"{1000 * cost.cpu_s / clips:.1f} ms of CPU; peak {cost.own_mib:.0f} MiB the command, "
        f"{cost.family_mib:.0f} MiB with its ffmpeg processes",
        flush=True,
    )
    return cost


def children_cpu_s() -> float:
    """Of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
