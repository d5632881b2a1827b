"""What the files of a checkpoint were when they were written: Orbax reads other bits as other numbers.

CRC-32C finds every flipped bit, and every run of up to 32.
"""

import json
import pathlib

import google_crc32c

from mbt.schemas import own_json

FILE = "digests.json"
_MARK = "commit_success.txt"  # Orbax writes it afterwards
_PIECE_BYTES = 1 << 20


class DigestError(ValueError):
    """A file is not what it was."""


def write(folder: pathlib.Path) -> None:
    """Notes in a folder what all files below it are."""
    text = json.dumps({"crc32c": _of_files(folder)}, indent=1) + "\n"
    (folder / FILE).write_bytes(text.encode())


def check(folder: pathlib.Path) -> None:
    """Reads all files of a folder, where it was noted what they were; an older version did not do that.

    Raises:
      DigestError: naming the first that is damaged, missing or new.
      OSError: one cannot be read.
    """
    try:
        noted = own_json.parse((folder / FILE).read_bytes())
    except FileNotFoundError:
        return
    except ValueError as error:
        raise DigestError(f"{FILE} is not as it was written: {error}") from error
    before = noted.get("crc32c") if isinstance(noted, dict) else None
    if not isinstance(before, dict):
        raise DigestError(f"{FILE} is not as it was written")
    now = _of_files(folder)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise DigestError(f"{name} is {'not as it was written' if name in now else 'missing'}")


def _of_files(folder: pathlib.Path) -> dict[str, str]:
    """Size and checksum of each file by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (FILE, _MARK))
    return {path.relative_to(folder).as_posix(): _of(path) for path in paths}


def _of(path: pathlib.Path) -> str:
    checksum = google_crc32c.Checksum()
    size = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            checksum.update(piece)
            size += len(piece)
    return f"{size}:{checksum.digest().hex()}"
