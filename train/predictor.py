"""A trained model that is asked about one clip after another, through the loader and the step of evaluation."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mbt.model.rollout import rollout
from mbt.train import overlay, sharding
from mbt.train.checkpoint import restored
from mbt.train.evaluate import predict
from mbt.train.records import eval_batches, make_reader
from mbt.train.snapshot import Records
from mbt.train.step import State, eval_params, make_eval_step, model_graph, model_inputs


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

    def draw_rollout(self, records: Records, path: pathlib.Path) -> None:
        """Draws, over what the model saw of the clip, where its output came from; see `overlay`.

        Of the views the one that scores the answer highest is drawn, of the outputs the mean.
        """
        batches = eval_batches(make_reader(records, self.config), self.config, self._views)
        batch = next(batches)
        views = {name: batch[name][: self._views] for name in self.config.modalities}
        view, maps = self.trace(views)
        overlay.draw({name: values[view] for name, values in views.items()}, maps, path)

    def trace(self, views: dict[str, np.ndarray]) -> tuple[int, dict[str, np.ndarray]]:
        """Which view of a clip scores its answer highest, and the rollout of that view by modality."""
        view, maps = jax.device_get(self._trace(self.state, views))
        return int(view), maps

    def _evaluate(self, batch: dict) -> jax.Array:
        names = tuple(self.config.modalities)
        return self._eval_step(self.state, sharding.place_batch(self._mesh, batch, names))


def _make_trace(config: ConfigDict) -> Callable[[State, dict], tuple[jax.Array, dict[str, jax.Array]]]:
    """Jitted: (state, the views of one clip) to which view is the surest of the answer, and its rollout by modality."""
    graph = model_graph(config)

    def trace(state: State, batch: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = nnx.merge(graph, eval_params(state))
        inputs = model_inputs(state, batch)
        logits = model(inputs)["logits"]
        view = logits[:, logits.mean(axis=0).argmax()].argmax()
        maps = rollout(model, {name: jax.lax.dynamic_slice_in_dim(x, view, 1) for name, x in inputs.items()})
        return view, jax.tree.map(lambda *outputs: jnp.stack(outputs).mean(axis=0)[0], *maps.values())

    return jax.jit(trace)
