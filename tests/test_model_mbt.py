"""The model against the reference's outputs, and by its properties."""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mbt.model.config import SIZES, MBTConfig, Modality, Size
from mbt.model.encoder import drop_branch
from mbt.model.mbt import MBT
from mbt.model.tokens import patchify

GOLDEN = pathlib.Path(os.environ.get("MBT_SHARED_DATA", "../shared/data")) / "golden"
TINY = Size(width=16, depth=3, heads=2, mlp_dim=32)
RGB = Modality(name="rgb", shape=(2, 8, 8), channels=3, patch=(4, 4))
SOUND = Modality(name="spectrogram", shape=(10, 8), channels=1, patch=(4, 4))


def tiny_config(**changes) -> MBTConfig:
    config = MBTConfig(modalities=(RGB, SOUND), size=TINY, num_classes=5, fusion_layer=1, num_bottlenecks=2)
    return dataclasses.replace(config, **changes)


def random_model(config: MBTConfig) -> MBT:
    """A model whose every parameter is random, the head and the CLS too."""
    model = MBT(config, rngs=nnx.Rngs(0))
    leaves, tree = jax.tree.flatten(nnx.state(model, nnx.Param))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    nnx.update(model, jax.tree.unflatten(tree, noise))
    return model


def random_inputs(config: MBTConfig, batch: int = 3) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(2), len(config.modalities))
    return {
        m.name: jax.random.normal(key, (batch, *m.shape, m.channels))
        for m, key in zip(config.modalities, keys, strict=True)
    }


def run(model: MBT, inputs: dict[str, jax.Array], key: jax.Array | None = None) -> dict:
    """The model's outputs, compiled: op by op would take longer."""
    graph, params = nnx.split(model)
    return jax.jit(lambda params, inputs, key: nnx.merge(graph, params)(inputs, key=key))(params, inputs, key)


def reference_config(name: str) -> MBTConfig:
    text = json.loads((GOLDEN / f"{name}.json").read_text())
    inputs = np.load(GOLDEN / f"{name}.npz")
    modalities = []
    for modality in text["modality_fusion"]:
        *shape, channels = inputs[f"inputs/{modality}"].shape[1:]
        modalities.append(Modality(name=modality, shape=tuple(shape), channels=channels, patch=tuple(text["patches"])))
    size = Size(width=text["hidden_size"], depth=text["num_layers"], heads=text["num_heads"], mlp_dim=text["mlp_dim"])
    bottlenecks = inputs["params/bottleneck"].shape[1] if "params/bottleneck" in inputs else 0
    return MBTConfig(
        modalities=tuple(modalities),
        size=size,
        num_classes=text["num_classes"],
        fusion_layer=text["fusion_layer"],
        num_bottlenecks=bottlenecks,
    )


BLOCK_NAMES = {
    "LayerNorm_0": "attention_norm",
    "LayerNorm_1": "mlp_norm",
    "MultiHeadDotProductAttention_0": "attention",
    "MlpBlock_0": "mlp",
    "Dense_0": "expand",
    "Dense_1": "contract",
}


def our_path(reference_path: str) -> tuple:
    """Where a parameter of the reference lives in ours; rgb carries no suffix there."""
    first, *rest = reference_path.removeprefix("Transformer/").split("/")
    if first.startswith("encoderblock_"):
        layer, _, modality = first.removeprefix("encoderblock_").partition("_")
        return ("layers", int(layer), modality or "rgb", *(BLOCK_NAMES.get(part, part) for part in rest))
    for prefix, ours in (("embedding", None), ("posembed_input", "positions"), ("cls", "cls")):
        if first.startswith(prefix):
            return ("tokens", first.removeprefix(prefix).strip("_") or "rgb", ours or rest[0])
    return ({"encoder_norm": "norm", "output_projection": "head", "bottleneck": "bottlenecks"}[first], *rest)


def load_reference(model: MBT, arrays) -> None:
    names = [name for name in arrays if name.startswith("params/")]
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    params = dict(state)
    assert {our_path(name.removeprefix("params/")) for name in names} == set(params)
    for name in names:
        variable = params[our_path(name.removeprefix("params/"))]
        assert variable.shape == arrays[name].shape, name
        variable[...] = jnp.asarray(arrays[name])
    nnx.update(model, nnx.from_flat_state(params.items()))


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference outputs are not here (MBT_SHARED_DATA)")
@pytest.mark.parametrize("name", ["bottleneck_f2_b4", "bottleneck_f3_b2", "rgb_only"])
def test_equals_the_reference(name):
    arrays = np.load(GOLDEN / f"{name}.npz")
    config = reference_config(name)
    model = MBT(config, rngs=nnx.Rngs(0))
    load_reference(model, arrays)
    inputs = {m.name: jnp.asarray(arrays[f"inputs/{m.name}"]) for m in config.modalities}
    outputs = run(model, inputs)
    tokens = np.concatenate([outputs["tokens"][m.name] for m in config.modalities], axis=1)
    np.testing.assert_allclose(outputs["logits"], arrays["logits"], atol=1e-5)
    np.testing.assert_allclose(tokens, arrays["tokens"], atol=1e-5)
    for m in config.modalities:
        np.testing.assert_allclose(outputs["cls"][m.name], arrays[f"prelogits/{m.name}"], atol=1e-5)
        if f"train_logits/{m.name}" in arrays:
            logits = outputs["logits_by_modality"][m.name]
            np.testing.assert_allclose(logits, arrays[f"train_logits/{m.name}"], atol=1e-5)


def test_patches_are_cut_frame_by_frame_in_row_major_order():
    x = np.arange(2 * 8 * 8 * 3).reshape(1, 2, 8, 8, 3)
    patches = patchify(jnp.asarray(x), RGB)
    assert patches.shape == (1, 8, 48)
    np.testing.assert_array_equal(patches[0, 5], x[0, 1, 0:4, 4:8].reshape(-1))


def test_rows_that_fill_no_patch_are_dropped():
    x = jnp.arange(80.0).reshape(1, 10, 8, 1)
    assert SOUND.grid == (2, 2)
    np.testing.assert_array_equal(patchify(x, SOUND), patchify(x.at[:, 8:].set(-1), SOUND))


def test_the_papers_token_counts():
    assert Modality(name="rgb", shape=(8, 224, 224), channels=3, patch=(16, 16)).num_patches == 1568
    for seconds, count in ((8, 400), (2, 96), (6, 296)):
        sound = Modality(name="spectrogram", shape=(100 * seconds, 128), channels=1, patch=(16, 16))
        assert sound.num_patches == count


def test_vit_b_has_the_published_number_of_parameters():
    rgb = Modality(name="rgb", shape=(224, 224), channels=3, patch=(16, 16))
    config = MBTConfig(modalities=(rgb,), size=SIZES["vit_b"], num_classes=1000)
    model = nnx.eval_shape(lambda: MBT(config, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 86_567_656


def test_a_new_model_gives_zero_logits():
    config = tiny_config()
    outputs = run(MBT(config, rngs=nnx.Rngs(0)), random_inputs(config))
    np.testing.assert_array_equal(outputs["logits"], np.zeros((3, 5)))


def test_logits_are_the_mean_over_modalities():
    config = tiny_config()
    outputs = run(random_model(config), random_inputs(config))
    mean = np.mean([*outputs["logits_by_modality"].values()], axis=0)
    np.testing.assert_allclose(outputs["logits"], mean, atol=1e-6)


def cross_gradient(config: MBTConfig) -> float:
    """How much the RGB tokens move with the spectrogram."""
    model, inputs = random_model(config), random_inputs(config)

    def rgb_tokens(spectrogram):
        return jnp.square(model(inputs | {"spectrogram": spectrogram})["tokens"]["rgb"]).sum()

    return float(jnp.abs(jax.jit(jax.grad(rgb_tokens))(inputs["spectrogram"])).max())


def test_modalities_meet_only_through_the_bottlenecks():
    assert cross_gradient(tiny_config(fusion_layer=1)) > 0
    assert cross_gradient(tiny_config(fusion_layer=3)) == 0
    assert cross_gradient(tiny_config(num_bottlenecks=0)) == 0
    # The last layer alone cannot exchange: z_fsn is the same for all before it.
    assert cross_gradient(tiny_config(fusion_layer=2)) == 0


def test_three_modalities_and_one():
    flow = Modality(name="flow", shape=(2, 8, 8), channels=2, patch=(2, 4, 4))
    for modalities in ((RGB, SOUND, flow), (flow,)):
        config = tiny_config(modalities=modalities)
        outputs = run(random_model(config), random_inputs(config))
        assert outputs["logits"].shape == (3, 5)
        assert set(outputs["tokens"]) == {m.name for m in modalities}


def test_bfloat16_is_close_and_its_logits_are_float32():
    config = tiny_config()
    inputs = random_inputs(config)
    exact = run(random_model(config), inputs)["logits"]
    rough = run(random_model(dataclasses.replace(config, dtype="bfloat16")), inputs)["logits"]
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=0.05)


def test_stochastic_depth_drops_whole_examples_and_does_not_rescale():
    branch = jnp.ones((2000, 2, 3))
    kept = np.asarray(drop_branch(branch, 0.3, jax.random.key(0)))
    assert set(np.unique(kept.reshape(2000, -1).mean(axis=1))) == {0.0, 1.0}
    assert abs(kept.mean() - 0.7) < 0.05
    np.testing.assert_array_equal(drop_branch(branch, 0.3, None), branch)


def test_stochastic_depth_acts_only_with_a_key():
    config = tiny_config(stochastic_depth=0.9)
    model, inputs = random_model(config), random_inputs(config)
    plain = run(random_model(tiny_config()), inputs)["logits"]
    np.testing.assert_array_equal(run(model, inputs)["logits"], plain)
    assert not np.allclose(run(model, inputs, jax.random.key(0))["logits"], plain)
    assert [config.drop_rate(layer) for layer in range(3)] == [0.0, 0.45, 0.9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion_layer": 4}, "fusion_layer must be in 0..3"),
        ({"modalities": ()}, "one or more"),
        ({"modalities": (RGB, RGB)}, "different names"),
        ({"dtype": "float16"}, "dtype must be"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_an_input_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="smaller than a patch"):
        Modality(name="rgb", shape=(2, 8, 8), channels=3, patch=(16, 16))
