"""Scores against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mbt.train.errors import RunError
from mbt.train.evaluate import predict
from mbt.train.scores import average_precision, per_class_average_precision, summarize, top_k_accuracy


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_average_precision_equals_scikit_learn_with_ties(rows):
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    if not positive.any():
        assert np.isnan(average_precision(scores, positive))
        return
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_a_class_without_positives_is_left_out():
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(40, 5)), random.random((40, 5)) < 0.3
    labels[:, 2] = False
    summary = summarize(scores, labels)
    others = [0, 1, 3, 4]
    assert summary["map"] == pytest.approx(average_precision_score(labels[:, others], scores[:, others]))
    assert summary["classes"] == 4
    assert np.isnan(per_class_average_precision(scores, labels)[2])


def test_nothing_to_find():
    assert summarize(np.zeros((3, 2)), np.zeros((3, 2))) == {
        "map": 0.0,
        "top1": 0.0,
        "top5": 0.0,
        "clips": 3,
        "classes": 0,
    }


def test_top_k():
    scores = np.array([[3.0, 2, 1], [1, 3, 2], [1, 1, 1]])
    labels = np.eye(3)[[0, 2, 2]]
    assert top_k_accuracy(scores, labels, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(scores, labels, 2) == pytest.approx(2 / 3)
    assert top_k_accuracy(scores, labels, 5) == 1


def batches(scores, labels, size, views):
    """Rows as the loader gives them, the last batch filled with rows of weight 0 that would score high."""
    total = -(-len(scores) // size) * size
    padding = total - len(scores)
    columns = {
        "scores": np.pad(scores, ((0, padding), (0, 0)), constant_values=100),
        "labels": np.pad(labels, ((0, padding), (0, 0))),
        "weights": np.pad(np.ones(len(scores)), (0, padding)),
    }
    columns = {name: np.repeat(column, views, axis=0) for name, column in columns.items()}
    for first in range(0, total * views, size * views):
        yield {name: column[first : first + size * views] for name, column in columns.items()}


@pytest.mark.parametrize("views", [1, 3])
def test_padded_rows_never_count(views):
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(10, 4)), (random.random((10, 4)) < 0.4).astype(float)
    got = predict(lambda batch: batch["scores"][::views], batches(scores, labels, 4, views), views)
    np.testing.assert_array_equal(got[0], scores)
    assert summarize(*got) == summarize(scores, labels)


def test_logits_that_are_not_finite_are_an_error():
    bad = np.full((4, 2), np.nan)
    with pytest.raises(RunError, match="not finite"):
        predict(lambda batch: batch["scores"], batches(bad, np.ones((4, 2)), 4, 1), 1)
