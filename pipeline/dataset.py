"""ROOT: begun or opened, and only if it is what the command line says."""

import dataclasses
import json
import os
import re

import pyarrow as pa

from mbt.pipeline import canary, plan, storage, writer
from mbt.pipeline.reasons import RULES
from mbt.schemas import index as shard_index
from mbt.schemas.manifest import DATASET_FILE, Dataset, Encoding, FormatError

_TMP = re.compile(r"run-\d+|shards$|purge|repair|verify")
_OURS = {DATASET_FILE, "media", "ledger", "shards", "snapshots", "tmp"}


class DatasetError(RuntimeError):
    """The folder cannot be written to by this command; the message says what to do."""


def check_output(root: str) -> None:
    """Refuses a folder that holds something else, before anything is written there.

    Raises:
      DatasetError: it does.
    """
    if not storage.is_local(root) or not os.path.exists(root):
        return
    if not os.path.isdir(root):
        raise DatasetError(f"--output={root} is not a folder")
    names = {name for name in os.listdir(root) if not writer.is_lock(name)}
    tmp = os.path.join(root, "tmp")
    strange = (
        [name for name in os.listdir(tmp) if not _TMP.match(name)] if "tmp" in names and os.path.isdir(tmp) else []
    )
    if strange:
        raise DatasetError(f"--output={root}: tmp/{strange[0]} is not of a dataset: choose another folder")
    if DATASET_FILE not in names and names - _OURS:
        raise DatasetError(f"--output={root} is not empty and holds no dataset: choose another folder")


def read(root: str) -> Dataset | None:
    """The dataset in a folder, or None where none was begun.

    Raises:
      DatasetError: its file is damaged.
    """
    try:
        return Dataset.from_json(storage.read(storage.join(root, DATASET_FILE)))
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise DatasetError(f"{root}: {error}") from error


def check_name(root: str, existing: Dataset | None, name: str) -> None:
    """Refuses to mix two datasets in one folder.

    Raises:
      DatasetError: the folder holds another.
    """
    if existing is not None and existing.name != name:
        raise DatasetError(
            f"--output={root} holds the dataset {existing.name!r}, not {name!r}: choose another --output, "
            f"or say --name={existing.name} if these are its new annotations"
        )


def begin_or_extend(
    existing: Dataset | None,
    table: pa.Table,
    *,
    name: str,
    shards: int | None,
    labels: tuple[str, ...] | None,
    ffmpeg_path: str | None,
    program: str,
) -> Dataset:
    """The dataset for these clips: new, or the existing one with new splits and labels at the end, and this encoder.

    Raises:
      DatasetError: the existing one has another number of shards or another label map.
      CanaryError: this machine writes other bytes than those of the dataset, by the same encoder.
    """
    now = encoding(ffmpeg_path, program)
    in_use = plan.labels_of(table)
    official = tuple(in_use) if labels is None else labels
    counts = {split: shards or count for split, count in sorted(plan.num_shards(table).items()) if split}
    if existing is None:
        return Dataset(
            name=name,
            num_shards=counts,
            salt=name,
            labels=official,
            **vars(now),
        )
    _check_shards(existing, shards)
    if existing.encoder == now.encoder:
        canary.check(program, existing.canary)
    if labels is not None and existing.labels[: len(labels)] != labels:
        raise DatasetError("the dataset was begun with another label map: choose another --output")
    new_labels = tuple(label for label in in_use if label not in set(existing.labels))
    extended = dataclasses.replace(
        existing, num_shards=counts | existing.num_shards, labels=existing.labels + new_labels
    )
    return extended.made_by(now)


def encoding(ffmpeg_path: str | None, program: str) -> Encoding:
    """How this program makes records."""
    encoder = json.loads(json.dumps(canary.encoder(ffmpeg_path)))
    digest = canary.digest(program)
    return Encoding(encoder=encoder, canary=digest, index_version=shard_index.VERSION, rules=RULES)


def _check_shards(existing: Dataset, shards: int | None) -> None:
    if shards is not None and any(count != shards for count in existing.num_shards.values()):
        fixed = ", ".join(f"{split} {count}" for split, count in existing.num_shards.items())
        raise DatasetError(f"--num_shards={shards}: the shard count is fixed when a dataset is begun ({fixed})")


def changed(before: Dataset, after: Dataset) -> list[str]:
    """Names of the settings in which two ways to make records differ."""
    one, other = (_leaves(dataset.encoder | {"index_version": dataset.index_version}) for dataset in (before, after))
    return sorted({leaf.partition("=")[0] for leaf in one ^ other})


def _leaves(tree: object, path: str = "") -> set[str]:
    if isinstance(tree, dict):
        return set().union(*(_leaves(value, f"{path}.{key}".lstrip(".")) for key, value in tree.items()))
    return {f"{path}={tree!r}"}
