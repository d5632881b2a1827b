"""`mbt-data verify` reads the media store too: what was fetched is what lies there."""

import shutil
from pathlib import Path

import pytest
from media_server import PRIVATE, serving

from mbt.pipeline.verify import Report, VerifyOptions, verify

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def built(mbt_data, write_csv, clip_folder, tmp_path_factory) -> Path:
    """Three clips that were fetched."""
    folder = tmp_path_factory.mktemp("stored")
    with serving() as server:
        for number, name in enumerate(NAMES):
            server.files[f"{name}.mp4"] = (clip_folder / f"{number}.mp4").read_bytes()
        rows = [
            {"video_path": f"{server.url}/{name}.mp4", "start": 0, "end": 1, "label": "a", "id": name} for name in NAMES
        ]
        write_csv(folder / "clips.csv", rows)
        words = [f"--annotations={folder}/clips.csv", f"--output={folder}/out", PRIVATE]
        done = mbt_data("build", *words, "--num_shards=1")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def root(built, tmp_path) -> Path:
    return Path(shutil.copytree(built / "out", tmp_path / "out"))


def stored(root: Path) -> list[Path]:
    return sorted((root / "media").rglob("*.mp4"))


def check(root: Path, **options) -> Report:
    return verify(VerifyOptions(root=str(root), threads=2, **options))


def test_every_file_is_read(root):
    report = check(root)
    assert (report.problems, report.num_media) == ((), 3)
    assert report.bytes == sum(path.stat().st_size for path in [*stored(root), *root.glob("shards/*.tfrecord")])
    assert check(root, media=False).num_media == 0


def test_a_flipped_byte_is_named(root, mbt_data):
    path = stored(root)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (problem,) = check(root).problems
    assert problem.file == str(path.relative_to(root)) and len(problem.clips) == 1 and problem.clips[0] in NAMES
    done = mbt_data("verify", f"--output={root}")
    assert done.returncode == 1 and "the next build fetches it again" in done.stdout
    assert mbt_data("verify", f"--output={root}", "--media=no").returncode == 0


def test_missing_files_are_one_problem(root):
    for path in stored(root)[:2]:
        path.unlink()
    (problem,) = check(root).problems
    assert problem.file == "media" and len(problem.clips) == 2


def test_media_that_a_build_deleted_are_not_missed(root, built, mbt_data):
    words = [f"--annotations={built}/clips.csv", f"--output={root}", "--keep_media=no"]
    assert mbt_data("build", *words).returncode == 0
    assert not stored(root) and check(root).problems == ()
