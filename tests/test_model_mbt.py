"""The model by its properties: every strategy, sharing, pooling, heads, any inputs.

The models run op by op where no test is about compiling: most of them have the same shapes, so what one test compiled
of an operation serves the others, where a whole model would be compiled anew for each config.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mbt.model.attention import attend, attend_evenly, choose_implementation
from mbt.model.config import SIZES, MBTConfig, Modality, Size
from mbt.model.encoder import Block, drop_branch
from mbt.model.fusion import Stream, fuse
from mbt.model.mbt import MBT, split_heads
from mbt.model.rollout import rollout, rollout_rows
from mbt.model.tokens import patchify

TINY = Size(width=16, depth=3, heads=2, mlp_dim=32)
RGB = Modality(name="rgb", shape=(2, 8, 8), channels=3, patch=(4, 4))
SOUND = Modality(name="spectrogram", shape=(10, 8), channels=1, patch=(4, 4))
# No name of it is in model/: whatever works with it works with any input.
FLOW = Modality(name="optical flow", shape=(2, 8, 8), channels=2, patch=(2, 4, 4))
STRATEGIES = (
    {"fusion": "bottleneck"},
    {"fusion": "bottleneck", "bottleneck_update": "in_turn"},
    {"fusion": "cross_attention"},
    {"fusion": "self_attention"},
)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda changes: "-".join(changes.values()))


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


def count_parameters(config: MBTConfig) -> int:
    model = nnx.eval_shape(lambda: MBT(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


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


@pytest.mark.parametrize(("size", "count"), [("vit_s", 22_050_664), ("vit_b", 86_567_656), ("vit_l", 304_326_632)])
def test_vits_have_the_published_numbers_of_parameters(size, count):
    """Of /16 on 224 x 224 with 1000 classes, as timm 1.0 counts its vit_*_patch16_224."""
    rgb = Modality(name="rgb", shape=(224, 224), channels=3, patch=(16, 16))
    assert count_parameters(MBTConfig(modalities=(rgb,), size=SIZES[size], num_classes=1000)) == count


@every_strategy
def test_a_new_model_gives_zero_logits(strategy):
    config = tiny_config(**strategy)
    outputs = MBT(config, rngs=nnx.Rngs(0))(random_inputs(config))
    np.testing.assert_array_equal(outputs["logits"], np.zeros((3, 5)))


def test_logits_are_the_mean_over_modalities():
    config = tiny_config()
    outputs = random_model(config)(random_inputs(config))
    mean = np.mean([*outputs["logits_by_modality"].values()], axis=0)
    np.testing.assert_allclose(outputs["logits"], mean, atol=1e-6)


def cross_gradient(config: MBTConfig) -> float:
    """How much the RGB tokens move with the spectrogram."""
    model, inputs = random_model(config), random_inputs(config)

    def rgb_tokens(spectrogram):
        return jnp.square(model(inputs | {"spectrogram": spectrogram})["tokens"]["rgb"]).sum()

    return float(jnp.abs(jax.grad(rgb_tokens)(inputs["spectrogram"])).max())


@every_strategy
def test_modalities_meet_from_the_fusion_layer_on(strategy):
    assert cross_gradient(tiny_config(**strategy, fusion_layer=0)) > 0
    assert cross_gradient(tiny_config(**strategy, fusion_layer=1)) > 0
    assert cross_gradient(tiny_config(**strategy, fusion_layer=3)) == 0


@every_strategy
def test_nothing_crosses_before_the_fusion_layer(strategy):
    """The stream that enters layer L_f = 2 has RGB tokens that know nothing of the spectrogram."""
    config = tiny_config(**strategy, fusion_layer=2)
    before = dataclasses.replace(config, size=dataclasses.replace(TINY, depth=2))
    assert cross_gradient(before) == 0


def test_modalities_meet_only_through_the_bottlenecks():
    assert cross_gradient(tiny_config(num_bottlenecks=0)) == 0
    # The last layer alone cannot exchange: z_fsn is the same for all before it.
    assert cross_gradient(tiny_config(fusion_layer=2)) == 0
    model = random_model(tiny_config())
    assert cross_gradient_of(model, jax.lax.stop_gradient) == 0
    assert cross_gradient_of(model, lambda fsn: fsn) > 0


def cross_gradient_of(model: MBT, cut) -> float:
    """Likewise, with the bottlenecks between the layers passed through `cut`."""
    config, inputs = model.config, random_inputs(model.config)

    def rgb_tokens(spectrogram):
        stream = model.embed(inputs | {"spectrogram": spectrogram})
        for layer in range(config.size.depth):
            stream = fuse(config, layer, lambda m, z, context, layer=layer: model.block(layer, m)(z, context), stream)
            stream = Stream(stream.z, cut(stream.fsn))
        return jnp.square(stream.z["rgb"]).sum()

    return float(jnp.abs(jax.grad(rgb_tokens)(inputs["spectrogram"])).max())


def test_the_bottlenecks_in_turn_tell_the_second_modality_first():
    """The first modality updates the bottlenecks before the second reads them, so one layer is enough for that."""
    config = tiny_config(bottleneck_update="in_turn", fusion_layer=2)
    assert cross_gradient(config) == 0
    assert cross_gradient(dataclasses.replace(config, modalities=(SOUND, RGB))) > 0


@every_strategy
def test_permuting_patches_with_their_positions_changes_nothing(strategy):
    config = tiny_config(**strategy)
    model, inputs = random_model(config), random_inputs(config)
    before = model(inputs)["logits"]
    order = np.random.default_rng(0).permutation(RGB.num_patches)
    patches = patchify(inputs["rgb"], RGB)[:, order].reshape(3, 2, 2, 2, 4, 4, 3)
    positions = model.tokens["rgb"].positions
    positions[...] = positions[...].at[:, 1:].set(positions[:, 1:][:, order])
    frames = patches.transpose(0, 1, 2, 4, 3, 5, 6).reshape(inputs["rgb"].shape)
    assert not np.allclose(frames, inputs["rgb"])
    np.testing.assert_allclose(model(inputs | {"rgb": frames})["logits"], before, atol=1e-5)


def test_cross_attention_with_tied_weights_is_self_attention():
    joined = tiny_config(fusion="self_attention", fusion_layer=1)
    crossed = dataclasses.replace(joined, fusion="cross_attention", share_after=True)
    own = random_model(dataclasses.replace(crossed, share_after=False))
    inputs, model = random_inputs(joined), random_model(joined)
    other, params = MBT(crossed, rngs=nnx.Rngs(1)), nnx.state(model)
    nnx.update(other, params)
    expected = model(inputs)["logits"]
    np.testing.assert_allclose(other(inputs)["logits"], expected, atol=1e-5)
    assert not np.allclose(own(inputs)["logits"], expected, atol=1e-3)


@every_strategy
def test_three_modalities_and_one(strategy):
    """One of them with a name, a shape and channels that model/ knows nothing of."""
    for modalities in ((RGB, SOUND, FLOW), (FLOW,)):
        config = tiny_config(modalities=modalities, **strategy)
        outputs = random_model(config)(random_inputs(config))
        assert outputs["logits"].shape == (3, 5)
        assert set(outputs["tokens"]) == {m.name for m in modalities}


@every_strategy
def test_a_third_modality_is_heard_by_the_first(strategy):
    config = tiny_config(modalities=(RGB, SOUND, FLOW), **strategy)
    inputs = random_inputs(config)
    # Examples 0 and 1 differ in the flow alone.
    inputs = {m: x if m == FLOW.name else x.at[1].set(x[0]) for m, x in inputs.items()}
    rgb = random_model(config)(inputs)["tokens"]["rgb"]
    assert not np.allclose(rgb[0], rgb[1], atol=1e-3)
    assert cross_gradient(dataclasses.replace(config, fusion_layer=3)) == 0


def test_gap_averages_all_patches():
    config = tiny_config(pooling="gap")
    outputs = random_model(config)(random_inputs(config))
    assert [tokens.shape[1] for tokens in outputs["tokens"].values()] == [8, 4]
    mean = np.concatenate([*outputs["tokens"].values()], axis=1).mean(axis=1)
    np.testing.assert_allclose(outputs["pre_logits"]["all"], mean, atol=1e-6)
    np.testing.assert_array_equal(outputs["logits_by_modality"]["all"], outputs["logits"])


@every_strategy
def test_shared_weights_are_fewer(strategy):
    block = count_parameters(tiny_config(share_before=False)) - count_parameters(tiny_config(share_before=True))
    config = tiny_config(**strategy, fusion_layer=1)
    shared = dataclasses.replace(config, share_before=True, share_after=True)
    saved = 1 if config.fusion == "self_attention" else 3
    assert count_parameters(config) - count_parameters(shared) == saved * block
    assert random_model(shared)(random_inputs(shared))["logits"].shape == (3, 5)


def test_several_heads_lie_side_by_side():
    config = tiny_config(num_classes=5, head_sizes=(2, 3))
    logits = random_model(config)(random_inputs(config))["logits"]
    verbs, nouns = split_heads(logits, config.head_sizes)
    assert (verbs.shape, nouns.shape) == ((3, 2), (3, 3))
    np.testing.assert_array_equal(np.concatenate([verbs, nouns], axis=1), logits)
    (whole,) = split_heads(logits, ())
    np.testing.assert_array_equal(whole, logits)


def test_the_pre_logits_layer_is_a_tanh():
    config = tiny_config(pre_logits=7)
    model, inputs = random_model(config), random_inputs(config)
    outputs = model(inputs)
    cls = outputs["tokens"]["rgb"][:, 0]
    expected = np.tanh(cls @ model.pre_logits.kernel[...] + model.pre_logits.bias[...])
    np.testing.assert_allclose(outputs["pre_logits"]["rgb"], expected, atol=1e-5)
    assert model.head.kernel.shape == (7, 5)


@every_strategy
def test_bfloat16_is_close_and_its_logits_are_float32(strategy):
    """Within 3 % of the largest float32 logit: two layers of 8-bit mantissas."""
    config = tiny_config(**strategy)
    inputs = random_inputs(config)
    exact = random_model(config)(inputs)["logits"]
    rough = random_model(dataclasses.replace(config, dtype="bfloat16"))(inputs)["logits"]
    assert rough.dtype == jnp.float32
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.03 * np.abs(exact).max())


@pytest.mark.parametrize("fusion", ["bottleneck", "self_attention"])
def test_bfloat16_at_the_papers_lengths(fusion):
    """1573 and 405 tokens with bottlenecks, 1970 together: logits within 3 %, gradients within 5 % of their norm."""
    rgb = Modality(name="rgb", shape=(8, 224, 224), channels=3, patch=(16, 16))
    sound = Modality(name="spectrogram", shape=(800, 128), channels=1, patch=(16, 16))
    size = dataclasses.replace(TINY, depth=2)
    config = tiny_config(modalities=(rgb, sound), fusion=fusion, fusion_layer=0, num_bottlenecks=4, size=size)
    exact = logits_and_gradient(config)
    rough = logits_and_gradient(dataclasses.replace(config, dtype="bfloat16"))
    np.testing.assert_allclose(rough[0], exact[0], atol=0.03 * np.abs(exact[0]).max())
    assert 0 < np.linalg.norm(rough[1] - exact[1]) < 0.05 * np.linalg.norm(exact[1])


def logits_and_gradient(config: MBTConfig) -> tuple[np.ndarray, np.ndarray]:
    graph, params = nnx.split(random_model(config))
    inputs = random_inputs(config, batch=1)

    def loss(params):
        logits = nnx.merge(graph, params)(inputs)["logits"]
        return jnp.square(logits).sum(), logits

    (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return np.asarray(logits), np.asarray(jax.flatten_util.ravel_pytree(gradients)[0])


def gradient(config: MBTConfig) -> jax.Array:
    graph, params = nnx.split(random_model(config))

    def loss(params):
        return jnp.square(nnx.merge(graph, params)(random_inputs(config), key=jax.random.key(0))["logits"]).sum()

    return jax.flatten_util.ravel_pytree(jax.jit(jax.grad(loss))(params))[0]


@pytest.mark.parametrize("changes", [{"stochastic_depth": 0.5}, {"fusion": "cross_attention"}], ids=str)
def test_remat_changes_no_gradient(changes):
    config = tiny_config(**changes)
    plain = gradient(config)
    np.testing.assert_allclose(gradient(dataclasses.replace(config, remat=True)), plain, atol=1e-4)
    assert np.abs(plain).max() > 1


def test_stochastic_depth_drops_whole_examples_and_does_not_rescale():
    branch, keys = jnp.ones((2000, 2, 3)), jax.random.split(jax.random.key(0), 2000)
    kept = np.asarray(drop_branch(branch, 0.3, keys))
    assert set(np.unique(kept.reshape(2000, -1).mean(axis=1))) == {0.0, 1.0}
    assert abs(kept.mean() - 0.7) < 0.05
    np.testing.assert_array_equal(drop_branch(branch, 0.3, None), branch)


def test_stochastic_depth_rescales_on_request():
    kept = np.asarray(drop_branch(jnp.ones((2000, 2, 3)), 0.3, jax.random.split(jax.random.key(0), 2000), rescale=True))
    assert abs(kept.mean() - 1) < 0.05
    config = tiny_config(stochastic_depth=0.5)
    assert Block(config, 2, rngs=nnx.Rngs(0)).rescale is False
    assert Block(dataclasses.replace(config, rescale_kept=True), 2, rngs=nnx.Rngs(0)).rescale is True


def test_branches_and_modalities_are_dropped_independently():
    config = tiny_config(stochastic_depth=0.5, fusion_layer=3)
    model, inputs = random_model(config), random_inputs(config, batch=64)
    plain, dropped = model(inputs)["tokens"], model(inputs, key=jax.random.key(3))["tokens"]
    same = {m: np.isclose(plain[m], dropped[m], atol=1e-6).all(axis=(1, 2)) for m in plain}
    # Both branches of layers 1 (rate 1/4) and 2 (rate 1/2) are kept with probability 9/16 * 1/4 = 0.14.
    assert 2 <= same["rgb"].sum() <= 20
    assert not np.array_equal(same["rgb"], same["spectrogram"])


def test_stochastic_depth_acts_only_with_a_key():
    config = tiny_config(stochastic_depth=0.9)
    model, inputs = random_model(config), random_inputs(config)
    plain = random_model(tiny_config())(inputs)["logits"]
    np.testing.assert_array_equal(model(inputs)["logits"], plain)
    assert not np.allclose(model(inputs, key=jax.random.key(0))["logits"], plain)
    assert [config.drop_rate(layer) for layer in range(3)] == [0.0, 0.45, 0.9]


@every_strategy
@pytest.mark.parametrize("pooling", ["cls", "gap"])
def test_rollout_rows_sum_to_one(strategy, pooling):
    config = tiny_config(**strategy, pooling=pooling)
    rows = rollout_rows(random_model(config), random_inputs(config))
    assert set(rows) == ({"rgb", "spectrogram"} if pooling == "cls" else {"all"})
    for row in rows.values():
        assert (np.asarray(row) >= 0).all()
        np.testing.assert_allclose(row.sum(axis=1), np.ones(3), atol=1e-5)


@every_strategy
def test_rollout_reaches_every_input_once_they_meet(strategy):
    config = tiny_config(**strategy)
    maps = rollout(random_model(config), random_inputs(config))
    assert {name: array.shape for name, array in maps["rgb"].items()} == {
        "rgb": (3, 2, 2, 2),
        "spectrogram": (3, 2, 2),
    }
    assert (maps["rgb"]["spectrogram"] > 0).all()
    late = dataclasses.replace(config, fusion_layer=3)
    apart = rollout(random_model(late), random_inputs(late))
    assert (apart["rgb"]["spectrogram"] == 0).all()
    assert (apart["rgb"]["rgb"] > 0).all()


def test_rollout_of_one_layer_is_half_its_attention():
    config = tiny_config(modalities=(RGB,), size=dataclasses.replace(TINY, depth=1), fusion_layer=0)
    model, inputs = random_model(config), random_inputs(config)
    tokens = model.embed(inputs).z["rgb"]
    _, weights = model.block(0, "rgb").with_weights(tokens)
    expected = np.asarray(weights).mean(axis=1)[:, 0, 1:].reshape(3, 2, 2, 2) / 2
    np.testing.assert_allclose(rollout(model, inputs)["rgb"]["rgb"], expected, atol=1e-6)


@pytest.mark.parametrize("with_context", [False, True])
def test_the_path_with_weights_computes_the_same(with_context):
    block = Block(tiny_config(), 0, rngs=nnx.Rngs(0))
    z, context = jax.random.normal(jax.random.key(0), (2, 2, 7, 16))
    context = context if with_context else None
    tokens, weights = block.with_weights(z, context)
    np.testing.assert_allclose(tokens, block(z, context), atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=-1), np.ones((2, 2, 7)), atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (7, 12), (6, 9), (6, 6)])
def test_attention_filled_up_to_even_lengths_is_the_same(queries, keys):
    """What cuDNN is given, computed by XLA: forward and backward."""
    q, k, v = (jax.random.normal(jax.random.key(i), (2, n, 2, 8)) for i, n in enumerate((queries, keys, keys)))

    def loss(function):
        return lambda *arrays: jnp.sin(function(*arrays, "xla")).sum()

    np.testing.assert_allclose(attend_evenly(q, k, v, "xla"), attend(q, k, v, "xla"), atol=1e-6)
    for ours, plain in zip(
        jax.grad(loss(attend_evenly), (0, 1, 2))(q, k, v), jax.grad(loss(attend), (0, 1, 2))(q, k, v), strict=True
    ):
        np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_cudnn_is_chosen_only_for_bfloat16_on_nvidia(caplog):
    on_nvidia = jax.devices()[0].device_kind.startswith("NVIDIA")
    choose_implementation.cache_clear()
    with caplog.at_level("INFO", logger="mbt.model.attention"):
        assert choose_implementation("auto", "float32") == "xla"
        assert choose_implementation("auto", "bfloat16") == ("cudnn" if on_nvidia else "xla")
        assert choose_implementation("cudnn", "bfloat16") == "cudnn"
    assert f"attention by xla: float32 on {jax.devices()[0].device_kind}" in caplog.text


@pytest.mark.skipif(not jax.devices()[0].device_kind.startswith("NVIDIA"), reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("tokens", [1573, 405, 1970])
def test_cudnn_agrees_with_xla_at_the_papers_lengths(tokens):
    """bfloat16 by cuDNN against float32 by XLA: forward within 0.02, gradients within 3 % of the largest."""
    q, k, v = (jax.random.normal(jax.random.key(i), (2, tokens, 12, 64)) for i in range(3))
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]

    def loss(implementation):
        return lambda *arrays: jnp.square(attend(*arrays, implementation).astype(jnp.float32)).sum()

    exact, rough = attend(q, k, v, "xla"), attend(*half, "cudnn")
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.02)
    for ours, plain in zip(
        jax.grad(loss("cudnn"), (0, 1, 2))(*half), jax.grad(loss("xla"), (0, 1, 2))(q, k, v), strict=True
    ):
        np.testing.assert_allclose(ours.astype(jnp.float32), plain, atol=0.03 * np.abs(plain).max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion_layer": 4}, "fusion_layer must be in 0..3"),
        ({"modalities": ()}, "one or more"),
        ({"modalities": (RGB, RGB)}, "different names"),
        ({"dtype": "float16"}, "dtype must be float32 or bfloat16; got float16"),
        ({"fusion": "late"}, "fusion must be bottleneck or cross_attention or self_attention; got late"),
        ({"pooling": "max"}, "pooling must be"),
        ({"attention": "flash"}, "attention must be"),
        ({"num_bottlenecks": -1}, "num_bottlenecks must be 0 or more"),
        ({"head_sizes": (2, 2)}, "must add up to num_classes"),
        ({"head_sizes": (8, -3)}, "must add up to num_classes, each 1 or more"),
        ({"num_classes": 0}, "num_classes must be 1 or more"),
        ({"stochastic_depth": 1.0}, "stochastic_depth must be"),
        ({"attention": "cudnn"}, "attention cudnn takes no float32"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize("name", ["width", "depth", "heads", "mlp_dim"])
def test_a_size_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more; got 0"):
        dataclasses.replace(TINY, **{name: 0})


@pytest.mark.parametrize("changes", [{"patch": (0, 4)}, {"patch": (-4, 4)}, {"patch": ()}, {"channels": 0}], ids=str)
def test_an_input_without_extent_is_refused(changes):
    with pytest.raises(ValueError, match="rgb: sides must be 1 or more"):
        dataclasses.replace(RGB, **changes)


@pytest.mark.parametrize("shape", [(4, 16, 16, 3), (1, 8, 8, 3), (2, 8, 8, 1), (8, 8, 3)])
def test_an_input_of_another_shape_is_refused(shape):
    """A larger one too, of which a part would have been cut away without a word."""
    tokens = MBT(tiny_config(), rngs=nnx.Rngs(0)).tokens["rgb"]
    with pytest.raises(ValueError, match=r"rgb: an example has shape .*; the model takes \(2, 8, 8, 3\)"):
        tokens(jnp.zeros((1, *shape)))


def test_a_missing_input_is_named():
    config = tiny_config()
    inputs = random_inputs(config)
    del inputs["spectrogram"]
    with pytest.raises(ValueError, match="there is no input spectrogram; given are rgb"):
        MBT(config, rngs=nnx.Rngs(0))(inputs)


def test_an_input_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match="smaller than a patch"):
        Modality(name="rgb", shape=(2, 8, 8), channels=3, patch=(16, 16))
