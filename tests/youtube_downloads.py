"""What the tests of downloads from YouTube share: the video that most of them ask for, and checks."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from mbt.pipeline.outcomes import FetchError

ID = "aB-_567890x"
SECONDS = 12


def failure_of(run, *words, **options):
    """The failure, after which nothing may lie in the folder."""
    with pytest.raises(FetchError) as raised:
        run(*words, **options)
    assert os.listdir(run.folder) == []
    return raised.value.failure


def frames(ffmpeg_program: str, path: Path | str, stream: str = "v") -> list[tuple[int, str]]:
    """(microseconds after the file's zero, digest) of each decoded frame."""
    words = [ffmpeg_program, "-v", "error", "-i", str(path), "-map", f"0:{stream}", "-fps_mode", "passthrough"]
    words += ["-enc_time_base", "demux"]  # or the times of pictures were rounded to 1/25 s
    if stream == "a":
        words[-4:] = ["-c", "copy"]
    log = subprocess.run([*words, "-f", "framemd5", "-"], check=True, capture_output=True, text=True).stdout
    base = re.search(r"^#tb 0: (\d+)/(\d+)", log, re.MULTILINE)
    assert base is not None
    rows = [line.split(",") for line in log.splitlines() if not line.startswith("#")]
    return [(int(row[2]) * int(base[1]) * 1_000_000 // int(base[2]), row[5].strip()) for row in rows]
