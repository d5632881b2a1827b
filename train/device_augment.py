"""What of a training batch's augmentation runs on the device: the colours."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mbt.train.color import color_jitter
from mbt.train.modalities import RGB

SEEDS = "seeds"


def device_columns(config: ConfigDict) -> tuple[str, ...]:
    """Columns of a training batch that `augment_on_device` needs beside the modalities."""
    return (SEEDS,) if _colors(config) else ()


def augment_on_device(config: ConfigDict, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A training batch as the model sees it, before it is scaled; for use inside `jit`.

    Args:
      config: resolved.
      batch: of `records.train_batches`, with `rgb` (B, F, H, W, 3) from 0 to 255 where the model has it, and
        `seeds` (B, 2) uint32 where `device_columns` asks for them.

    Returns:
      The batch; `rgb` is float32 where colours may have changed.
    """
    if not _colors(config):
        return batch
    frames = color_jitter(batch[RGB], batch[SEEDS].astype(jnp.uint32), config.data.color_jitter, config.data.color_drop)
    return batch | {RGB: frames}


def _colors(config: ConfigDict) -> bool:
    return RGB in config.modalities and (config.data.color_jitter > 0 or config.data.color_drop > 0)
