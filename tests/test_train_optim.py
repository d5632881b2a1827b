"""Schedule, optimizer and losses against the reference's numbers."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mbt.model.mbt import MBT
from mbt.train.config import default_config, model_config
from mbt.train.loss import loss_of
from mbt.train.optim import decayed, learning_rate, make_optimizer, make_schedule
from mbt.train.sharding import name_of

pytestmark = pytest.mark.quick

GOLDEN = pathlib.Path(os.environ.get("MBT_SHARED_DATA", "../shared/data")) / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="the reference outputs are not here (MBT_SHARED_DATA)")


def small_config():
    config = default_config()
    config.train.steps = 100
    return config


@needs_golden
def test_schedule_equals_the_reference():
    reference = np.load(GOLDEN / "lr_schedule.npz")
    before_the_end = reference["steps"] < reference["total"]
    rates = learning_rate(
        jnp.asarray(reference["steps"][before_the_end]),
        base=float(reference["base"]),
        warmup_steps=float(reference["warmup"]),
        total_steps=int(reference["total"]),
    )
    np.testing.assert_allclose(rates, reference["lr"][before_the_end], rtol=1e-5, atol=1e-7)


def test_schedule_ends_at_zero_and_stays_there():
    for step in (100, 101, 1000):
        assert learning_rate(step, base=0.5, warmup_steps=5.0, total_steps=100) == pytest.approx(0, abs=1e-7)
    assert learning_rate(0, base=0.5, warmup_steps=0.0, total_steps=100) == 0.5


def test_rate_scales_with_the_batch():
    config = small_config()
    config.train.batch_size = 128
    assert make_schedule(config)(5) == pytest.approx(1.0)


@needs_golden
@pytest.mark.parametrize(("name", "reference"), [("bce", "sigmoid"), ("ce", "softmax")])
def test_losses_equal_the_reference(name, reference):
    values = np.load(GOLDEN / "losses_metrics.npz")
    labels = {"dict": values["soft"], "single": values["onehot"]} if name == "ce" else {}
    by_modality = {m: jnp.asarray(values[f"logits_{m}"]) for m in ("rgb", "spectrogram")}
    outputs = {"logits": by_modality["rgb"], "logits_by_modality": by_modality}
    for on, form in (("modality", "dict"), ("mean_logits", "single")):
        targets = jnp.asarray(labels.get(form, values["multihot"]))
        loss = loss_of(outputs, targets, name=name, smoothing=0.3, on=on)
        assert loss == pytest.approx(values[f"{reference}_{form}_ls0.3"], rel=1e-5), form


@needs_golden
def test_losses_of_two_heads_equal_the_reference():
    values = np.load(GOLDEN / "losses_metrics.npz")
    first, both = values["mh_class_splits_cumsum"]
    options = {"name": "ce", "smoothing": 0.3, "heads": (int(first), int(both - first))}
    labels = jnp.asarray(values["mh_labels"])
    single = {"logits": jnp.asarray(values["mh_logits"])}
    assert loss_of(single, labels, on="mean_logits", **options) == pytest.approx(
        values["mh_loss_single_ls0.3"], rel=1e-5
    )
    by_modality = {"rgb": single["logits"], "spectrogram": jnp.asarray(values["logits_spectrogram"])}
    loss = loss_of({"logits_by_modality": by_modality}, labels, on="modality", **options)
    assert loss == pytest.approx(values["mh_loss_dict_ls0.3"], rel=1e-5)


def test_a_zero_head_starts_at_527_ln_2():
    logits = jnp.zeros((2, 527))
    outputs = {"logits": logits, "logits_by_modality": {"rgb": logits}}
    loss = loss_of(outputs, jnp.zeros((2, 527)), name="bce", smoothing=0.0, on="modality")
    assert loss == pytest.approx(527 * np.log(2))


def first_update(config, gradient: float):
    params = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3), "positions": jnp.ones((1, 5, 3))}
    optimizer = make_optimizer(config)
    grads = {name: jnp.full_like(value, gradient) for name, value in params.items()}
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_sgd_clips_at_the_global_norm():
    config = small_config()
    config.optim.warmup = 0.0
    updates = first_update(config, gradient=100.0)
    norm = np.sqrt(sum(float(jnp.square(update).sum()) for update in updates.values()))
    assert norm == pytest.approx(0.5, rel=1e-5)
    unclipped = first_update(config, gradient=1e-3)
    np.testing.assert_allclose(unclipped["bias"], -0.5e-3, rtol=1e-5)


def test_weight_decay_is_for_kernels_by_their_names_whatever_their_shapes():
    """Biases of queries, keys and values have two axes; a kernel of one head, or of one frame, may begin with 1."""
    for patch, size in (((16, 16), "vit_ti"), ((1, 16, 16), "vit_s")):
        config = small_config()
        config.model.update(size=size, patch=patch, num_classes=3, pre_logits=8, depth=2, fusion_layer=1, heads=1)
        config.data.update(mel_mean=0.0, mel_stddev=1.0)
        model = nnx.eval_shape(lambda config=config: MBT(model_config(config), rngs=nnx.Rngs(0)))
        params = nnx.as_pure(nnx.state(model))
        leaves = jax.tree_util.tree_leaves_with_path(decayed(params))
        names = {name_of(path): yes for path, yes in leaves}
        assert {name for name, yes in names.items() if yes} == {name for name in names if name.endswith("/kernel")}
        assert names["layers/0/rgb/attention/query/kernel"] and not names["layers/0/rgb/attention/query/bias"]
        assert names["tokens/rgb/kernel"] and not names["bottlenecks"]


def test_weight_decay_spares_all_but_kernels():
    config = small_config()
    config.optim.update(name="adamw", warmup=0.0, weight_decay=0.1)
    updates = first_update(config, gradient=0.0)
    assert {name for name, update in updates.items() if (np.asarray(update) != 0).any()} == {"kernel"}
