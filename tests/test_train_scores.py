"""Scores against scikit-learn, and against counting by hand."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from mbt.train.scores import (
    d_prime,
    head_names,
    log_probabilities,
    ranked,
    score_classes,
    score_names,
    summarize,
    top_k_accuracy,
)

pytestmark = pytest.mark.quick

# Few values, so that many are equal; with some that are far apart.
few_values = st.sampled_from([-1e30, -2.0, -1.0, 0.0, 1.0, 1.0 + 2**-20, 2.0, 1e30])
columns = st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=30)
quick = settings(deadline=None, max_examples=150, derandomize=True)


@quick
@given(columns)
def test_the_areas_of_a_class_are_scikit_learns(rows):
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = score_classes(scores[:, None], positive[:, None])
    assert found.positives == positive.sum()
    if not positive.any():
        assert np.isnan(found.average_precision[0])
    else:
        expected = average_precision_score(positive, scores)
        assert found.average_precision[0] == pytest.approx(expected, abs=1e-12)
    if positive.all() or not positive.any():
        assert np.isnan(found.auc[0])
    else:
        assert found.auc[0] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_means_are_scikit_learns(dtype):
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(200, 20)).astype(dtype), random.random((200, 20)) < 0.1
    found = summarize(scores, labels, loss="bce")
    assert list(found) == ["map", "mauc", "dprime", "classes", "auc_classes", "clips"]
    assert found["map"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert found["mauc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert (found["classes"], found["auc_classes"], found["clips"]) == (20, 20, 200)


def test_classes_that_cannot_be_ranked_are_left_out():
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(40, 5)), random.random((40, 5)) < 0.3
    labels[:, 2], labels[:, 4] = False, True
    found = summarize(scores, labels, loss="bce")
    assert (found["classes"], found["auc_classes"]) == (4, 3)
    assert found["map"] == pytest.approx(average_precision_score(labels[:, [0, 1, 3, 4]], scores[:, [0, 1, 3, 4]]))
    assert found["mauc"] == pytest.approx(roc_auc_score(labels[:, [0, 1, 3]], scores[:, [0, 1, 3]]))


@pytest.mark.parametrize(("labels", "expected"), [(np.zeros((3, 2)), (None, 0, 0)), (np.ones((3, 2)), (1.0, 2, 0))])
def test_nothing_to_rank(labels, expected):
    found = summarize(np.zeros((3, 2)), labels, loss="bce")
    assert (found["map"], found["classes"], found["auc_classes"]) == expected
    assert (found["mauc"], found["dprime"]) == (None, None)


def test_a_score_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        score_classes(np.array([[0.0], [np.nan]]), np.array([[1], [0]]))


def test_d_prime():
    """By its meaning: the AUC of two unit normals that far apart."""
    random = np.random.default_rng(0)
    noise = random.normal(size=200_000)
    positive = np.arange(len(noise)) % 2 == 0
    assert d_prime(roc_auc_score(positive, noise + 1.5 * positive)) == pytest.approx(1.5, abs=0.02)
    assert d_prime(0.5) == 0
    assert d_prime(1.0) == -d_prime(0.0) == pytest.approx(11.6, abs=0.1)


@quick
@given(st.data(), st.integers(1, 12), st.integers(3, 8), st.integers(1, 6))
def test_top_k_is_scikit_learns(data, clips, classes, k):
    """Which of equal scores goes to the higher class; so it gets the classes in the opposite order."""
    scores = np.array(
        data.draw(st.lists(st.lists(few_values, min_size=classes, max_size=classes), min_size=clips, max_size=clips))
    )
    truth = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=clips, max_size=clips)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # k that covers all classes
        expected = top_k_accuracy_score(classes - 1 - truth, scores[:, ::-1], k=k, labels=range(classes))
    assert top_k_accuracy(scores, np.eye(classes)[truth], k) == pytest.approx(expected)


def test_one_label_a_clip():
    random = np.random.default_rng(0)
    logits, truth = 3 * random.normal(size=(60, 7)) + 20 * random.normal(size=(60, 1)), random.integers(0, 7, 60)
    labels = np.eye(7)[truth]
    found = summarize(logits, labels, loss="ce")
    assert list(found)[:3] == ["top1", "top5", "map"]
    assert found["top1"] == top_k_accuracy_score(truth, logits, k=1)
    assert found["top5"] == top_k_accuracy_score(truth, logits, k=5)
    # Clips are ranked by probability: what a softmax takes no notice of, a clip's own level, changes nothing.
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    assert found["map"] == pytest.approx(average_precision_score(labels, softmax))
    assert found["map"] == pytest.approx(summarize(logits + np.arange(60)[:, None], labels, loss="ce")["map"])


@quick
@given(st.data(), st.integers(1, 8))
def test_an_action_is_the_best_pair(data, clips):
    sizes = (3, 4)
    rows = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=7, max_size=7)
    logits = np.array(data.draw(st.lists(rows, min_size=clips, max_size=clips)))
    verbs, nouns = (
        np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=clips, max_size=clips))) for size in sizes
    )
    labels = np.concatenate([np.eye(3)[verbs], np.eye(4)[nouns]], axis=1)
    chances = np.exp(log_probabilities(logits, "ce", sizes))
    right = 0
    for row, verb, noun in zip(chances, verbs, nouns, strict=True):
        pairs = itertools.product(range(3), range(4))
        right += max(pairs, key=lambda pair: row[pair[0]] * row[3 + pair[1]]) == (verb, noun)
    found = summarize(logits, labels, loss="ce", heads=sizes)
    assert list(found) == ["top1_action", "top1_verb", "top1_noun", "clips"]
    assert found["top1_action"] == pytest.approx(right / clips)
    assert found["top1_verb"] == top_k_accuracy(logits[:, :3], labels[:, :3], 1)
    assert found["top1_noun"] == top_k_accuracy(logits[:, 3:], labels[:, 3:], 1)


def test_heads_are_named():
    assert head_names((97, 300)) == ("verb", "noun")
    assert head_names((1, 2, 3)) == ("head0", "head1", "head2")


def test_probabilities():
    logits = np.array([[0.0, 1.0, -800.0, 800.0]], np.float32)
    with np.errstate(over="raise"):
        sigmoid, softmax, two = (np.exp(log_probabilities(logits, *how)) for how in (("bce",), ("ce",), ("ce", (2, 2))))
    np.testing.assert_allclose(sigmoid, [[0.5, 1 / (1 + np.exp(-1)), 0, 1]], atol=1e-12)
    np.testing.assert_allclose(softmax, [[0, 0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(two, [[1 / (1 + np.e), np.e / (1 + np.e), 0, 1]], rtol=1e-9)


def test_a_sigmoid_makes_no_high_logits_equal():
    """As it would in float32, from 17 on."""
    logits = np.array([[30.0], [40.0]])
    assert ranked(logits, "bce")[1] > ranked(logits, "bce")[0]


@pytest.mark.parametrize(("loss", "heads"), [("bce", ()), ("ce", ()), ("ce", (3, 2)), ("ce", (2, 2, 1))])
def test_names_of_scores_are_what_is_given(loss, heads):
    labels = np.eye(5)[[0, 3, 4]] if not heads else np.ones((3, 5))
    found = summarize(np.arange(15.0).reshape(3, 5), labels, loss=loss, heads=heads)
    assert set(score_names(loss, heads)) == set(found) - {"clips", "classes", "auc_classes"}
