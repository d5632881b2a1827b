"""Scores of predictions, in numpy float64. N clips, K classes."""

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

# An AUC of 1 would have an infinite d'; this is the nearest that has not: 11.6.
_LEAST_TAIL = 2.0**-53
_HEADS = ("verb", "noun")

Scores = dict[str, float | None]  # by name; None where there is nothing to take the mean of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of each class on its own, (K,) each.

    Attributes:
      positives: clips that have the label.
      average_precision: area under the precision-recall steps; NaN without positives.
      auc: area under the receiver operating characteristic; NaN without positives or without negatives.
    """

    positives: np.ndarray
    average_precision: np.ndarray
    auc: np.ndarray


def score_classes(scores: np.ndarray, labels: np.ndarray) -> ClassScores:
    """Ranks the clips once for each class; equal scores are one step of either curve.

    Args:
      scores: (N, K).
      labels: (N, K), above 0 where a clip has the label.

    Raises:
      ValueError: a score is NaN, which has no rank.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    # A class's values side by side in memory: sorting them is all the work there is.
    columns, positive = np.ascontiguousarray(scores.T), np.ascontiguousarray(labels.T > 0)
    areas = np.array([_areas(score, hit) for score, hit in zip(columns, positive, strict=True)]).reshape(-1, 2)
    return ClassScores(positives=positive.sum(axis=1), average_precision=areas[:, 0], auc=areas[:, 1])


def _areas(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Average precision and AUC of one class, (N,) each."""
    order = np.argsort(-scores)
    scores, hits = scores[order], np.cumsum(positive[order])
    last_of_ties = np.flatnonzero(np.append(scores[1:] != scores[:-1], len(scores) > 0))
    hits, seen = hits[last_of_ties], last_of_ties + 1
    total = np.count_nonzero(positive)
    if total == 0:
        return np.nan, np.nan
    gained = np.diff(hits, prepend=0)
    precision = float((hits / seen * gained).sum()) / total
    if total == len(positive):
        return precision, np.nan
    # Of each step of ties, half of the pairs of a positive and a negative count (a trapezoid).
    passed = (np.diff(seen - hits, prepend=0) * (hits - gained / 2)).sum()
    return precision, float(passed) / (total * (len(positive) - total))


def d_prime(auc: float) -> float:
    """Distance of two unit normals whose AUC this is: sqrt(2) Phi^-1(AUC); 11.6 at most."""
    return 2**0.5 * statistics.NormalDist().inv_cdf(min(max(auc, _LEAST_TAIL), 1 - _LEAST_TAIL))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of clips with a label among their k highest scores; of equal scores, the lower class goes first."""
    return float(_hits(scores, labels, k).mean())


def _hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    left, hits = scores.astype(np.float64), np.zeros(len(scores), bool)
    rows = np.arange(len(scores))
    for _ in range(min(k, scores.shape[1])):
        best = left.argmax(axis=1)
        hits |= labels[rows, best] > 0
        left[rows, best] = -np.inf
    return hits


def log_probabilities(logits: np.ndarray, loss: str, heads: Sequence[int] = ()) -> np.ndarray:
    """Logarithms of the probabilities that (N, K) logits stand for.

    Args:
      logits: (N, K).
      loss: "bce" for a sigmoid of each class, "ce" for a softmax of each head.
      heads: sizes of several heads; () for one.
    """
    logits = logits.astype(np.float64)
    if loss == "bce":
        return -np.logaddexp(0, -logits)
    parts = np.split(logits, np.cumsum(heads)[:-1], axis=1) if heads else [logits]
    shifted = [part - part.max(axis=1, keepdims=True) for part in parts]
    return np.concatenate([part - np.log(np.exp(part).sum(axis=1, keepdims=True)) for part in shifted], axis=1)


def summarize(logits: np.ndarray, labels: np.ndarray, *, loss: str, heads: Sequence[int] = ()) -> Scores:
    """The scores that the field gives for a loss, the main one first.

    `map` and `mauc` are means over classes; `classes` and `auc_classes` are how many have one, for a class without
    positives (or, for the AUC, without negatives) is left out. Where all are, there is no score: None. `dprime` is that
    of the mean AUC.

    Args:
      logits: (N, K).
      labels: (N, K), above 0 where a clip has the label.
      loss: "bce": `map`, `mauc`, `dprime`. "ce": `top1` and `top5` beside them; of two heads
        `top1_action` (the most probable pair of a verb and a noun), `top1_verb`, `top1_noun`.
      heads: sizes of several heads; () for one.
    """
    if heads:
        return _summarize_heads(logits, labels, heads) | {"clips": len(logits)}
    top = {} if loss == "bce" else {f"top{k}": top_k_accuracy(logits, labels, k) for k in (1, 5)}
    return top | summarize_classes(score_classes(ranked(logits, loss), labels)) | {"clips": len(logits)}


def score_names(loss: str, heads: Sequence[int] = ()) -> tuple[str, ...]:
    """Names of the scores that `summarize` gives, counts apart."""
    if heads:
        return ("top1_action", *(f"top1_{name}" for name in head_names(heads)))
    return (*(() if loss == "bce" else ("top1", "top5")), "map", "mauc", "dprime")


def ranked(logits: np.ndarray, loss: str, heads: Sequence[int] = ()) -> np.ndarray:
    """What clips are ranked by within a class: logits, or under a softmax the probabilities' logarithms.

    A sigmoid alone changes no order, and would make high logits equal.
    """
    return logits if loss == "bce" else log_probabilities(logits, loss, heads)


def summarize_classes(classes: ClassScores) -> Scores:
    """The means over classes; see `summarize`."""
    precisions, aucs = (values[~np.isnan(values)] for values in (classes.average_precision, classes.auc))
    mean_auc = float(aucs.mean()) if len(aucs) else None
    return {
        "map": float(precisions.mean()) if len(precisions) else None,
        "mauc": mean_auc,
        "dprime": None if mean_auc is None else d_prime(mean_auc),
        "classes": len(precisions),
        "auc_classes": len(aucs),
    }


def _summarize_heads(logits: np.ndarray, labels: np.ndarray, heads: Sequence[int]) -> Scores:
    ends = np.cumsum(heads)[:-1]
    parts = zip(np.split(logits, ends, axis=1), np.split(labels, ends, axis=1), strict=True)
    # The product of the heads' probabilities is greatest where each of them is.
    hits = {name: _hits(*part, 1) for name, part in zip(head_names(heads), parts, strict=True)}
    action = np.logical_and.reduce(list(hits.values()))
    return {f"top1_{name}": float(hit.mean()) for name, hit in ({"action": action} | hits).items()}


def head_names(heads: Sequence[int]) -> tuple[str, ...]:
    """What the heads are called: two are a verb's and a noun's."""
    return _HEADS if len(heads) == len(_HEADS) else tuple(f"head{number}" for number in range(len(heads)))
