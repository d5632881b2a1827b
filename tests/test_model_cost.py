"""What models cost, against the published counts and by hand."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mbt.model.config import SIZES, MBTConfig, Modality, Size
from mbt.model.cost import cost_of, product_macs, reference_excess_gmac

RGB = Modality(name="rgb", shape=(8, 224, 224), channels=3, patch=(16, 16))
SOUND = Modality(name="spectrogram", shape=(400, 128), channels=1, patch=(16, 16))
# ViT-B, t = 4 s, B = 4.
BASE = MBTConfig(modalities=(RGB, SOUND), size=SIZES["vit_b"], num_classes=527)
SMALL = [f"--config.model.{key}" for key in ("depth=2", "width=16", "heads=2", "mlp_dim=32", "fusion_layer=1")]


def test_products_are_counted_inside_jitted_functions_too():
    def function(x, y):
        return jnp.einsum("bij,bjk->bik", x, y) + jax.jit(jnp.matmul)(x, y)

    x, y = jnp.ones((3, 5, 7)), jnp.ones((3, 7, 11))
    assert product_macs(jax.make_jaxpr(function)(x, y).jaxpr) == 2 * 3 * 5 * 7 * 11


@pytest.mark.parametrize("layer", [0, 8, 12])
def test_bottlenecks_take_at_most_199_gmac(layer):
    assert 197 < cost_of(dataclasses.replace(BASE, fusion_layer=layer)).product_gmac <= 199


def test_self_attention_takes_at_most_210_gmac():
    assert 208 < cost_of(dataclasses.replace(BASE, fusion="self_attention", fusion_layer=0)).product_gmac <= 210


def test_cross_attention_takes_what_equation_6_needs():
    """At most 235 GMAC, where the reference takes 417."""
    config = dataclasses.replace(BASE, fusion="cross_attention", fusion_layer=0)
    ours = cost_of(config).product_gmac
    assert 233 < ours <= 235
    assert ours + reference_excess_gmac(config) == pytest.approx(417, abs=0.5)


def test_late_fusion_has_nothing_in_excess():
    assert reference_excess_gmac(dataclasses.replace(BASE, fusion="cross_attention", fusion_layer=12)) == 0


def test_remat_keeps_neither_attention_nor_the_mlps_inside():
    size = Size(width=32, depth=1, heads=2, mlp_dim=64)
    config = MBTConfig(modalities=(SOUND,), size=size, num_classes=3, fusion_layer=0)
    plain, remat = cost_of(config), cost_of(dataclasses.replace(config, remat=True))
    tokens = 201
    weights, hidden = 4 * 2 * tokens**2, 4 * 64 * tokens
    assert plain.activation_bytes - remat.activation_bytes > weights + hidden
    assert plain.parameters == remat.parameters
    assert plain.activation_bytes - plain.cudnn_activation_bytes >= weights
    assert remat.activation_bytes == remat.cudnn_activation_bytes  # weights are made again
    half = cost_of(dataclasses.replace(config, dtype="bfloat16"))
    assert half.activation_bytes < plain.activation_bytes


def test_copies_of_weights_are_no_activations():
    """In bfloat16 they are kept once, whatever the batch: a model of one token has little else."""
    size = Size(width=256, depth=2, heads=2, mlp_dim=1024)
    config = MBTConfig(modalities=(SOUND,), size=size, num_classes=3, fusion_layer=0, dtype="bfloat16")
    small = dataclasses.replace(config, size=Size(width=256, depth=2, heads=2, mlp_dim=256))
    tokens, wider = 201, 1024 - 256
    difference = cost_of(config).activation_bytes - cost_of(small).activation_bytes
    assert difference <= 2 * 2 * 6 * tokens * wider  # two layers, of bfloat16 some arrays of the MLP's width


def test_the_sweep_draws_both_strategies_and_the_reference(mbt_train, tmp_path):
    plot = tmp_path / "fig3.png"
    words = ["--sweep=fusion_layer", f"--plot={plot}", *SMALL]
    done = mbt_train("cost", "--config=demo", *words, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["fusion"], row["fusion_layer"]) for row in rows] == [
        (fusion, layer) for fusion in ("bottleneck", "cross_attention", "reference_cross_attention") for layer in (0, 2)
    ]
    assert rows[4]["product_gmac"] > rows[2]["product_gmac"] > rows[3]["product_gmac"] == rows[5]["product_gmac"]
    assert np.asarray(Image.open(plot).convert("L")).std() > 5


def test_one_model_is_one_row(mbt_train):
    done = mbt_train("cost", "--config=demo", *SMALL)
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split()[:4] == ["fusion", "L_f", "parameters", "GMAC"]
    assert row.split()[:2] == ["bottleneck", "1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot=x.png"], "--plot=x.png: only a sweep is drawn"),
        (["--sweep=fusion_layer", "--plot=absent/x.png"], "--plot=absent/x.png: there is no folder absent"),
        (["--sweep=fusion_layer", "--config.modalities=rgb"], "rgb alone has nothing to fuse"),
        (["--config.model.fusion=late"], "fusion must be bottleneck or cross_attention or self_attention; got late"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(mbt_train, words, message):
    done = mbt_train("cost", "--config=demo", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
