"""What the campaign on disks does again and again: a dataset over http, commands on it, and what they must leave."""

import contextlib
import csv
import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import google_crc32c
import pyarrow.parquet as pq

from mbt.pipeline import ffmpeg, ledger, media, shard_file, snapshot, storage
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))
from media_server import MediaServer, serving

CLIPS = 24
LATER = 4  # clips that only the second list has
_SHARDS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lists:
    """Two lists of clips on a server, and clips to purge."""

    first: Path
    second: Path
    purged: Path
    server: MediaServer


@contextlib.contextmanager
def lists(folder: Path, clips: int = CLIPS) -> Iterator[Lists]:
    """Films of 2 s, so many in the first list, served as long as the block lasts."""
    with serving() as server:
        for number in range(clips + LATER):
            server.files[f"{number}.mp4"] = _film(folder / "film.mp4", number)
        server.latency_s = 0.2
        names = [f"clip-{number}" for number in range(clips + LATER)]
        _write(folder / "first.csv", server, names[:clips], "a")
        _write(folder / "second.csv", server, names, "b")
        (folder / "purged.txt").write_text(f"{names[1]}\n{names[7]}\n")
        yield Lists(
            first=folder / "first.csv", second=folder / "second.csv", purged=folder / "purged.txt", server=server
        )


def _film(path: Path, number: int) -> bytes:
    sources = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25"]
    sources += ["-f", "lavfi", "-i", f"sine=frequency={300 + 20 * number}"]
    words = [ffmpeg.executable(), "-v", "error", "-y", "-bitexact", *sources, "-t", "2", "-pix_fmt", "yuv420p"]
    subprocess.run([*words, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path.read_bytes()


def _write(path: Path, server: MediaServer, names: list[str], label: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["video_path", "start", "end", "label", "split", "id"])
        for number, name in enumerate(names):
            rows.writerow([f"{server.url}/{number}.mp4", 0, 2, label if number % 3 == 0 else "a", "train", name])


def words(command: str, clips: Lists, root: Path) -> list[str]:
    """The command line of a step."""
    if command == "purge":
        return ["purge", f"--output={root}", f"--clips={clips.purged}", "--reason=campaign", "--yes"]
    of = clips.second if command == "refresh" else clips.first
    line = [command, f"--annotations={of}", f"--output={root}", "--name=campaign", "--allow_private_hosts"]
    line += [] if command == "fetch" else [f"--num_shards={_SHARDS}", "--keep_media=no"]
    return [*line, *(["--older_than=0s"] if command == "refresh" else [])]


def start(line: list[str], env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Starts `mbt-data`."""
    program = Path(sys.executable).with_name("mbt-data")
    environment = {**os.environ, **(env or {})}
    return subprocess.Popen([str(program), *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def run(line: list[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Runs `mbt-data` to its end; its status and what it said."""
    process = start(line, env)
    said, _ = process.communicate(timeout=600)
    return process.returncode, said.decode(errors="replace")


def shards(root: Path) -> dict[str, str]:
    """The shards and indices of the newest snapshot: name to digest."""
    manifest = snapshot.latest(str(root))
    if manifest is None:
        return {}
    found = [path for split in manifest.splits.values() for one in split.shards for path in (one.path, one.index_path)]
    return {path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path in found}


def tree(root: Path) -> dict[str, str]:
    """All files of a dataset but the temporary ones: path to digest."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] != "tmp" and not path.name.startswith(".writer")
    }


def wrongly_settled(root: Path) -> list[str]:
    """Clips that the ledger has another word on than that they were fetched, or that they are to be tried again."""
    fine = (Outcome.OK, Outcome.TRANSIENT, Outcome.NOT_TRIED)
    return [row["clip_id"] for row in ledger.state(str(root)).to_pylist() if row["outcome"] not in fine]


def not_whole(root: Path) -> list[str]:
    """Files that have their final names and are not what these promise."""
    return [path for path in tree(root) if not path.endswith(storage.PART) and not _is_whole(root, path)]


def _is_whole(root: Path, path: str) -> bool:
    data = (root / path).read_bytes()
    top = path.partition("/")[0]
    try:
        if top == media.FOLDER:
            return media.is_whole(path, hashlib.sha256(data).hexdigest())
        if path.endswith(".parquet"):
            pq.read_table(root / path)
        if path == "dataset.json":
            Dataset.from_json(data.decode())
        if path.endswith(".index"):
            index = shard_file.existing(str(root), shard_file.stem_of(path))
            shard = (root / path).with_suffix(".tfrecord").read_bytes()
            return index is not None and google_crc32c.value(shard) == index.shard_crc32c
    except (ValueError, OSError):
        return False
    return bool(data) or path.endswith(".tfrecord")


@contextlib.contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A folder for the block."""
    with tempfile.TemporaryDirectory(prefix=prefix) as made:
        yield Path(made)
