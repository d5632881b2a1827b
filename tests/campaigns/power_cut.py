"""A disk whose power can be cut: an ext4 image on a loop device, copied at a moment in which nothing writes to it."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_IMAGE_BYTES = 128 << 20
_QUIET_S = 0.02


class Disk:
    """A mounted image."""

    def __init__(self, image: Path, folder: Path, device: str):
        self._image = image
        self._device = Path(device).name
        self.folder = folder

    def cut(self, copy: Path) -> None:
        """Copies the image as it is without what the system has not written to it yet.

        Whoever writes to the file system should be stopped; where the system itself writes, the copy is made again.
        """
        while True:
            while self._stat()[1]:
                time.sleep(_QUIET_S)
            before = self._stat()
            subprocess.run(["cp", "--sparse=always", str(self._image), str(copy)], check=True)
            if self._stat() == before:
                return

    def _stat(self) -> tuple[int, int]:
        """How many writes were completed, and how many requests are under way."""
        fields = (Path("/sys/block") / self._device / "stat").read_text().split()
        return int(fields[4]), int(fields[8])


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A new disk, mounted in `folder`."""
    image = folder.with_suffix(".img")
    with open(image, "wb") as file:
        file.truncate(_IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)
    with mounted(image, folder) as device:
        yield Disk(image, folder, device)
    image.unlink()


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[str]:
    """Mounts an image, which replays its journal; yields the loop device."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    try:
        subprocess.run(["mount", "-t", "ext4", device, str(folder)], check=True)
        try:
            yield device
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def why_not() -> str:
    """Why there is no such disk here; "" where there is."""
    missing = [name for name in ("losetup", "mkfs.ext4") if not shutil.which(name)]
    return f"no {missing[0]} here" if missing else "" if os.path.exists("/dev/loop-control") else "no loop devices here"


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stops a process and all below it for the block."""
    tree: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    time.sleep(_QUIET_S)
    try:
        yield
    finally:
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
