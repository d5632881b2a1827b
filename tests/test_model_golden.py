"""The model against the reference's outputs, one file for each variant."""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mbt.model.config import MBTConfig, Modality
from mbt.model.mbt import MBT
from mbt.model.scenic_weights import load_scenic, scenic_config
from mbt.model.vit_weights import fit_positions, load_vit
from mbt.model.weights import resize_grid

GOLDEN = pathlib.Path(os.environ.get("MBT_SHARED_DATA", "../shared/data")) / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="the reference outputs are not here (MBT_SHARED_DATA)")
VARIANTS = sorted(path.stem for path in GOLDEN.glob("*.json") if "modality_fusion" in json.loads(path.read_text()))
GRADIENTS = sorted(path.stem.removeprefix("train_grad_") for path in GOLDEN.glob("train_grad_*.npz"))
SURGERIES = sorted(path.stem for path in GOLDEN.glob("surgery_*.json"))


@pytest.fixture(scope="module", autouse=True)
def optimized():
    """As in training; most other tests do without."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def under(folder: str, arrays) -> dict[str, np.ndarray]:
    return {name.removeprefix(folder): arrays[name] for name in arrays if name.startswith(folder)}


def text_of(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def reference_model(name: str) -> tuple[MBT, dict[str, np.ndarray], dict[str, jax.Array]]:
    """A variant's model with its parameters, its file and the inputs."""
    arrays, text = np.load(GOLDEN / f"{name}.npz"), text_of(name)
    params, inputs = under("params/", arrays), sampled(under("inputs/", arrays), text)
    shapes = {modality: x.shape[1:-1] for modality, x in inputs.items()}
    config = scenic_config(params, fusion_layer=text["fusion_layer"], shapes=shapes)
    check_inferred(config, text)
    return loaded(config, params), arrays, inputs


def loaded(config: MBTConfig, params: dict[str, np.ndarray]) -> MBT:
    model = MBT(config, rngs=nnx.Rngs(0))
    load_scenic(model, params)
    return model


def sampled(inputs: dict[str, np.ndarray], text: dict) -> dict[str, jax.Array]:
    """The inputs with the frames that the reference's model picks of those it gets, which is the reader's work here."""
    wanted = text["temporal_encoding_config"].get("n_sampled_frames")
    frames = inputs["rgb"].shape[1] if "rgb" in inputs else 0
    if wanted and wanted < frames:
        step = frames / (wanted + 1)
        inputs["rgb"] = inputs["rgb"][:, np.minimum(np.round(np.arange(step, frames, step)).astype(int), frames - 1)]
    return {modality: jnp.asarray(x) for modality, x in inputs.items()}


def outputs_of(model: MBT, inputs: dict[str, jax.Array]) -> dict:
    graph, params = nnx.split(model)
    return jax.jit(lambda params, inputs: nnx.merge(graph, params)(inputs))(params, inputs)


def check_inferred(config: MBTConfig, text: dict) -> None:
    """What the shapes told is what the variant's config says."""
    size = config.size
    assert (size.width, size.depth) == (text["hidden_size"], text["num_layers"])
    assert (size.heads, size.mlp_dim) == (text["num_heads"], text["mlp_dim"])
    assert config.pooling == {"token": "cls", "gap": "gap"}[text["classifier"]]
    assert (config.fusion == "bottleneck") == text["use_bottleneck"] or len(config.names) == 1
    assert set(config.names) == set(text["modality_fusion"])


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_equal_the_reference(name):
    model, arrays, inputs = reference_model(name)
    text = text_of(name)
    trained = evaluated = outputs_of(model, inputs)
    if not text["test_with_bottlenecks"]:
        alone = dataclasses.replace(model.config, num_bottlenecks=0)
        evaluated = outputs_of(loaded(alone, under("params/", arrays)), inputs)
    tokens = np.concatenate([evaluated["tokens"][m] for m in text["token_order"]], axis=1)
    np.testing.assert_allclose(evaluated["logits"], arrays["logits"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(tokens, arrays["tokens"], atol=1e-5, rtol=0)
    for kind, ours in (("prelogits/", evaluated["pre_logits"]), ("train_logits/", trained["logits_by_modality"])):
        theirs = under(kind, arrays)
        assert set(theirs) == set(ours)
        for m, expected in theirs.items():
            np.testing.assert_allclose(ours[m], expected, atol=1e-5, rtol=0, err_msg=kind + m)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_equal_the_reference(name):
    """Of the summed sigmoid cross-entropy, averaged over examples and modalities, with the labels smoothed by 0.3."""
    model, _, inputs = reference_model(name)
    expected = np.load(GOLDEN / f"train_grad_{name}.npz")
    graph, params = nnx.split(model)
    labels = expected["label"] * 0.7 + 0.3 / expected["label"].shape[-1]

    def loss(params):
        logits = nnx.merge(graph, params)(inputs)["logits_by_modality"].values()
        losses = [optax.sigmoid_binary_cross_entropy(x, labels).sum(axis=-1).mean() for x in logits]
        return sum(losses) / len(losses)

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    assert value == pytest.approx(float(expected["loss"]), rel=1e-6)
    norm = np.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradients)))
    assert norm == pytest.approx(float(expected["grad_norm"]), rel=1e-5)
    theirs = loaded(model.config, under("grads/", expected))
    ours, theirs = nnx.to_flat_state(gradients), dict(nnx.to_flat_state(nnx.state(theirs, nnx.Param)))
    for path, gradient in ours:
        error = np.linalg.norm(gradient[...] - theirs[path][...])
        # The gradient of a key's bias is zero but for rounding: softmax does not see it.
        assert error <= 1e-4 * np.linalg.norm(theirs[path][...]) + 1e-6, path


@pytest.mark.parametrize(
    ("result", "grid", "rows", "columns"),
    [
        ("interp_14x14_to_25x8_spec400", "grid14x14", 25, 8),
        ("interp_14x14_to_50x8_spec800", "grid14x14", 50, 8),
        ("interp_14x14_to_196_identity", "grid14x14", 14, 14),
        ("interp_24x24_to_196", "grid24x24", 14, 14),
        ("interp_14x14_to_4_bottleneck", "grid14x14", 2, 2),
    ],
)
def test_positions_are_resized_as_the_reference_does(result, grid, rows, columns):
    arrays = np.load(GOLDEN / "posembed.npz")
    side = int(len(arrays[grid]) ** 0.5)
    resized = resize_grid(arrays[grid].reshape(side, side, -1), rows, columns)
    np.testing.assert_allclose(resized.reshape(1, rows * columns, -1), arrays[result], atol=1e-6)


def test_positions_are_repeated_over_frames():
    arrays = np.load(GOLDEN / "posembed.npz")
    rgb = Modality(name="rgb", shape=(8, 224, 224), channels=3, patch=(16, 16))
    vit = {"Transformer/posembed_input/pos_embedding": arrays["grid14x14"][None]}
    tiled = fit_positions(vit, rgb, has_cls=False)
    np.testing.assert_allclose(tiled, arrays["tile_196_to_1568"], atol=1e-6)


@pytest.mark.parametrize("name", SURGERIES)
def test_a_vit_starts_the_model_as_in_the_reference(name):
    """But for the reference's faults: it overwrites the bottlenecks and forgets the spectrogram's CLS."""
    arrays, text = np.load(GOLDEN / f"{name}.npz"), text_of(name)
    init, vit, out = (under(folder, arrays) for folder in ("init/", "vit/", "out/"))
    data, config = text["dataset_configs"], text["config"]
    # The one start that the model knows: everything but the head, grids resized and then repeated.
    assert text["init_from"].pop("positional_embed_size_change") == "resize_tile" and all(text["init_from"].values())
    rows, bins = data["spec_shape"]
    # The frames' side follows from the positions that the surgery had to make.
    patch = config["patches"][0]
    tubes = data["num_frames"] // (config["patches"][2] if len(config["patches"]) > 2 else 1)
    patches = out["Transformer/posembed_input/pos_embedding"].shape[1] - (config["classifier"] == "token")
    side = patch * round((patches / tubes) ** 0.5)
    shapes = {"rgb": (data["num_frames"], side, side), "spectrogram": (rows * data["num_spec_frames"], bins)}
    ours_config = scenic_config(init, fusion_layer=config["fusion_layer"], shapes=shapes)
    kept = {name: array for name, array in init.items() if name == "bottleneck"}
    restored = {name: vit["cls"] for name in init if name == "clsspectrogram"}
    ours, expected = loaded(ours_config, init), loaded(ours_config, out | kept | restored)
    load_vit(ours, vit)
    for (path, value), (_, theirs) in zip(
        nnx.to_flat_state(nnx.state(ours, nnx.Param)), nnx.to_flat_state(nnx.state(expected, nnx.Param)), strict=True
    ):
        np.testing.assert_allclose(value[...], theirs[...], atol=1e-6, err_msg=str(path))
