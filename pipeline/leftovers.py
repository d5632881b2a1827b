"""Temporary files of this machine that hold media, under names that tell whose they are: who was killed left some.

Those of a command lie in its folder (see `scratch.py`); the trainer's, and those of older versions, beside it.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence

from mbt.pipeline import scratch
from mbt.schemas import durable

# Kinds that may hold media, or pictures of them.
KINDS = ("jpegs", "media", "predict", "spool")
_NAME = re.compile(rf"mbt-(?:{'|'.join(KINDS)})-(?:(\d+-\d+)-)?[a-z0-9_]{{8}}(?:\.\w+)?")
_OLD_S = 86_400.0  # what nobody knows of is nobody's after a day


def prefix(kind: str) -> str:
    """How the name of a temporary file or folder of this process begins."""
    assert kind in KINDS, kind
    return f"mbt-{kind}-{_namespace()}-{os.getpid()}-"


def find() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files and folders of this user that hold media: those that dead processes left, and those that may be in use."""
    left: list[str] = []
    used: list[str] = []
    for path, process, modified in _ours(scratch.machine_folder()):
        (used if _may_run(process, modified) else left).append(path)
    return tuple(sorted(left)), tuple(sorted([*used, *scratch.others()]))


def delete(paths: Sequence[str]) -> None:
    """Deletes files and folders, for good."""
    for path in paths:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    durable.flush_folders_of(paths)


def _ours(folder: str) -> Iterator[tuple[str, str, float]]:
    """What lies there under such names, each with the process that it names, or an empty string, and its time."""
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None or entry.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError):  # its process has just removed it
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.getuid():
                    yield entry.path, match[1] or "", status.st_mtime


def _may_run(process: str, modified: float) -> bool:
    """Whether the process of a file may still run: of one in another container that shares the folder nobody knows."""
    namespace, _, number = process.partition("-")
    if namespace != str(_namespace()):
        return time.time() - modified < _OLD_S
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, who took over the number
        pass
    return True


def _namespace() -> int:
    """In which the numbers of processes are unique."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
