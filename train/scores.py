"""Scores of predictions, in numpy float64. N clips, K classes."""

import numpy as np


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall steps; equal scores are one step. NaN without positives.

    Args:
      scores: (N,).
      positive: (N,), true or false.
    """
    total = np.count_nonzero(positive)
    if total == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(positive[order])
    last_of_ties = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    precision = hits[last_of_ties] / (last_of_ties + 1)
    recall_gained = np.diff(hits[last_of_ties], prepend=0) / total
    return float(precision @ recall_gained)


def per_class_average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) average precisions of (N, K) scores and labels; NaN where a class has no positives."""
    columns = zip(scores.T, labels.T > 0, strict=True)
    return np.array([average_precision(score, positive) for score, positive in columns])


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of clips with a label among their k highest scores; of equal scores, the lower class goes first."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(labels > 0, best, axis=1).any(axis=1).mean())


def summarize(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All scores of (N, K) logits against (N, K) labels.

    `map` is the mean over the classes that have positives, of which there are `classes`.
    """
    precisions = per_class_average_precision(scores, labels)
    present = precisions[~np.isnan(precisions)]
    return {
        "map": float(present.mean()) if len(present) else 0.0,
        "top1": top_k_accuracy(scores, labels, 1),
        "top5": top_k_accuracy(scores, labels, 5),
        "clips": len(scores),
        "classes": len(present),
    }
