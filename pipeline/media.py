"""The media store: a file per clip, named by what it was fetched for and by what is in it, never changed.

`media/<2 hex>/<hash of source and span>-<digest>.<ext>`; hexadecimal, so that letter case cannot matter. The name alone
tells what a file is: media whose ledger row was lost with a killed worker are found again by it. So a cut, whose time
zero is another than its source's, says that in its name too, and by which version of the rule it was cut:
`<hash>-<digest>-<microseconds>r<rule>.<ext>`; without a rule in older names. A cut that begins with its source has no
such time, and nothing was sought for it: it counts as whole.
"""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator

from mbt.pipeline import disk, storage

FOLDER = "media"
CUT_RULE = 2  # version of the rule by which parts are cut out of sources
_FIRST_CUT_RULE = 1  # whose names do not say it; 9 % of its cuts of awkward films gave other pictures or sound
_KEY_DIGITS = 24
_DIGEST_DIGITS = 12
_NAME = re.compile(rf"([0-9a-f]{{{_KEY_DIGITS}}})-[0-9a-f]{{{_DIGEST_DIGITS}}}(?:-(-?\d+)(?:r(\d+))?)?\.\w+")
_CHUNK_BYTES = 1 << 20


def key(source: str, start_us: int, end_us: int) -> str:
    """The part of the name that a clip's row decides."""
    return hashlib.sha256(f"{source}\0{start_us}\0{end_us}".encode()).hexdigest()[:_KEY_DIGITS]


def name(clip_key: str, digest: str, start_us: int, extension: str) -> str:
    """The path of a clip's media, relative to ROOT; `start_us` is the time of the source that is their zero."""
    suffix = extension if extension.isalnum() and extension.isascii() and len(extension) <= 5 else "bin"
    start = f"-{start_us}r{CUT_RULE}" if start_us else ""
    return f"{FOLDER}/{clip_key[:2]}/{clip_key}-{digest[:_DIGEST_DIGITS]}{start}.{suffix.lower()}"


def start_of(path: str) -> int:
    """Which time of the source is time zero of stored media, in microseconds."""
    match = _NAME.fullmatch(os.path.basename(path))
    return int(match[2] or 0) if match else 0


def is_old_cut(path: str) -> bool:
    """Whether stored media were cut out of their source by an older rule, which erred for some films."""
    match = _NAME.fullmatch(os.path.basename(path))
    return match is not None and match[2] is not None and int(match[3] or _FIRST_CUT_RULE) < CUT_RULE


def listing(root: str) -> dict[str, str]:
    """Everything in the store: key to the path relative to ROOT; of two, that which no older rule cut."""
    found: dict[str, str] = {}
    for key_, path in _stored(root):
        if key_ not in found or not is_old_cut(path):
            found[key_] = path
    return found


def replaced(root: str) -> list[str]:
    """What older rules cut, and what is there as the rule of today gives it: paths relative to ROOT."""
    newest = listing(root)
    return [path for key_, path in _stored(root) if is_old_cut(path) and not is_old_cut(newest[key_])]


def _stored(root: str) -> Iterator[tuple[str, str]]:
    folder = storage.join(root, FOLDER)
    for inner in storage.folders(folder):
        for file in storage.sizes(storage.join(folder, inner)):
            if match := _NAME.fullmatch(file):
                yield match[1], f"{FOLDER}/{inner}/{file}"


def digest_of(path: str) -> tuple[str, int]:
    """SHA-256, hexadecimal, and size of a file, here or on an object store."""
    digest, size = hashlib.sha256(), 0
    with storage.open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def store(root: str, name: str, path: str, *, keep: bool) -> None:
    """Puts a local file into the store; `keep` leaves it where it is too, for the next clip that is in it."""
    final = storage.join(root, name)
    if storage.exists(final):  # of a worker that may have been killed before it made sure that it stays
        storage.flush_folder(os.path.dirname(final))
        return
    storage.upload(_duplicate(path) if keep else path, final)


def _duplicate(path: str) -> str:
    duplicate = f"{path}.{uuid.uuid4().hex}"
    try:
        os.link(path, duplicate)
    except OSError:  # a file system without links
        with disk.naming(duplicate):
            shutil.copyfile(path, duplicate)
    return duplicate


def is_whole(path: str, digest: str) -> bool:
    """Whether the content of stored media is what their name says."""
    return os.path.basename(path).partition("-")[2].startswith(digest[:_DIGEST_DIGITS])
