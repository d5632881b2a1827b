"""Checks the environment of a data worker: versions, ffmpeg, the JavaScript runtime, and no training library.

python check_worker.py worker.lock
"""

import importlib.util
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("apache-beam", "deno", "ffmpeg-python", "google-crc32c", "imageio-ffmpeg", "numpy", "pillow", "pyarrow")
NEVER_IN_A_WORKER = ("tensorflow", "jax", "flax")


def main(lock: str) -> None:
    """Ends with a message where something is amiss."""
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^ \\]+)", Path(lock).read_text(), re.MULTILINE))
    for package in PACKAGES:
        found = metadata.version(package)
        if found != pins[package]:
            sys.exit(f"{package} {found} is installed, and {lock} has {pins[package]}")
    for package in NEVER_IN_A_WORKER:
        if importlib.util.find_spec(package):
            sys.exit(f"{package} is installed, which a data worker does not need")
    from mbt.pipeline import canary, ffmpeg, youtube_process

    digest = canary.digest(ffmpeg.executable())
    runtime = subprocess.run([youtube_process.deno(), "--version"], check=True, capture_output=True, text=True).stdout
    print(f"ffmpeg {ffmpeg.version()}, canary {digest[:12]}, {runtime.splitlines()[0]}: ready")


if __name__ == "__main__":
    main(*sys.argv[1:])
