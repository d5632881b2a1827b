"""Disks that fail on request: a library for LD_PRELOAD, compiled where there is a compiler, and file systems."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent / "campaigns" / "disk_faults.c"


def why_no_library() -> str:
    """Why `library` cannot be had here; "" where it can."""
    return "" if shutil.which("gcc") else "no gcc to compile the library for LD_PRELOAD with"


def why_no_mounts() -> str:
    """Why nothing can be mounted here; "" where it can."""
    if os.getuid() != 0:
        return "file systems are mounted by root alone"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "file systems cannot be mounted in this container"


def compiled(folder: Path) -> Path:
    """Compiles `disk_faults.c`."""
    made = folder / "disk_faults.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE), "-ldl"], check=True)
    return made


def environment(made: Path, path: Path, call: str, error: int, at: int = 0) -> dict[str, str]:
    """For a command whose `at`-th call (0: each) on a file below `path` is to fail."""
    faults = {"FAULT_PATH": str(path), "FAULT_CALL": call, "FAULT_ERRNO": str(error), "FAULT_AT": str(at)}
    return {"LD_PRELOAD": str(made), **faults}


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory, such as one of `size=300k`, or of `nr_inodes=25`."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    """Makes room on a `small_disk`."""
    subprocess.run(["mount", "-o", "remount,size=200m,nr_inodes=100000", str(folder)], check=True)
