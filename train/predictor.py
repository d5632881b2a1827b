"""A trained model that is asked about one clip after another, through the loader and the step of evaluation."""

import io
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from mbt.model.config import Modality
from mbt.model.rollout import rollout
from mbt.train import overlay, sharding
from mbt.train.augment import center_box
from mbt.train.checkpoint import restored
from mbt.train.config import model_config
from mbt.train.evaluate import predict
from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.records import eval_batches, make_reader
from mbt.train.snapshot import Records
from mbt.train.step import State, eval_params, make_eval_step, model_graph, model_inputs
from mbt.train.windows import view_shares


class Predictor:
    """A checkpoint of a run: the newest, or the one with the best score.

    Attributes:
      config: of the run, with batches of one clip on each device.
      state: of the checkpoint.
    """

    def __init__(self, config: ConfigDict, workdir: pathlib.Path, *, best: bool = False):
        self.config = ConfigDict(config)
        self.config.train.eval_batch_size = jax.device_count()  # the least that every device has a row of
        self._mesh = sharding.make_eval_mesh()
        self.state = restored(workdir, self.config, self._mesh, best=best)
        self._views = self.config.data.views
        self._eval_step = make_eval_step(self.config, self._views, self._mesh)
        self._trace = _make_trace(self.config)

    def logits(self, records: Records) -> np.ndarray:
        """(K,) of the one clip that the records are, averaged over its views."""
        batches = eval_batches(make_reader(records, self.config), self.config, self._views)
        return predict(self._evaluate, batches, self._views).logits[0]

    def rollout(self, records: Records, view: int | None = None) -> tuple[int, dict[str, np.ndarray]]:
        """Which view of the one clip is asked, and the shares of its input in the output, by modality.

        Of several outputs the mean is taken.

        Args:
          records: of the clip.
          view: to ask; None for the one that scores the answer highest.
        """
        batch = next(eval_batches(make_reader(records, self.config), self.config, self._views))
        views = {name: batch[name][: self._views] for name in self.config.modalities}
        return self.trace(views, view)

    def trace(self, views: dict[str, np.ndarray], view: int | None = None) -> tuple[int, dict[str, np.ndarray]]:
        """As `rollout`, of the views themselves."""
        chosen, maps = jax.device_get(self._trace(self.state, views, -1 if view is None else view))
        return int(chosen), maps

    def look(self, name: str, records: Records, view: int | None = None) -> tuple[int, overlay.Look]:
        """Which view of the one clip is asked, as for `rollout`, and what the run makes of it, by the run's name."""
        view, shares = self.rollout(records, view)
        pictures = self._pictures(records, view)
        boxes: dict[str, overlay.Box] = {}
        for modality in model_config(self.config).modalities:
            height, width = pictures[modality.name].shape[:2]
            whole = (0, 0, height, width)
            if modality.name == RGB:
                whole = tuple(center_box((height, width), self.config.data.eval_crop).numpy().tolist())
            boxes[modality.name] = _covered(whole, modality)
        return view, overlay.Look(name=name, pictures=pictures, boxes=boxes, shares=shares)

    def _pictures(self, records: Records, view: int) -> dict[str, np.ndarray]:
        """What a view of the one clip has to see and to hear, as the record has it: the middle frame, and all rows."""
        reader = make_reader(records, self.config)
        zero, position = np.zeros(1, np.int64), np.full((1, 2), view_shares(self._views)[view])
        columns = dict(zip(reader.columns, reader.read(zero, position, zero, zero, random=False), strict=True))
        pictures = {}
        if RGB in self.config.modalities:
            jpegs = columns["jpegs"][0]
            pictures[RGB] = np.asarray(Image.open(io.BytesIO(jpegs[len(jpegs) // 2])).convert("RGB"))
        if SPECTROGRAM in self.config.modalities:
            pictures[SPECTROGRAM] = columns["mel"][0]
        return pictures

    def _evaluate(self, batch: dict) -> jax.Array:
        names = tuple(self.config.modalities)
        return self._eval_step(self.state, sharding.place_batch(self._mesh, batch, names))


def _covered(box: overlay.Box, modality: Modality) -> overlay.Box:
    """The part of what a model sees that fills patches: from the first pixel on, as many as there are whole ones."""
    top, left, *sides = box
    filled = zip(sides, modality.grid[-2:], modality.patch_sides[-2:], modality.shape[-2:], strict=True)
    height, width = (round(side * count * patch / size) for side, count, patch, size in filled)
    return top, left, height, width


def _make_trace(config: ConfigDict) -> Callable[[State, dict, int], tuple[jax.Array, dict[str, jax.Array]]]:
    """Jitted: (state, the views of one clip, a view or -1) to which view was asked, and its rollout by modality.

    For -1 it is the one that is the surest of the answer.
    """
    graph = model_graph(config)

    def trace(state: State, batch: dict, asked: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = nnx.merge(graph, eval_params(state))
        inputs = model_inputs(state, batch)
        logits = model(inputs)["logits"]
        view = jnp.where(asked < 0, logits[:, logits.mean(axis=0).argmax()].argmax(), asked)
        maps = rollout(model, {name: jax.lax.dynamic_slice_in_dim(x, view, 1) for name, x in inputs.items()})
        return view, jax.tree.map(lambda *outputs: jnp.stack(outputs).mean(axis=0)[0], *maps.values())

    return jax.jit(trace)
