"""What a model says of a clip, in words: its best classes and their probabilities."""

from collections.abc import Sequence

import numpy as np

from mbt.train.scores import head_names, log_probabilities


def best_classes(
    logits: np.ndarray, labels: Sequence[str], *, loss: str, heads: Sequence[int], count: int
) -> dict[str, list[dict]]:
    """The most probable classes, each a dict of `index`, `label` and `score`, the probability.

    Of equal ones, the lower class goes first.

    Args:
      logits: (K,).
      labels: names of the K classes.
      loss: "bce" for a sigmoid of each class, "ce" for a softmax of each head.
      heads: sizes of several heads; () for one.
      count: of classes.

    Returns:
      Under `labels`; of several heads under the name of each, and the best combinations of one class of each under
      `action`, whose `index` is a list.
    """
    chances = np.exp(log_probabilities(logits[None], loss, heads)[0])
    if not heads:
        return {"labels": [_answer(labels, chances, index) for index in _highest(chances, count)]}
    best, first = {}, 0
    for name, size in zip(head_names(heads), heads, strict=True):
        best[name] = [
            _answer(labels, chances, first + index) for index in _highest(chances[first : first + size], count)
        ]
        first += size
    return {"action": _combinations(list(best.values()), count)} | best


def _highest(values: np.ndarray, count: int) -> list[int]:
    return np.argsort(-values, kind="stable")[:count].tolist()


def _answer(labels: Sequence[str], chances: np.ndarray, index: int) -> dict:
    return {"index": index, "label": labels[index], "score": float(chances[index])}


def _combinations(best: list[list[dict]], count: int) -> list[dict]:
    """The `count` most probable combinations; each is of classes that are among the `count` best of their heads."""
    found: list[dict] = [{"index": [], "label": "", "score": 1.0}]
    for head in best:
        found = [
            {
                "index": [*start["index"], end["index"]],
                "label": f"{start['label']} {end['label']}".lstrip(),
                "score": start["score"] * end["score"],
            }
            for start in found
            for end in head
        ]
    return sorted(found, key=lambda combination: -combination["score"])[:count]
