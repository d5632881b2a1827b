"""Mixup against the reference, and in a training step."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt.train.config import check, default_config
from mbt.train.errors import UsageError
from mbt.train.loss import loss_of
from mbt.train.mixup import draw_weights, mix, mix_batch
from mbt.train.step import mixed, mixup_weights

GOLDEN = pathlib.Path(os.environ.get("MBT_SHARED_DATA", "../shared/data")) / "golden"
NAMES = ("rgb", "spectrogram")


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference outputs are not here (MBT_SHARED_DATA)")
@pytest.mark.parametrize("kind", ["mixup", "mixmod"])
def test_mixup_equals_the_reference(kind):
    arrays = np.load(GOLDEN / "mixup.npz")
    inputs = {m: jnp.asarray(arrays[f"inputs/{m}"]) for m in NAMES}
    weights = {m: jnp.asarray(w)[None] for m, w in zip(NAMES, arrays[f"{kind}/weights"], strict=True)}
    xs, labels = mix_batch(inputs, jnp.asarray(arrays["label"]), weights)
    for m in NAMES:
        np.testing.assert_allclose(xs[m], arrays[f"{kind}/out_inputs/{m}"], atol=1e-6)
        np.testing.assert_allclose(labels[m], arrays[f"{kind}/out_label/{m}"], atol=1e-6)


def test_no_example_leaves_its_group():
    values = jnp.arange(6.0)[:, None]
    mixed_values = mix(values, jnp.array([0.25, 1.0]))
    np.testing.assert_allclose(mixed_values[:, 0], [1.5, 1.0, 0.5, 3, 4, 5])


def test_weights_are_one_for_all_modalities_or_one_each():
    options = {"groups": 4000, "alpha": 0.3}
    one = draw_weights(jax.random.key(0), NAMES, by_modality=False, **options)
    each = draw_weights(jax.random.key(0), NAMES, by_modality=True, **options)
    np.testing.assert_array_equal(one["rgb"], one["spectrogram"])
    assert abs(np.corrcoef(each["rgb"], each["spectrogram"])[0, 1]) < 0.1
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert float(one["rgb"].mean()) == pytest.approx(0.5, abs=0.03)
    assert float(one["rgb"].var()) == pytest.approx(1 / (4 * 1.6), abs=0.01)


def mixup_config(**changes):
    config = default_config()
    config.data.root = "somewhere"
    config.train.batch_size = 4
    config.mixup.update({"alpha": 0.3, "group": 2} | changes)
    return config


def test_a_step_mixes_only_when_asked():
    inputs, labels = {m: jnp.arange(4.0)[:, None] for m in NAMES}, jnp.eye(4)
    same, untouched = mixed(inputs, labels, mixup_weights(default_config(), jax.random.key(0)))
    assert same is inputs and untouched is labels
    xs, targets = mixed(inputs, labels, mixup_weights(mixup_config(by_modality=True), jax.random.key(0)))
    assert set(targets) == set(NAMES)
    assert not np.allclose(xs["rgb"], xs["spectrogram"])
    np.testing.assert_allclose(targets["rgb"] @ np.arange(4.0)[:, None], xs["rgb"], atol=1e-6)


def test_each_modality_answers_for_its_own_labels():
    logits = {m: jax.random.normal(jax.random.key(i), (2, 3)) for i, m in enumerate(NAMES)}
    outputs = {"logits": logits["rgb"], "logits_by_modality": logits}
    options = {"name": "ce", "smoothing": 0.0, "on": "modality"}
    labels = {"rgb": jnp.eye(3)[:2], "spectrogram": jnp.eye(3)[1:]}
    alone = [loss_of({"logits": x, "logits_by_modality": {m: x}}, labels[m], **options) for m, x in logits.items()]
    assert loss_of(outputs, labels, **options) == pytest.approx(float(sum(alone)) / 2)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("mixup.alpha", {"mixup.alpha": -1.0}),
        ("mixup.group", {"mixup.group": 7}),
        ("mixup.by_modality", {"mixup.by_modality": True, "model.pooling": "gap"}),
        ("mixup.by_modality", {"mixup.by_modality": True, "loss.on": "mean_logits"}),
    ],
)
def test_what_cannot_be_mixed_is_refused(key, changes):
    config = mixup_config()
    check(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UsageError, match=rf"config\.{key}="):
        check(config)
