"""Evaluation: logits of a whole split, and their scores."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from ml_collections import ConfigDict

from mbt.train.errors import RunError
from mbt.train.reader import Reader
from mbt.train.records import eval_batches, make_reader
from mbt.train.scores import summarize
from mbt.train.sharding import place_batch
from mbt.train.snapshot import Records
from mbt.train.step import State, make_eval_step


class Evaluator:
    """Evaluates states on a split, any number of times."""

    def __init__(self, config: ConfigDict, records: Records, views: int, mesh: jax.sharding.Mesh):
        self._config = config
        self._views = views
        self._reader: Reader = make_reader(records, config)
        self._mesh = mesh
        self._step = make_eval_step(config, views, self._mesh)

    def __call__(self, state: State) -> dict[str, float]:
        """Scores of a state; see `scores.summarize`."""
        batches = eval_batches(self._reader, self._config, self._views)
        names = tuple(self._config.modalities)
        return summarize(
            *predict(lambda batch: self._step(state, place_batch(self._mesh, batch, names)), batches, self._views)
        )


def predict(
    logits_of: Callable[[dict], jax.Array], batches: Iterable[dict], views: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of all clips, (N, K) each, without the rows that fill the last batch.

    Args:
      logits_of: a batch to (B, K) logits.
      batches: with `labels` and `weights`, `views` rows for each clip.
      views: rows of a clip.

    Raises:
      RunError: a logit is not finite.
    """
    parts = []
    for batch in batches:
        real = batch["weights"][::views] > 0
        parts.append((np.asarray(logits_of(batch))[real], batch["labels"][::views][real]))
    logits, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not np.isfinite(logits).all():
        raise RunError("evaluation: some logits are not finite; train with a lower config.optim.learning_rate")
    return logits, labels
