"""Real media for the tests: generated with the embedded ffmpeg, or the shared collection where it is there."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder; tests that need it are skipped without."""
    folder = Path(os.environ.get("MBT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "clips" / "index.csv").exists():
        pytest.skip(f"no shared data in {folder}: set MBT_SHARED_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def ffmpeg_program() -> str:
    from mbt.pipeline import ffmpeg

    return ffmpeg.executable()


@pytest.fixture(scope="session")
def make_media(ffmpeg_program):
    """make(path, ...) writes a real file with ffmpeg; None leaves a stream out."""

    def make(
        path: Path,
        *,
        seconds: float = 1.0,
        size: str = "64x48",
        rate: str = "25",
        video: str | None = "testsrc2",
        audio: str | None = "sine=frequency=440",
        options: tuple[str, ...] = (),
    ) -> Path:
        words: list[str] = []
        if video:
            words += ["-f", "lavfi", "-i", f"{video}=size={size}:rate={rate}" if "=" not in video else video]
        if audio:
            words += ["-f", "lavfi", "-i", audio]
        codecs = ["-pix_fmt", "yuv420p", *options]
        command = [ffmpeg_program, "-v", "error", "-y", "-bitexact", *words, "-t", str(seconds), *codecs, str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    return make


@pytest.fixture(scope="session")
def clip_folder(make_media, tmp_path_factory) -> Path:
    """Six clips of 1 s, `0.mp4` to `5.mp4`."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        make_media(
            folder / f"{number}.mp4", audio=f"sine=frequency={300 + 100 * number}", size=f"{64 + 16 * number}x48"
        )
    return folder


@pytest.fixture(scope="session")
def mbt_data():
    """Runs `mbt-data` as a process; returns it completed."""

    def run(*words: object, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).with_name("mbt-data")), *(str(word) for word in words)]
        environment = os.environ | (env or {})
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=500, **options
        )

    return run


@pytest.fixture(scope="session")
def write_csv():
    """Writes rows (dicts) as a CSV."""

    def write(path: Path, rows: list[dict]) -> Path:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def six_rows() -> list[dict]:
    """Rows for the six clips of `clip_folder`."""
    return [
        {
            "video_path": f"{number}.mp4",
            "start": 0,
            "end": 1,
            "label": "even;all" if number % 2 == 0 else "odd",
            "split": "train" if number < 4 else "test",
            "id": f"clip-{number}",
        }
        for number in range(6)
    ]
