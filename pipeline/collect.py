"""`mbt-data gc`: deletes what no snapshot needs: shards that none names, and what killed runs left."""

import dataclasses
import json
import time
from collections.abc import Iterator

from mbt.pipeline import dataset as datasets
from mbt.pipeline import snapshot, storage, writer
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.shard_file import FOLDER as SHARDS
from mbt.schemas.manifest import MANIFEST_FILE, FormatError

_TMP = "tmp"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GcOptions:
    """What `mbt-data gc` was told.

    Attributes:
      root: of the dataset.
      older_than_s: files that were changed since are left alone.
      delete: False to say only what would be deleted.
      take_over: from a writer that crashed.
    """

    root: str
    older_than_s: float
    delete: bool
    take_over: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Garbage:
    """Files that nothing needs: paths relative to ROOT, with their sizes, by what they are."""

    shards: dict[str, int]
    unfinished: dict[str, int]
    temporary: dict[str, int]
    uploads: dict[str, int]  # parts of what was to be a file, kept by a store
    kept: int  # files that are too young

    def __len__(self) -> int:
        return len(self.paths) + len(self.uploads)

    @property
    def paths(self) -> dict[str, int]:
        """All that are files; an index before its shard, which is not there without."""
        return dict(sorted(self.shards.items())) | self.unfinished | self.temporary


def collect(options: GcOptions) -> Garbage:
    """Finds what no snapshot needs, and deletes it if asked to.

    Raises:
      RefusedError: no dataset, another writer, or a snapshot that cannot be read, so that nobody knows what it needs.
    """
    root = options.root
    try:
        if datasets.read(root) is None:
            raise RefusedError(f"--output={root} holds no dataset")
        with writer.hold(root, take_over=options.take_over):
            before = time.time() - options.older_than_s
            found = _find(root, before)
            if options.delete:
                _delete(root, list(found.paths))
                storage.abort_uploads(root, before)
    except (datasets.DatasetError, writer.WriterError) as error:
        raise RefusedError(str(error)) from error
    return found


def _delete(root: str, paths: list[str]) -> None:
    """Indices go first: a shard is there when its index is."""
    indices = [path for path in paths if path.endswith(".index")]
    rest = [path for path in paths if not path.endswith(".index")]
    for some in (indices, rest):
        storage.delete(*(storage.join(root, path) for path in some))


def _find(root: str, before: float) -> Garbage:
    needed = set(needed_files(root))
    finished = {path.rpartition("/")[0] for path in needed if path.endswith(f"/{MANIFEST_FILE}")}
    kinds: dict[str, dict[str, int]] = {"shards": {}, "unfinished": {}, "temporary": {}}
    kept = 0
    for file in storage.files(root):
        kind = _kind(file.path, finished)
        if kind is None or file.path in needed:
            continue
        if file.modified >= before:
            kept += 1
        else:
            kinds[kind][file.path] = file.bytes
    uploads = {file.path: file.bytes for file in storage.unfinished_uploads(root) if file.modified < before}
    return Garbage(**kinds, uploads=uploads, kept=kept)


def _kind(path: str, finished: set[str]) -> str | None:
    """What a file is, if it is of a kind that can be garbage."""
    top = path.partition("/")[0]
    if top == _TMP or path.endswith(storage.PART):
        return "temporary"
    if top == SHARDS:
        return "shards"
    folder = "/".join(path.split("/")[:2])
    return "unfinished" if top == snapshot.FOLDER and folder not in finished and path != top else None


def needed_files(root: str) -> Iterator[str]:
    """What the finished snapshots name, with their manifests; relative to ROOT.

    Raises:
      RefusedError: one of them cannot be read.
    """
    for name in storage.folders(storage.join(root, snapshot.FOLDER)):
        try:
            manifest = snapshot.read(root, name)
        except FormatError as error:
            raise RefusedError(f"snapshot {name} cannot be read, so what it needs is not known: {error}") from error
        if manifest is not None:
            yield f"{snapshot.FOLDER}/{name}/{MANIFEST_FILE}"
            for split in manifest.splits.values():
                for shard in split.shards:
                    yield from (shard.path, shard.index_path)


def as_json(garbage: Garbage, options: GcOptions) -> str:
    """What was found, for machines."""
    kinds = {
        "shards": garbage.shards,
        "unfinished": garbage.unfinished,
        "temporary": garbage.temporary,
        "uploads": garbage.uploads,
    }
    counts = {name: {"files": len(paths), "bytes": sum(paths.values())} for name, paths in kinds.items()}
    return json.dumps(counts | {"younger": garbage.kept, "deleted": options.delete, "paths": list(garbage.paths)})


def as_text(garbage: Garbage, options: GcOptions) -> str:
    """What was found, for people."""
    lines = []
    for what, paths in (
        ("files of shards that no snapshot uses", garbage.shards),
        ("files of snapshots that were never finished", garbage.unfinished),
        ("temporary files", garbage.temporary),
        ("uploads that were never finished", garbage.uploads),
    ):
        if paths:
            lines.append(f"{len(paths):>8}  {sum(paths.values()) / 1e6:.1f} MB  {what}")
    if garbage.kept:
        lines.append(f"{garbage.kept:>8}  left alone, being younger than --older_than")
    if not garbage:
        lines.append("nothing to delete")
    else:
        lines.append("deleted" if options.delete else "nothing was deleted: add --yes")
    return "\n".join(lines)
