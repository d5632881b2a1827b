"""Evaluation: logits of a whole split, and their scores. N clips, K classes, H hosts."""

import copy
import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from mbt.train import distributed, scores
from mbt.train.errors import RunError
from mbt.train.reader import Reader
from mbt.train.records import eval_batches, make_reader
from mbt.train.sharding import eval_rows, place_batch
from mbt.train.snapshot import Records
from mbt.train.step import State, make_eval_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says of clips, in the order of their records.

    Attributes:
      records: (N,) numbers.
      logits: (N, K) float32.
      labels: (N, K), above 0 where a clip has the label.
    """

    records: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


class Evaluator:
    """Evaluates states on a split, any number of times. With several hosts all call it, and all get the same."""

    def __init__(self, config: ConfigDict, records: Records, views: int, mesh: jax.sharding.Mesh):
        self._config = copy.deepcopy(config)
        self._config.train.eval_batch_size = eval_rows(config, mesh)
        self._views = views
        self._mesh = mesh
        self._reader: Reader = make_reader(records, config)
        self._step = make_eval_step(config, views, mesh)

    def __call__(self, state: State) -> scores.Scores:
        """Scores of a state; see `scores.summarize`."""
        predictions = self.predict(state)
        heads = tuple(self._config.model.head_sizes)
        return scores.summarize(predictions.logits, predictions.labels, loss=self._config.loss.name, heads=heads)

    def predict(self, state: State) -> Predictions:
        """What a state says of all clips; see `predict`."""
        names = tuple(self._config.modalities)
        hosts = {"host": distributed.host(), "hosts": distributed.hosts()}
        batches = eval_batches(self._reader, self._config, self._views, **hosts)
        return predict(lambda batch: self._step(state, place_batch(self._mesh, batch, names)), batches, self._views)


def predict(logits_of: Callable[[dict], jax.Array], batches: Iterable[dict], views: int) -> Predictions:
    """Logits and labels of all clips, without the rows that fill the last batch.

    Args:
      logits_of: a batch of this host to the (B, K) logits of the batch of all hosts, in the order of the hosts.
      batches: of this host, as many as every other has: with `records`, `labels` and `weights`, `views` neighbouring
        rows for each clip.
      views: rows of a clip.

    Raises:
      RunError: a logit is not finite, or no clip is left.
    """
    logits, columns = [], []
    for batch in batches:
        logits.append(np.asarray(logits_of(batch)))
        columns.append({name: batch[name][::views] for name in ("records", "labels", "weights")})
    rows = _of_all_hosts({name: np.stack([column[name] for column in columns]) for name in columns[0]})
    kept = rows["weights"] > 0
    if not kept.any():
        raise RunError("evaluation: no clip is left to evaluate on; run `mbt-data verify` on the dataset")
    order = np.argsort(rows["records"][kept])
    values = np.concatenate(logits)[kept][order]
    if not np.isfinite(values).all():
        raise RunError("evaluation: some logits are not finite; train with a lower config.optim.learning_rate")
    return Predictions(records=rows["records"][kept][order], logits=values, labels=rows["labels"][kept][order])


def _of_all_hosts(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of this host, (batches, rows, ...), to those of all, (batches x H x rows, ...), batch by batch."""
    if jax.process_count() == 1:
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in columns.items()}
    gathered = multihost_utils.process_allgather(columns)  # (H, batches, rows, ...)
    return {name: np.moveaxis(values, 0, 1).reshape(-1, *values.shape[3:]) for name, values in gathered.items()}
