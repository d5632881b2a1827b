"""What is looked at before anything is compiled, so that a run that cannot end well does not begin.

Here: the dataset behind a snapshot, the score that is kept the best of, cuDNN, and the room for checkpoints. The
config's values are `rules`', the form of a checkpoint is `checkpoint`'s, the workdir and its lock are `workdir`'s.
"""

import hashlib
import json
import math
import pathlib
import shutil

from ml_collections import ConfigDict

from mbt.schemas.manifest import DATASET_FILE, Dataset, Manifest
from mbt.train import storage
from mbt.train.config import differences
from mbt.train.errors import UsageError
from mbt.train.scores import score_names

# Of the dataset's identity, what another snapshot of the same dataset may have otherwise.
OF_SNAPSHOT = ("annotations",)
# And what the same snapshot may have: more clips that were purged. There is no way back to them.
PURGES = "amendments"
# A checkpoint beside its arrays: Orbax's files of names and shapes.
OVERHEAD_BYTES = 1 << 20
NAMED = 3


def identify(root: str, manifest: Manifest) -> ConfigDict:
    """What makes a dataset this version of itself; frozen into a run's config as `dataset`.

    Raises:
      UsageError: `dataset.json` cannot be read.
    """
    try:
        dataset = Dataset.from_json(storage.read(storage.join(root, DATASET_FILE))).as_of(manifest)
    except (OSError, ValueError) as error:
        raise UsageError(f"config.data.root={root}: {error}") from error
    return ConfigDict(
        {
            "name": dataset.name,
            "encoder": json.dumps(dataset.encoder, sort_keys=True),
            "canary": dataset.canary,
            "labels": _digest("\n".join(manifest.labels)),
            "annotations": manifest.annotations_sha256[:16],
            "amendments": len(manifest.amended),
        }
    )


def freeze_dataset(config: ConfigDict, manifest: Manifest) -> None:
    """Adds to a resolved config which version of the dataset it is for."""
    with config.unlocked():
        config.dataset = identify(config.data.root, manifest)


def check_dataset(old: ConfigDict, new: ConfigDict, root: str, *, same_snapshot: bool) -> None:
    """Refuses another version of the dataset than the one that a run was trained on.

    Args:
      old: the run's config, with its dataset.
      new: what `identify` says of the dataset that is there now.
      root: of that one, for the message.
      same_snapshot: whether the snapshot has to be the same too, as for a run that goes on.

    Raises:
      UsageError: naming what differs.
    """
    if "dataset" not in old:
        return
    before, now = (_encoder_opened(identity) for identity in (old.dataset, new))
    if same_snapshot and now[PURGES] < before[PURGES]:
        raise UsageError(
            f"the dataset in {root} has clips that were purged from the one that the run was trained on; give that one"
        )
    skipped = (PURGES,) if same_snapshot else (PURGES, *OF_SNAPSHOT)
    changed = [text for text in differences(before, now) if text.split(":")[0] not in skipped]
    if changed:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        raise UsageError(
            f"the dataset in {root} is another version than the run was trained on "
            f"({'; '.join(changed[:NAMED])}{more}); give the folder that it was trained on, and its snapshot "
            f"{old.data.snapshot}, or another --workdir"
        )


def check_best(config: ConfigDict) -> None:
    """Refuses to keep the best by a score that no evaluation gives.

    Raises:
      UsageError: config.train.best is not a score, or there is no evaluation.
    """
    best, known = config.train.best, score_names(config.loss.name, config.model.head_sizes)
    if best and best not in known:
        raise UsageError(f"config.train.best={best!r}: must be one of {', '.join(known)}, or '' for the newest alone")
    if best and not config.data.eval_split:
        raise UsageError(f"config.train.best={best!r}: needs an evaluation; set config.data.eval_split")


def check_space(folder: pathlib.Path, checkpoint_bytes: int, kept: int) -> None:
    """Refuses to begin where the checkpoints would not fit.

    Args:
      folder: of the checkpoints; need not be there.
      checkpoint_bytes: size of the state.
      kept: checkpoints that are there at a time, the one that is being written included.

    Raises:
      UsageError: the disk has less room than they need beside those that are there.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = kept * (checkpoint_bytes + OVERHEAD_BYTES) - there
    free = shutil.disk_usage(next(path for path in (folder, *folder.resolve().parents) if path.is_dir())).free
    if free < needed:
        raise UsageError(
            f"{folder}: the disk has {_mebibytes(free)} MiB free, {kept} checkpoints of {_mebibytes(checkpoint_bytes)} "
            f"MiB need {_mebibytes(needed)} MiB; make room, or give a --workdir elsewhere"
        )


def check_attention(config: ConfigDict) -> None:
    """Refuses cuDNN where there is none; "auto" takes it where there is.

    Raises:
      UsageError: naming the device that is there.
    """
    import jax

    device = jax.devices()[0].device_kind
    if config.model.attention == "cudnn" and not device.startswith("NVIDIA"):
        raise UsageError(
            f"config.model.attention=cudnn: needs an NVIDIA GPU, and this machine computes on {device!r}; "
            "auto takes what there is"
        )


def _encoder_opened(identity: ConfigDict) -> ConfigDict:
    """The identity with the encoder's numbers as keys, to name those that differ."""
    return ConfigDict(identity.to_dict() | {"encoder": json.loads(identity.encoder)})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mebibytes(size: int) -> int:
    return math.ceil(size / (1 << 20))
