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
from collections.abc import Iterable

import google_crc32c

from mbt.pipeline import catalogue, storage
from mbt.pipeline.catalogue import CatalogueError
from mbt.schemas import durable
from mbt.schemas.manifest import Manifest, Shard

CONFIG_FILE = "dataset_configs.json"
LABELS_FILE = "labels.csv"
_CHUNK_BYTES = 1 << 20
# The tables that Scenic loads, and the splits that may stand for each, the best first: other datasets have other
# names, and where there is only one split to evaluate on, Scenic's own configurations name it twice.
_VALIDATION, _TEST = ("validation", "validate", "val", "valid", "dev"), ("test", "eval")
_STAND_INS = {
    "train": ("train", "unbalanced_train", "balanced_train"),
    "validation": (*_VALIDATION, *_TEST),
    "test": (*_TEST, *_VALIDATION),
}


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
    """What was written; `stand_ins` are the splits that Scenic's tables are, where their names differ."""

    snapshot: str
    folder: str
    files: int
    records: int
    config: dict
    stand_ins: dict[str, str]

    def to_json(self) -> dict:
        """For machines."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """For a person."""
        lines = [f"snapshot {self.snapshot}: {self.records} records in {self.files} files"]
        lines += [f"the table {table} is the split {split}" for table, split in self.stand_ins.items()]
        lines += [f"no split can be the table {table}" for table in _STAND_INS if table not in self.config["tables"]]
        lines.append(f"what Scenic's config.dataset_configs needs: {storage.join(self.folder, CONFIG_FILE)}")
        return "\n".join(lines)


def export(options: Options) -> Exported:
    """Writes the folder; its table of counts comes last, and until it is there the same command begins anew.

    Raises:
      CatalogueError: no such snapshot, something else is in the folder, a shard is missing, or it cannot be linked.
    """
    manifest = catalogue.find(catalogue.snapshots(options.root), options.snapshot)
    files = _files(manifest)
    _check(options, manifest)
    # Deleted, not written over: a left-over link is the dataset's own file.
    storage.delete(*(storage.join(options.folder, name) for name in _left_over(options.folder, files)))
    stand_ins = _stand_ins(manifest)
    config = scenic_config(manifest, options.folder, stand_ins)
    labels = _labels_csv(manifest)
    try:
        for name, shard in files.items():
            _place(options, storage.join(options.root, shard.path), storage.join(options.folder, name), shard)
        storage.write(storage.join(options.folder, LABELS_FILE), labels)  # and flushes the names of the others
        storage.write(storage.join(options.folder, CONFIG_FILE), (json.dumps(config, indent=1) + "\n").encode())
    except BaseException:
        storage.delete(*(storage.join(options.folder, name) for name in (*files, LABELS_FILE)))
        raise
    return Exported(
        snapshot=manifest.snapshot,
        folder=options.folder,
        files=len(files),
        records=manifest.num_records,
        config=config,
        stand_ins=stand_ins,
    )


def _stand_ins(manifest: Manifest) -> dict[str, str]:
    """For tables of Scenic's that no split is named like: the split that they are."""
    found = {
        table: next((split for split in splits if split in manifest.splits), table)
        for table, splits in _STAND_INS.items()
        if table not in manifest.splits
    }
    return {table: split for table, split in found.items() if split in manifest.splits}


def scenic_config(manifest: Manifest, folder: str, stand_ins: dict[str, str]) -> dict:
    """What Scenic's `config.dataset_configs` needs to know of a snapshot that lies in `folder`."""
    tables = {name: f"{name}@{len(split.shards)}" for name, split in manifest.splits.items()}
    examples = {name: split.num_records for name, split in manifest.splits.items()}
    for table, split in stand_ins.items():
        tables[table], examples[table] = tables[split], examples[split]
    config = {
        "base_dir": folder,
        "tables": tables,
        "examples_per_subset": examples,
        "num_classes": len(manifest.labels),
    }
    if train := manifest.splits.get(stand_ins.get("train", "train")):
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


def _left_over(folder: str, files: Iterable[str]) -> list[str]:
    """Files of an export that did not come to its end.

    Raises:
      CatalogueError: there is something else, or a whole export.
    """
    there = storage.sizes(folder).keys()
    if there - {*files, LABELS_FILE} or storage.folders(folder):
        raise CatalogueError(f"{folder} is not empty: choose another folder")
    return sorted(there)


def _place(options: Options, source: str, target: str, shard: Shard) -> None:
    if options.link == "copy":
        _copy(source, target, shard)
        return
    durable.make_folder(options.folder)
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


def _labels_csv(manifest: Manifest) -> bytes:
    """Index, name, and records per split of each label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", *manifest.splits])
    for index, label in enumerate(manifest.labels):
        counts = (split.class_counts.get(label, 0) for split in manifest.splits.values())
        writer.writerow([index, _plain_cell(label), *counts])
    return text.getvalue().encode()


def _plain_cell(label: str) -> str:
    """A label that no spreadsheet takes for a formula: one that begins like one gets an apostrophe in front."""
    return f"'{label}" if label.startswith(("=", "+", "-", "@", "\t", "\r")) else label
