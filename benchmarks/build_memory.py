"""Peak memory of `mbt-data build`, at 40 and at 400 clips of 10 s.

Peak resident memory of the command and, sampled 20 times a second, of its workers and ffmpeg processes together.

    python benchmarks/build_memory.py [--clips=40,400]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from build_cpu import generate, write_annotations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", default="40,400", help="(default: %(default)s)")
    counts = [int(word) for word in parser.parse_args().clips.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        media = generate(Path(folder) / "clip.mp4")
        peaks = [peak_mib(media, count, f"{folder}/{count}") for count in counts]
    for count, (command, family) in zip(counts, peaks, strict=True):
        print(
            f"{count:>6} clips: {command:.0f} MiB the command, {family:.0f} MiB with its workers and ffmpeg processes"
        )
    print(f"ratio {peaks[-1][0] / peaks[0][0]:.3f} (goal: at most 1.15, and under 1024 MiB per worker)")


def peak_mib(media: str, clips: int, output: str) -> tuple[float, float]:
    words = [f"--annotations={write_annotations(media, clips, output)}", f"--output={output}"]
    command = [sys.executable, "-m", "mbt.pipeline.main", "build", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own, family = 0, 0
    while process.poll() is None:
        sizes = list(resident(process.pid))
        own, family = max([own, *sizes[:1]]), max(family, sum(sizes))
        time.sleep(0.05)
    assert process.returncode == 0
    return own / (1 << 20), family / (1 << 20)


def resident(pid: int):
    try:
        root = psutil.Process(pid)
        yield root.memory_info().rss
        for process in root.children(recursive=True):
            # Between fork and exec a child shares its parent's memory, and must not be counted again.
            if process.cmdline() != root.cmdline():
                yield process.memory_info().rss
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main()
