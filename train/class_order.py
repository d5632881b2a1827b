"""Whether a model knows the classes by other numbers than the dataset: the first thing to go wrong after an import."""

import numpy as np

# A model that knows nothing has a best class for each label too, by chance: for most it takes this many to be sure.
_FEWEST = 5
_CLEAR = 3.0  # standard errors


def is_another(scores: np.ndarray, labels: np.ndarray) -> bool:
    """Whether clips of most labels are known, each under the number of another class.

    For each label the scores of all classes are averaged over its clips, in standard errors. Where the model is right,
    the label's own class is far ahead; where it knows nothing, none is.

    Args:
      scores: (N, K), logits or anything that ranks the clips of a class.
      labels: (N, K), above 0 where a clip has the label.
    """
    spread = scores.std(axis=0)
    standard = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1)
    positive = (labels > 0).astype(np.float64)
    counts = positive.sum(axis=0)
    seen = np.flatnonzero((counts > 0) & (counts < len(labels)))
    if len(seen) < _FEWEST:
        return False
    means = (positive.T @ standard)[seen] / np.sqrt(counts[seen, None])  # (labels, classes), in standard errors
    chance = np.sqrt(2 * np.log(means.shape[1]))  # about the greatest of so many that are normal
    best, own = means.max(axis=1), means[np.arange(len(seen)), seen]
    return bool(np.median(best) > chance + _CLEAR and np.median(own) < _CLEAR)
