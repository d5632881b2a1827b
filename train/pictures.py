"""Pictures of a batch as the model sees it: augmented, masked, mixed and scaled.

B batch, F frames, H and W sides of a frame, R spectrogram rows, M mel bins.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.sharding import replicated
from mbt.train.step import State, draw_rows, train_inputs

CLIPS = 8
# The spectrogram has mean 0 and standard deviation 1: what is this far from the mean is black or white.
SPECTROGRAM_RANGE = 3.0


def make_seen(config: ConfigDict, mesh: Mesh) -> Callable[[State, dict], dict[str, jax.Array]]:
    """The jitted function from (state, batch) to the inputs of the first clips in that step, on every host."""

    def seen(state: State, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        inputs, _ = train_inputs(config, state, draw_rows(config, state.step, batch))
        return {name: values[:CLIPS] for name, values in inputs.items()}

    return jax.jit(seen, out_shardings=replicated(mesh))


def draw(inputs: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """Inputs as uint8 pictures, by modality: `rgb` (B, H, F W, 3), `spectrogram` (B, M, R, 1), low sounds below."""
    pictures = {}
    if RGB in inputs:
        frames = _to_bytes(np.asarray(inputs[RGB], np.float32), 1.0)
        pictures[RGB] = np.concatenate(list(np.moveaxis(frames, 1, 0)), axis=2)
    if SPECTROGRAM in inputs:
        mel = _to_bytes(np.asarray(inputs[SPECTROGRAM], np.float32), SPECTROGRAM_RANGE)
        pictures[SPECTROGRAM] = mel.swapaxes(1, 2)[:, ::-1]
    return pictures


def _to_bytes(values: np.ndarray, reach: float) -> np.ndarray:
    """-reach to 0, reach to 255."""
    return np.clip(np.round((values / reach + 1) * 127.5), 0, 255).astype(np.uint8)
