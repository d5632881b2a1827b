"""Whether `mbt-data plan` says beforehand what `mbt-data build` then takes: CPU time and bytes, of 2,000 clips.

Clips of 1 to 2 s of 20 films that differ in size, and in how well they compress. CPU time is that of the whole command,
with its children.

python benchmarks/plan.py [--clips=2000] [--sample=48]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from refresh import DISTINCT, write

from mbt.pipeline import ffmpeg

MBT_DATA = str(Path(sys.executable).with_name("mbt-data"))
PICTURES = (
    "testsrc2=size=320x240:rate=25",
    "mandelbrot=size=640x360:rate=30:maxiter=200,noise=alls=8:allf=t",
    "smptebars=size=480x360:rate=25",
    "life=size=160x120:rate=25:mold=10",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--sample", type=int, default=48, help="clips that the plan measures (default: %(default)s)")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = [film(folder / f"film{number}.mp4", number).read_bytes() for number in range(DISTINCT)]
        (folder / "videos").mkdir()
        for number in range(known.clips):
            (folder / "videos" / f"{number}.mp4").write_bytes(films[number % DISTINCT])
        write(folder, known.clips)
        words = [f"--annotations={folder}/clips.csv", f"--media_root={folder}/videos", f"--output={folder}/out"]
        planning_s, printed = run("plan", *words, f"--sample={known.sample}")
        building_s, _ = run("build", *words)
        shards, indices = (
            [path.stat().st_size for path in (folder / "out" / "shards").glob(f"*.{suffix}")]
            for suffix in ("tfrecord", "index")
        )
    planned = {name: line["value"] for name, line in printed["building"].items()}
    taken = {"CPU": building_s, "shard_bytes": sum(shards), "index_bytes": sum(indices), "shards": len(shards)}
    for name, value in taken.items():
        ratio = planned[name] / value
        print(f"{name}: planned {planned[name]:,.0f}, taken {value:,.0f}: ratio {ratio:.3f} (goal: 0.75 to 1.25)")
    print(f"the plan itself took {planning_s:.1f} CPU s")


def film(path: Path, number: int) -> Path:
    """1 to 2 s of one of the pictures, and a tone."""
    seconds, picture = 1 + number / DISTINCT, PICTURES[number % len(PICTURES)]
    words = ["-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine=frequency={300 + number}"]
    command = [ffmpeg.executable(), *words, "-t", f"{seconds:.2f}", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def run(*words: str) -> tuple[float, dict]:
    """CPU seconds of a command with all its children, and what it printed."""
    before = cpu_s()
    done = subprocess.run([MBT_DATA, *words, "--json"], check=True, capture_output=True)
    return cpu_s() - before, json.loads(done.stdout)


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
