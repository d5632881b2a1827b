"""A snapshot under the names that Scenic's and DMVR's readers expect; the records stay as they are.

Scenic's MBT takes `config.dataset_configs.{base_dir, tables, examples_per_subset, num_classes, spec_mean, spec_stddev}`
(scenic/projects/mbt/datasets/audiovisual_tfrecord_dataset.py); a table `train@128` stands for the files
`train-00000-of-00128` to `train-00127-of-00128`, all of which must exist (projects/vivit/data/file_utils.py). It loads
the subsets train, validation and test. DMVR's examples name files the same way (dmvr/examples/hmdb.py).
"""

import csv
import dataclasses
import errno
import io
import json
import os

import google_crc32c

from mbt.pipeline import catalogue, storage, tally
from mbt.pipeline.catalogue import CatalogueError
from mbt.schemas.manifest import Manifest, Shard

CONFIG_FILE = "dataset_configs.json"
LABELS_FILE = "labels.csv"
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `mbt-data export` was told.

    Attributes:
      root: of the dataset.
      snapshot: name of one.
      folder: to make.
      link: hard, symbolic, or copy.
    """

    root: str
    snapshot: str
    folder: str
    link: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    snapshot: str
    folder: str
    files: int
    records: int
    config: dict

    def to_json(self) -> dict:
        """For machines."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """For a person."""
        return (
            f"snapshot {self.snapshot}: {self.records} records in {self.files} files\n"
            f"what Scenic's config.dataset_configs needs: {storage.join(self.folder, CONFIG_FILE)}"
        )


def export(options: Options) -> Exported:
    """Writes the folder; its table of counts comes last.

    Raises:
      CatalogueError: no such snapshot, the folder is not empty, a shard is missing, or it cannot be linked there.
    """
    manifest = catalogue.find(catalogue.snapshots(options.root), options.snapshot)
    _check(options, manifest)
    config = scenic_config(manifest, options.folder)
    labels = _labels_csv(options.root, manifest)
    files = _files(manifest)
    try:
        for name, shard in files.items():
            _place(options, storage.join(options.root, shard.path), storage.join(options.folder, name), shard)
        storage.write(storage.join(options.folder, LABELS_FILE), labels)
        storage.write(storage.join(options.folder, CONFIG_FILE), (json.dumps(config, indent=1) + "\n").encode())
    except BaseException:
        storage.delete(*(storage.join(options.folder, name) for name in (*files, LABELS_FILE)))
        raise
    return Exported(
        snapshot=manifest.snapshot,
        folder=options.folder,
        files=len(files),
        records=sum(split.num_records for split in manifest.splits.values()),
        config=config,
    )


def scenic_config(manifest: Manifest, folder: str) -> dict:
    """What Scenic's `config.dataset_configs` needs to know of a snapshot that lies in `folder`."""
    tables = {name: f"{name}@{len(split.shards)}" for name, split in manifest.splits.items()}
    examples = {name: split.num_records for name, split in manifest.splits.items()}
    # Scenic insists on both; where one is missing its own configs name the other twice.
    for name, other in (("validation", "test"), ("test", "validation")):
        if name not in manifest.splits and other in manifest.splits:
            tables[name], examples[name] = tables[other], examples[other]
    config = {
        "base_dir": folder,
        "tables": tables,
        "examples_per_subset": examples,
        "num_classes": len(manifest.labels),
    }
    if "train" in manifest.splits:
        train = manifest.splits["train"]
        config |= {"spec_mean": train.mel_mean, "spec_stddev": train.mel_stddev}
    return config


def _files(manifest: Manifest) -> dict[str, Shard]:
    """The new name of each shard."""
    return {
        f"{name}-{number:05d}-of-{len(split.shards):05d}": shard
        for name, split in manifest.splits.items()
        for number, shard in enumerate(split.shards)
    }


def _check(options: Options, manifest: Manifest) -> None:
    if storage.sizes(options.folder) or storage.folders(options.folder):
        raise CatalogueError(f"{options.folder} is not empty: choose another folder")
    if options.link != "copy" and not (storage.is_local(options.root) and storage.is_local(options.folder)):
        raise CatalogueError(f"--link={options.link}: there are no links on an object store; say --link=copy")
    known: dict[str, dict[str, int]] = {}
    for split in manifest.splits.values():
        for shard in split.shards:
            folder, name = os.path.split(storage.join(options.root, shard.path))
            if folder not in known:
                known[folder] = storage.sizes(folder)
            if known[folder].get(name) != shard.bytes:
                raise CatalogueError(f"shard {folder}/{name} is missing or not whole; `mbt-data verify` says more")


def _place(options: Options, source: str, target: str, shard: Shard) -> None:
    if options.link == "copy":
        _copy(source, target, shard)
        return
    os.makedirs(options.folder, exist_ok=True)
    try:
        (os.link if options.link == "hard" else os.symlink)(source, target)
    except OSError as error:
        other = "symbolic or --link=copy" if error.errno == errno.EXDEV else "copy"
        raise CatalogueError(f"--link={options.link}: {target}: {error.strerror}; try --link={other}") from error


def _copy(source: str, target: str, shard: Shard) -> None:
    checksum = google_crc32c.Checksum()
    with storage.open_file(source) as old, storage.create(target) as new:
        while chunk := old.read(_CHUNK_BYTES):
            checksum.update(chunk)
            new.write(chunk)
    if checksum.digest().hex() != shard.crc32c:
        raise CatalogueError(f"shard {source} does not match its checksum; `mbt-data verify` says more")


def _labels_csv(root: str, manifest: Manifest) -> bytes:
    """Index, name, and records per split of each label."""
    rows = catalogue.clip_batches(root, manifest, tally.COLUMNS)
    counts = tally.count(rows, manifest.splits, manifest.labels)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", *manifest.splits])
    for index, label in enumerate(manifest.labels):
        writer.writerow([index, label, *(counts[split].records[index] for split in manifest.splits)])
    return text.getvalue().encode()
