"""`mbt-train import`: a run from a checkpoint that Scenic released, ready for `evaluate`."""

import contextlib
import pathlib

from ml_collections import ConfigDict

from mbt.model.config import MBTConfig
from mbt.train import config as config_lib
from mbt.train import labels, preflight
from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError
from mbt.train.modalities import PATCH_KEYS
from mbt.train.snapshot import find_split, load_manifest

# Keys of config.model that the checkpoint decides.
DECIDED = (
    "fusion",
    "num_bottlenecks",
    "share_before",
    "share_after",
    "pooling",
    "pre_logits",
    "num_classes",
)


def import_scenic(
    config_name: str, overrides: list[str], workdir: pathlib.Path, checkpoint: pathlib.Path
) -> dict[str, str | int]:
    """Writes a config and a checkpoint of step 0 into a new workdir.

    Args:
      config_name: path or name of a config; its inputs and its L_f are used.
      overrides: `--config.KEY=VALUE` flags.
      workdir: of the run; must hold none yet.
      checkpoint: the Flax msgpack file.

    Raises:
      UsageError: the file, the config and the dataset do not fit together.
    """
    from mbt.model.scenic_weights import load_scenic, read_scenic, scenic_config
    from mbt.model.weights import WeightsError

    given = config_lib.load_config(config_name, overrides)
    config_lib.check(given)
    manifest = load_manifest(given.data.root, given.data.snapshot)
    find_split(manifest, "config.data.train_split", given.data.train_split)
    if workdir_lib.read_config(workdir) is not None:
        raise UsageError(f"--workdir={workdir}: holds a run already; give another")
    try:
        arrays = read_scenic(checkpoint)
        shapes = config_lib.input_shapes(given)
        _decide(given, scenic_config(arrays, fusion_layer=given.model.fusion_layer, shapes=shapes))
        config = config_lib.resolve(given, manifest)
        model = _new_model(config)
        load_scenic(model, arrays)
    except (WeightsError, OSError) as error:
        raise UsageError(f"--checkpoint={checkpoint}: {error}") from error
    preflight.freeze_dataset(config, manifest)
    with workdir_lib.locked(workdir):
        _write(workdir, config, model)
        labels.freeze(workdir, manifest.labels)
    return {"workdir": str(workdir), "snapshot": manifest.snapshot, "num_classes": config.model.num_classes}


def _decide(config: ConfigDict, model: MBTConfig) -> None:
    """Sets in the config what the checkpoint decides."""
    if set(model.names) != set(config.modalities):
        raise UsageError(f"config.modalities={tuple(config.modalities)}: the checkpoint has {model.names}")
    size = model.size
    config.model.update(width=size.width, depth=size.depth, heads=size.heads, mlp_dim=size.mlp_dim)
    config.model.update({key: getattr(model, key) for key in DECIDED})
    for modality in model.modalities:
        config.model[PATCH_KEYS[modality.name]] = modality.patch


def _new_model(config: ConfigDict):
    from flax import nnx

    from mbt.model.mbt import MBT

    return MBT(config_lib.model_config(config), rngs=nnx.Rngs(config.seed))


def _write(workdir: pathlib.Path, config: ConfigDict, model) -> None:
    from mbt.train.checkpoint import Checkpoints
    from mbt.train.step import state_of

    workdir_lib.write_config(workdir, config)
    with contextlib.closing(Checkpoints(workdir, writes=True)) as checkpoints:
        checkpoints.save(state_of(config, model))
