"""The snapshots of a dataset as a reader finds them: by name, in their order, with their clip rows."""

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mbt.pipeline import snapshot, storage
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.snapshot import FOLDER
from mbt.pipeline.terminal import shown
from mbt.schemas import lineage
from mbt.schemas.manifest import CLIPS_FILE, MANIFEST_FILE, FormatError, Manifest

_LATEST = re.compile(r"latest(?:~(\d+))?")
_ROWS_AT_A_TIME = 65_536


class CatalogueError(RefusedError):
    """There is no such dataset or snapshot, or it is damaged; the message says which are there."""


def snapshots(root: str) -> list[Manifest]:
    """All complete snapshots, the oldest first.

    Raises:
      CatalogueError: there is none, or a manifest is damaged.
    """
    names = storage.folders(storage.join(root, FOLDER))
    found = [manifest for name in names if (manifest := _manifest(root, name)) is not None]
    if not found:
        raise CatalogueError(
            f"--output={root}: no snapshot there; `mbt-data build --output={root}` makes one when it comes to its end"
        )
    return lineage.in_order(found)


def find(known: Sequence[Manifest], name: str) -> Manifest:
    """A snapshot by name; `latest` is the newest, `latest~2` the second before it.

    Args:
      known: what `snapshots` returned.
      name: as the user gave it.

    Raises:
      CatalogueError: there is none of that name.
    """
    by_name = {manifest.snapshot: manifest for manifest in known}
    if name in by_name:
        return by_name[name]
    if (match := _LATEST.fullmatch(name)) and (before := int(match[1] or 0)) < len(known):
        return known[-1 - before]
    names = ", ".join(shown(name) for name in list(by_name)[-10:])
    raise CatalogueError(f"no snapshot {name!r}; there are {len(by_name)}, the newest last: {names}")


def clip_batches(root: str, manifest: Manifest, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a clip table, some columns of them, a bounded number at a time.

    Raises:
      CatalogueError: the table is missing or damaged.
    """
    path = clips_path(root, manifest)
    try:
        with storage.open_file(path) as file, pq.ParquetFile(file) as table:
            yield from table.iter_batches(_ROWS_AT_A_TIME, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise CatalogueError(f"{path} cannot be read: {error}") from error


def clip_table(root: str, manifest: Manifest, columns: Sequence[str]) -> pa.Table:
    """Some columns of all rows of a clip table; raises as `clip_batches`."""
    return pa.Table.from_batches(clip_batches(root, manifest, columns))


def clips_path(root: str, manifest: Manifest) -> str:
    """Where the clip table of a snapshot lies."""
    return storage.join(root, FOLDER, manifest.snapshot, CLIPS_FILE)


def _manifest(root: str, name: str) -> Manifest | None:
    try:
        return snapshot.read(root, name)
    except FormatError as error:
        raise CatalogueError(f"{storage.join(root, FOLDER, name, MANIFEST_FILE)}: {error}") from error
