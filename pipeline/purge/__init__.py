"""`mbt-data purge`: removes clips from media, shards, clip tables and reports of every snapshot, and proves it.

The order is what makes it safe to kill: first the tombstones, so that no build brings a clip back; then needles and
traces, by which the proof can still search when the bytes are gone; then the ledger says which media of other clips
are released, since they hold a part of the time; then media and reports are deleted, which are found only by what the
clip tables still say; then come new shards, and each snapshot's table and manifest, which changes at once from the old
shards to the new; and only then are the old shards deleted. Run again, it does what is left. From before the tombstones
to a proof that nothing is left there is a file of needles, by which `verify` knows that a purge has not come to its
end.
"""

import dataclasses
import itertools

from mbt.pipeline import dataset as datasets
from mbt.pipeline import ffmpeg, leftovers, needles, shard_file, snapshot, storage, tombstones, writer
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.purge import ban, holders, pictures, traces
from mbt.pipeline.purge.amend import Amender
from mbt.pipeline.purge.answer import as_json, as_text
from mbt.pipeline.purge.evidence import Evidence
from mbt.pipeline.purge.find import Finder, Found
from mbt.pipeline.purge.options import PurgeOptions
from mbt.pipeline.purge.proof import Proof, prove, search
from mbt.pipeline.purge.scan import scan
from mbt.schemas.manifest import Dataset, FormatError, Manifest

__all__ = ["PurgeOptions", "as_json", "as_text", "purge"]


def purge(options: PurgeOptions) -> tuple[Found, Proof | None]:
    """Removes clips; says what there was of them, and the proof that nothing is left.

    There is no proof of a dry run, nor where other clips overlap those and nobody said what becomes of them.

    Raises:
      RefusedError: no dataset, another writer, a damaged snapshot or shard; nothing was changed.
      IncompleteError: a record that must be copied turned out damaged; the old shards are still there.
    """
    try:
        dataset = datasets.read(options.root)
        if dataset is None:
            raise RefusedError(f"--output={options.root} holds no dataset")
        with writer.hold(options.root, take_over=options.take_over):
            return _purged(options, dataset)
    except (datasets.DatasetError, writer.WriterError) as error:
        raise RefusedError(str(error)) from error


def _purged(options: PurgeOptions, dataset: Dataset) -> tuple[Found, Proof | None]:
    """All stages in turn."""
    root, dead = options.root, tombstones.read(options.root)
    # Also those of a purge that was interrupted: what it began ends here.
    clip_ids = options.clip_ids | dead.keys()
    dropped = frozenset(clip_id for clip_id, said in dead.items() if said.get("overlaps")) - options.clip_ids
    manifests, program = _manifests(root, dataset), ffmpeg.executable()
    finder = Finder(root, clip_ids, manifests, program, dropped)
    found = finder.find(options.clip_ids)
    if found.overlapping and options.drop_overlapping:
        dropped |= frozenset(found.overlapping)
        finder = Finder(root, clip_ids | dropped, manifests, program, dropped)
        found = dataclasses.replace(finder.find(options.clip_ids), dropped=found.overlapping)
    events, (temporary, in_use) = pictures.files(options.workdirs), leftovers.find()
    found = dataclasses.replace(found, events=events, temporary=temporary, in_use=in_use)
    if not options.delete or found.overlapping:
        return found, None
    with pictures.held(options.workdirs):
        return found, _without(options, dataset, manifests, finder, found)


def _without(options: PurgeOptions, dataset: Dataset, manifests: list[Manifest], finder: Finder, found: Found) -> Proof:
    """Deletes what was found, and proves it."""
    root, clip_ids = options.root, finder.clip_ids
    wanted, seen = needles.load(root), traces.load(root)
    needles.save(root, wanted)
    tombstones.add(root, finder.spans, options.reason, finder.dropped)
    evidence = Evidence(root, finder, found)
    wanted += needles.Needles.of(itertools.chain(finder.pieces(found), evidence.packets()))
    seen += evidence.traces()
    traces.save(root, seen)
    needles.save(root, wanted)
    ban.by_time(root, (finder.stored[path] for path in found.released), finder.purged)
    holders.release_from(root, [*found.released, *found.media], clip_ids)
    storage.delete(*(storage.join(root, path) for path in found.reports))
    storage.delete(*options.reports)
    pictures.remove(found.events)
    leftovers.delete(found.temporary)
    new = Amender(root, dataset, clip_ids, options.reason, finder.indices).amend(manifests, found)
    _delete(root, manifests, found, new)
    only = None if options.every_source else finder.stored.keys()
    searched, decoded = search(root, wanted), scan(root, seen, finder.program, only)
    proof = prove(root, clip_ids, wanted, searched, decoded, purged=finder.purged)
    if not proof.left:
        needles.forget(root)
    return proof


def _manifests(root: str, dataset: Dataset) -> list[Manifest]:
    try:
        names = storage.folders(storage.join(root, snapshot.FOLDER))
        manifests = [manifest for name in names if (manifest := snapshot.read(root, name))]
        for manifest in manifests:
            dataset.as_of(manifest)  # its shards are made again by it
        return manifests
    except FormatError as error:
        raise RefusedError(f"a snapshot cannot be read: {error}. See mbt-data verify --snapshot=all") from error


def _delete(root: str, manifests: list[Manifest], found: Found, new: frozenset[str]) -> None:
    """Deletes the old shards, and what killed commands left: nobody else writes."""
    old = sorted(found.shards.keys() - new)
    for extension in (".index", ".tfrecord"):  # a shard is there when its index is
        storage.delete(*(storage.join(root, shard_file.FOLDER, stem + extension) for stem in old))
    storage.delete_folder(storage.join(root, "tmp"))
    storage.abort_uploads(root)
    folder, finished = storage.join(root, snapshot.FOLDER), {manifest.snapshot for manifest in manifests}
    for name in storage.folders(folder):
        if name not in finished:
            storage.delete_folder(storage.join(folder, name))
    parts = [file.path for file in storage.files(root) if file.path.endswith(storage.PART)]
    storage.delete(*(storage.join(root, path) for path in parts))
