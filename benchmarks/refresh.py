"""What a refresh costs of which 1 % changed, against a build from nothing of the same state.

Clips of 1 to 2 s; a changed one has other media. The baseline is the same command on an empty folder, in the same run.

python benchmarks/refresh.py [--clips=2000] [--shards=256] [--changed=0.01]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mbt.pipeline import ffmpeg

MBT_DATA = str(Path(sys.executable).with_name("mbt-data"))
DISTINCT = 20  # films; a clip is a copy of one of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--shards", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--changed", type=float, default=0.01, help="share of the clips (default: %(default)s)")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = [film(folder / f"film{number}.mp4", number) for number in range(DISTINCT)]
        (folder / "videos").mkdir()
        for number in range(known.clips):
            (folder / "videos" / f"{number}.mp4").write_bytes(films[number % DISTINCT].read_bytes())
        write(folder, known.clips)
        first, _ = build(folder, "out", known.shards)
        before = {path.name for path in (folder / "out" / "shards").iterdir()}
        changed = max(1, round(known.changed * known.clips))
        for number in range(0, known.clips, known.clips // changed)[:changed]:
            (folder / "videos" / f"{number}.mp4").write_bytes(films[(number + 1) % DISTINCT].read_bytes())
        seconds, result = build(folder, "out", known.shards, "refresh", "--older_than=0s")
        anew, _ = build(folder, "anew", known.shards)
        written = {path for path in (folder / "out" / "shards").iterdir() if path.name not in before}
        same = {path.name: path.read_bytes() for path in written} == {
            path.name: path.read_bytes() for path in (folder / "anew" / "shards").iterdir() if path.name not in before
        }
    print(f"{known.clips} clips in {known.shards} shards: built in {first:.1f} s, from nothing again in {anew:.1f} s")
    print(f"{changed} clips changed: refreshed in {seconds:.1f} s = {seconds / anew:.3f} of a build (goal: under 0.1)")
    print("clips decoded: {clips_decoded}, copied: {clips_copied}; shards written: {shards_built}".format(**result))
    print(f"the files written equal those of the build from nothing: {same}")


def film(path: Path, number: int) -> Path:
    """1 to 2 s of moving bars and a tone."""
    seconds = 1 + number / DISTINCT
    sources = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=25",
        "-f",
        "lavfi",
        "-i",
        f"sine=frequency={300 + number}",
    ]
    command = [ffmpeg.executable(), "-v", "error", *sources, "-t", f"{seconds:.2f}", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def write(folder: Path, clips: int) -> None:
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_path", "start", "end", "label"])
        writer.writerows([f"{number}.mp4", 0, 1 + number % DISTINCT / DISTINCT, "a"] for number in range(clips))


def build(folder: Path, output: str, shards: int, command: str = "build", *more: str) -> tuple[float, dict]:
    """Seconds, and what the command said."""
    words = [f"--annotations={folder}/clips.csv", f"--media_root={folder}/videos", f"--output={folder}/{output}"]
    started = time.perf_counter()
    done = subprocess.run(
        [MBT_DATA, command, *words, f"--num_shards={shards}", "--json", *more], check=True, capture_output=True
    )
    return time.perf_counter() - started, json.loads(done.stdout)


if __name__ == "__main__":
    main()
