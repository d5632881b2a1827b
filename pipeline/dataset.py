"""ROOT: begun or opened, and only if it is what the command line says."""

import hashlib
import json
import os

import pyarrow as pa

from mbt.pipeline import canary, plan, storage, writer
from mbt.schemas.index import VERSION as INDEX_VERSION
from mbt.schemas.manifest import DATASET_FILE, Dataset, FormatError

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
    if DATASET_FILE not in names and names - _OURS:
        raise DatasetError(f"--output={root} is not empty and holds no dataset: choose another folder")


def read(root: str) -> Dataset | None:
    """The dataset in a folder, or None where none was begun.

    Raises:
      DatasetError: its file is damaged.
    """
    try:
        return Dataset.from_json(storage.read(storage.join(root, DATASET_FILE)).decode())
    except FileNotFoundError:
        return None
    except (FormatError, UnicodeDecodeError) as error:
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
    """The dataset for these clips: new, or the existing one with new splits and labels at the end.

    Raises:
      DatasetError: the existing one has another number of shards, another encoder or another label map.
      CanaryError: this machine writes other bytes than those of the dataset.
    """
    encoder = json.loads(json.dumps(canary.encoder(ffmpeg_path)))
    in_use = plan.labels_of(table)
    official = tuple(in_use) if labels is None else labels
    counts = {split: shards or count for split, count in sorted(plan.num_shards(table).items()) if split}
    if existing is None:
        return Dataset(
            name=name,
            num_shards=counts,
            salt=name,
            labels=official,
            encoder=encoder,
            canary=canary.digest(program),
        )
    _check_same(existing, encoder, shards)
    canary.check(program, existing.canary)
    if labels is not None and existing.labels[: len(labels)] != labels:
        raise DatasetError("the dataset was begun with another label map: choose another --output")
    new_labels = tuple(label for label in in_use if label not in set(existing.labels))
    return Dataset(
        name=existing.name,
        num_shards=counts | existing.num_shards,
        salt=existing.salt,
        labels=existing.labels + new_labels,
        encoder=existing.encoder,
        canary=existing.canary,
    )


def _check_same(existing: Dataset, encoder: dict, shards: int | None) -> None:
    if existing.encoder != encoder:
        changed = sorted(_leaves(existing.encoder) ^ _leaves(encoder))
        raise DatasetError(
            f"the dataset was begun with other encoder settings ({changed[0].split('=')[0]} differs): "
            "a dataset never mixes two; choose another --output"
        )
    if shards is not None and any(count != shards for count in existing.num_shards.values()):
        fixed = ", ".join(f"{split} {count}" for split, count in existing.num_shards.items())
        raise DatasetError(f"--num_shards={shards}: the shard count is fixed when a dataset is begun ({fixed})")


def _leaves(tree: object, path: str = "") -> set[str]:
    if isinstance(tree, dict):
        return set().union(*(_leaves(value, f"{path}.{key}".lstrip(".")) for key, value in tree.items()))
    return {f"{path}={tree!r}"}


def identity(dataset: Dataset) -> str:
    """Digest of everything but the clips that decides the bytes of a shard."""
    parts = [dataset.name, dataset.encoder, dataset.canary, INDEX_VERSION]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
