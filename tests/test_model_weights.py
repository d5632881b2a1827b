"""Published weights: small files in the published forms, against an independent computation."""

import json
import os
import pathlib
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization, traverse_util

from mbt.model.config import MBTConfig, Modality, Size
from mbt.model.mbt import MBT
from mbt.model.scenic_weights import load_scenic, read_scenic, scenic_config
from mbt.model.vit_weights import fit_positions, load_vit, read_vit
from mbt.model.weights import WeightsError, central_frame, spread_channels

pytestmark = pytest.mark.quick

GOLDEN = pathlib.Path(os.environ.get("MBT_SHARED_DATA", "../shared/data")) / "golden"
WIDTH, HEADS, MLP, DEPTH, PATCH = 8, 2, 12, 2, 4
SIZE = Size(width=WIDTH, depth=DEPTH, heads=HEADS, mlp_dim=MLP)
RGB = Modality(name="rgb", shape=(12, 12), channels=3, patch=(PATCH, PATCH))
SOUND = Modality(name="spectrogram", shape=(20, 8), channels=1, patch=(PATCH, PATCH))


def random_arrays(shapes: dict[str, tuple[int, ...]], scale: float = 0.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def block_shapes(block: str, numbers: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """A layer's arrays; numbers of its parts: norm, attention, norm, MLP."""
    first, attention, second, mlp = numbers
    inner, shapes = (HEADS, WIDTH // HEADS), {}
    for norm in (first, second):
        shapes |= {f"{block}/LayerNorm_{norm}/{part}": (WIDTH,) for part in ("scale", "bias")}
    mha = f"{block}/MultiHeadDotProductAttention_{attention}"
    for part in ("query", "key", "value"):
        shapes |= {f"{mha}/{part}/kernel": (WIDTH, *inner), f"{mha}/{part}/bias": inner}
    shapes |= {f"{mha}/out/kernel": (*inner, WIDTH), f"{mha}/out/bias": (WIDTH,)}
    for index, (rows, columns) in enumerate(((WIDTH, MLP), (MLP, WIDTH))):
        dense = f"{block}/MlpBlock_{mlp}/Dense_{index}"
        shapes |= {f"{dense}/kernel": (rows, columns), f"{dense}/bias": (columns,)}
    return shapes


PUBLISHED = (0, 1, 2, 3)
LINEN = (0, 0, 1, 0)


def vit_arrays(numbers=PUBLISHED, side: int = 3, patch: int = PATCH) -> dict[str, np.ndarray]:
    """What an ImageNet-21K file holds, head and pre-logits layer included."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, WIDTH),
        "embedding/kernel": (patch, patch, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + side * side, WIDTH),
        "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,),
        "pre_logits/kernel": (WIDTH, WIDTH),
        "pre_logits/bias": (WIDTH,),
        "head/kernel": (WIDTH, 21),
        "head/bias": (21,),
    }
    for layer in range(DEPTH):
        shapes |= block_shapes(f"Transformer/encoderblock_{layer}", numbers)
    return random_arrays(shapes)


def saved(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> pathlib.Path:
    np.savez(path, **arrays)
    return path


def norm(x, scale, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


def plain_vit(arrays, image: np.ndarray) -> np.ndarray:
    """The tokens of a ViT after its last norm, written from the paper in loops: (12, 12, 3) to (10, D)."""
    patches = [
        np.einsum("ijc,ijcd->d", image[y : y + PATCH, x : x + PATCH], arrays["embedding/kernel"])
        for y in range(0, 12, PATCH)
        for x in range(0, 12, PATCH)
    ]
    z = np.stack([arrays["cls"][0, 0], *(patch + arrays["embedding/bias"] for patch in patches)])
    z = z + arrays["Transformer/posembed_input/pos_embedding"][0]
    for layer in range(DEPTH):
        part = {
            name.removeprefix(f"Transformer/encoderblock_{layer}/"): array
            for name, array in arrays.items()
            if f"encoderblock_{layer}/" in name
        }
        x = norm(z, part["LayerNorm_0/scale"], part["LayerNorm_0/bias"])
        for head in range(HEADS):
            mha = "MultiHeadDotProductAttention_1/"
            q, k, v = (
                x @ part[f"{mha}{name}/kernel"][:, head] + part[f"{mha}{name}/bias"][head]
                for name in ("query", "key", "value")
            )
            weights = np.exp(q @ k.T / np.sqrt(WIDTH // HEADS))
            z = z + weights / weights.sum(-1, keepdims=True) @ v @ part[f"{mha}out/kernel"][head]
        z = z + part["MultiHeadDotProductAttention_1/out/bias"]
        x = norm(z, part["LayerNorm_2/scale"], part["LayerNorm_2/bias"])
        x = x @ part["MlpBlock_3/Dense_0/kernel"] + part["MlpBlock_3/Dense_0/bias"]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        z = z + x @ part["MlpBlock_3/Dense_1/kernel"] + part["MlpBlock_3/Dense_1/bias"]
    return norm(z, arrays["Transformer/encoder_norm/scale"], arrays["Transformer/encoder_norm/bias"])


def new_model(*modalities: Modality, **changes) -> MBT:
    changes = {"fusion_layer": 1, "num_classes": 5, "size": SIZE} | changes
    return MBT(MBTConfig(modalities=modalities, **changes), rngs=nnx.Rngs(0))


def test_a_vit_file_gives_the_vits_tokens(tmp_path):
    arrays = vit_arrays()
    model = new_model(RGB)
    load_vit(model, read_vit(saved(tmp_path / "vit.npz", arrays)))
    image = np.random.default_rng(1).normal(size=(12, 12, 3)).astype(np.float32)
    tokens = model({"rgb": image[None]})["tokens"]["rgb"][0]
    np.testing.assert_allclose(tokens, plain_vit(arrays, image), atol=1e-4)


def test_both_numberings_of_a_layers_parts_are_read():
    first, second = new_model(RGB), new_model(RGB)
    arrays = vit_arrays()
    load_vit(first, arrays)
    renumbered = dict(zip(vit_arrays(LINEN), arrays.values(), strict=True))
    load_vit(second, renumbered)
    for ours, theirs in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def leaves(model: MBT) -> list[np.ndarray]:
    return [np.asarray(leaf[...]) for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))]


def test_every_stream_starts_from_the_vit_and_the_rest_is_kept():
    flow = Modality(name="flow", shape=(4, 12, 12), channels=2, patch=(2, PATCH, PATCH))
    model, arrays = new_model(RGB, SOUND, flow, pre_logits=6), vit_arrays()
    kept = {name: np.asarray(getattr(model, name)[...]) for name in ("bottlenecks",)}
    load_vit(model, arrays)
    dense = arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_1/kernel"]
    kernel = arrays["embedding/kernel"]
    for name in ("rgb", "spectrogram", "flow"):
        np.testing.assert_array_equal(model.layers[1][name].mlp.contract.kernel[...], dense)
        np.testing.assert_array_equal(model.tokens[name].cls[...], arrays["cls"])
    np.testing.assert_array_equal(model.tokens["rgb"].kernel[...], kernel)
    np.testing.assert_allclose(model.tokens["spectrogram"].kernel[..., 0, :], kernel.sum(axis=2), atol=1e-6)
    np.testing.assert_array_equal(model.tokens["flow"].kernel[0], np.zeros((PATCH, PATCH, 2, WIDTH)))
    np.testing.assert_allclose(model.tokens["flow"].kernel[1].sum(axis=2), kernel.sum(axis=2), atol=1e-6)
    positions = arrays["Transformer/posembed_input/pos_embedding"][0, 1:]
    np.testing.assert_allclose(model.tokens["flow"].positions[0, 1:], np.tile(positions, (2, 1)), atol=1e-6)
    assert model.tokens["spectrogram"].positions.shape == (1, 1 + 5 * 2, WIDTH)
    np.testing.assert_array_equal(model.bottlenecks[...], kept["bottlenecks"])
    np.testing.assert_array_equal(model.head.kernel[...], np.zeros((6, 5)))


def test_gap_and_shared_layers_start_from_a_vit_too():
    model, arrays = new_model(RGB, SOUND, pooling="gap", share_before=True, share_after=True), vit_arrays()
    load_vit(model, arrays)
    positions = arrays["Transformer/posembed_input/pos_embedding"][:, 1:]
    np.testing.assert_allclose(model.tokens["rgb"].positions[...], positions, atol=1e-6)


def test_channels_are_spread_so_that_gray_looks_the_same():
    kernel = np.random.default_rng(0).normal(size=(2, 2, 3, 5))
    gray = np.random.default_rng(1).normal(size=(2, 2, 1))
    seen = np.einsum("ijc,ijcd->d", np.repeat(gray, 3, axis=2), kernel)
    for channels in (1, 2, 4):
        ours = np.einsum("ijc,ijcd->d", np.repeat(gray, channels, axis=2), spread_channels(kernel, channels))
        np.testing.assert_allclose(ours, seen)
    assert central_frame(kernel, 3)[1].sum() == pytest.approx(kernel.sum())


DAMAGED = {
    "encoderblock_7": {"Transformer/encoderblock_7/LayerNorm_0/scale": np.zeros(WIDTH, np.float32)},
    "no grid": {"Transformer/posembed_input/pos_embedding": np.zeros((1, 1, WIDTH), np.float32)},
    # It would be the central frame of a tubelet if the model's patch had one axis more.
    "a row": {"embedding/kernel": np.zeros((PATCH, 3, WIDTH), np.float32)},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 2}, r"embedding/kernel has shape \(2, 2, 3, 8\), tokens.rgb.kernel has \(4, 4, 3, 8\): the patch"),
        ({"drop": "cls"}, "the file has no cls, which tokens.rgb.cls needs: one has CLS tokens and the other has none"),
        (
            {"drop": "Transformer/encoderblock_1/MlpBlock_3/Dense_0/bias"},
            "nothing in Transformer/encoderblock_1/ for layers.1.rgb.mlp.expand.bias.*size",
        ),
        ({"depth": 1}, "the file has 2 layers, more than the model's 1: the model's size"),
        ({"depth": 3}, "nothing in Transformer/encoderblock_2/ for layers.2.rgb.*size"),
        ({"damage": "encoderblock_7"}, "the file has 3 layers, more than the model's 2"),
        ({"damage": "no grid"}, r"pos_embedding of shape \(1, 1, 8\) has no square grid"),
        (
            {"damage": "a row"},
            r"embedding/kernel has shape \(4, 3, 8\), tokens.rgb.kernel has \(4, 4, 3, 8\): the patch",
        ),
        (
            {"mlp_dim": 16},
            r"MlpBlock_3/Dense_1/kernel has shape \(12, 8\), layers.0.rgb.mlp.*has \(16, 8\): the model's size",
        ),
        ({"positions": 11}, r"pos_embedding of shape \(1, 11, 8\) has no square grid"),
    ],
    ids=str,
)
def test_a_vit_that_does_not_fit_is_refused_and_nothing_changed(changes, message):
    arrays = vit_arrays(patch=changes.get("patch", PATCH))
    arrays.pop(changes.get("drop", ""), None)
    if "positions" in changes:
        arrays["Transformer/posembed_input/pos_embedding"] = np.zeros((1, changes["positions"], WIDTH), np.float32)
    arrays |= DAMAGED.get(changes.get("damage", ""), {})
    size = {key: value for key, value in changes.items() if key in ("depth", "mlp_dim")}
    model = new_model(RGB, size=Size(**{"width": WIDTH, "depth": DEPTH, "heads": HEADS, "mlp_dim": MLP} | size))
    before = leaves(model)
    with pytest.raises(WeightsError, match=message):
        load_vit(model, arrays)
    assert all(np.array_equal(old, new) for old, new in zip(before, leaves(model), strict=True))


def test_an_input_without_rows_and_columns_cannot_start_from_a_vit():
    wave = Modality(name="wave", shape=(20,), channels=3, patch=(PATCH,))
    with pytest.raises(WeightsError, match="wave has a row of patches"):
        fit_positions(vit_arrays(), wave, has_cls=True)


def test_a_vit_saved_in_bfloat16_is_read(tmp_path):
    """NumPy writes such an array as two bytes of no type, which is how some published files have it."""
    arrays = vit_arrays()
    halves = {name: np.asarray(array).astype(jnp.bfloat16).view("V2") for name, array in arrays.items()}
    read = read_vit(saved(tmp_path / "vit.npz", halves))
    for name, array in arrays.items():
        assert read[name].dtype == np.float32
        np.testing.assert_allclose(read[name], array, rtol=2**-8)


@pytest.mark.parametrize("at", [0, 1, 50, 0.5, 0.9])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_vit_that_is_cut_short_is_refused(tmp_path, save, at):
    path = tmp_path / "vit.npz"
    save(path, **vit_arrays())
    data = path.read_bytes()
    path.write_bytes(data[: int(at * len(data)) if isinstance(at, float) else at])
    with pytest.raises(WeightsError, match=r"vit\.npz: not an \.npz of arrays: ."):
        read_vit(path)


def test_a_damaged_vit_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "vit.npz", **vit_arrays())
    data = bytearray((tmp_path / "vit.npz").read_bytes())
    data[300:400] = b"\xff" * 100  # inside a compressed array
    (tmp_path / "damaged.npz").write_bytes(bytes(data))
    (tmp_path / "words.npz").write_bytes(saved(tmp_path / "w.npz", vit_arrays() | {"cls": np.array("x")}).read_bytes())
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': ((( ".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as file:
        file.writestr("cls.npy", header)
    for name, message in (("damaged", "decompressing"), ("words", "cls has values of type <U1"), ("header", "EOF")):
        with pytest.raises(WeightsError, match=rf"{name}\.npz: not an \.npz of arrays: .*{message}"):
            read_vit(tmp_path / f"{name}.npz")


def test_files_of_another_kind_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    with pytest.raises(WeightsError, match=r"notes\.txt: not an \.npz"):
        read_vit(text)
    with pytest.raises(WeightsError, match=r"notes\.txt: not a Flax checkpoint"):
        read_scenic(text)
    with pytest.raises(WeightsError, match="has no embedding/kernel, so it is not a ViT; it begins with x"):
        read_vit(saved(tmp_path / "other.npz", {"x": np.zeros(3)}))
    objects = tmp_path / "objects.npz"
    np.savez(objects, x=np.array([{}], dtype=object))
    with pytest.raises(WeightsError, match=r"not an \.npz of arrays"):  # a pickle is never run
        read_vit(objects)
    with pytest.raises(FileNotFoundError):
        read_scenic(tmp_path / "absent")


def scenic_arrays(*, bottlenecks: int = 5, token: bool = True, frames: int = 2, channels: int = 3):
    """RGB and spectrogram: rgb in tubelets of `frames` frames, both with three channels."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/kernel": (frames, PATCH, PATCH, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "embedding_spectrogram/kernel": (PATCH, PATCH, channels, WIDTH),
        "embedding_spectrogram/bias": (WIDTH,),
        "Transformer/posembed_input/pos_embedding": (1, token + 2 * 9, WIDTH),
        "Transformer/posembed_input_spectrogram/pos_embedding": (1, token + 10, WIDTH),
        "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,),
        "output_projection/kernel": (WIDTH, 5),
        "output_projection/bias": (5,),
    }
    if bottlenecks:
        shapes["bottleneck"] = (1, bottlenecks, WIDTH)
    if token:
        shapes |= {"cls": (1, 1, WIDTH), "clsspectrogram": (1, 1, WIDTH)}
    for layer in range(DEPTH):
        for suffix in ("", "_spectrogram"):
            shapes |= block_shapes(f"Transformer/encoderblock_{layer}{suffix}", LINEN)
    return random_arrays(shapes)


SHAPES = {"rgb": (4, 12, 12), "spectrogram": (20, 8)}


def checkpoint(path: pathlib.Path, arrays: dict[str, np.ndarray], *, nested: bool = False) -> pathlib.Path:
    """Scenic's training state as its releases were saved: `flax.optim`'s optimizer, in msgpack."""
    target = traverse_util.unflatten_dict(arrays, sep="/")
    state = {
        "global_step": 15900,
        "optimizer": {"state": {"step": 15900}, "target": {"params": target} if nested else target},
        "model_state": {},
        "rng": np.zeros(2, np.uint32),
        "accum_train_time": 0,
    }
    path.write_bytes(serialization.msgpack_serialize(state))
    return path


def test_the_parameters_of_a_later_training_state_are_read(tmp_path):
    """Since optax: `params`, and an optimizer's state whose tuples are dicts by number."""
    path, target = tmp_path / "checkpoint_1", traverse_util.unflatten_dict(scenic_arrays(), sep="/")
    state = {"global_step": 1, "opt_state": {"0": {}, "1": {"trace": target}}, "params": target, "model_state": None}
    path.write_bytes(serialization.msgpack_serialize(state))
    assert read_scenic(path).keys() == scenic_arrays().keys()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"optimizer": {"state": {}}}, "neither optimizer/target nor params"),
        ([1, 2], "neither optimizer/target nor params"),
        ({"params": None}, "neither optimizer/target nor params"),
        ({"params": {"bottleneck": "words"}}, "bottleneck is no array"),
        ({"params": {"bottleneck": np.zeros(3, np.int32)}}, "bottleneck has values of type int32"),
        ({"params": {}}, "so it is not an MBT of Scenic"),
    ],
    ids=str,
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, state, message):
    path = tmp_path / "checkpoint_1"
    path.write_bytes(serialization.msgpack_serialize(state))
    with pytest.raises(WeightsError, match=message):
        read_scenic(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_short_is_refused(tmp_path, share):
    path = checkpoint(tmp_path / "checkpoint_1", scenic_arrays())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match="checkpoint_1: not a Flax checkpoint"):
        read_scenic(path)


BLOCK = "Transformer/encoderblock_"
QUERY = f"{BLOCK}0/MultiHeadDotProductAttention_0/query/kernel"


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"embedding/kernel": np.zeros(3)}, {}, r"embedding/kernel has shape \(3,\), an MBT of Scenic has 4 axes"),
        ({QUERY: np.zeros((8, 8))}, {}, r"query/kernel has shape \(8, 8\), an MBT of Scenic has 3 axes"),
        ({QUERY: np.zeros((8, 0, 0))}, {}, "the model of the file: heads must be 1 or more; got 0"),
        # A layer of that number would have all before it made.
        ({f"{BLOCK}99999999/LayerNorm_0/scale": np.zeros(8)}, {}, f"the file has no {BLOCK}2: it is cut short"),
        ({}, {"fusion_layer": 5}, r"the model of the file: fusion_layer must be in 0\.\.2; got 5"),
        ({}, {"shapes": {**SHAPES, "rgb": (1, 12, 12)}}, "the model of the file: rgb: the input .* is smaller than a"),
    ],
    ids=str,
)
def test_a_checkpoint_that_is_no_model_is_refused(arrays, options, message):
    with pytest.raises(WeightsError, match=message):
        scenic_config(scenic_arrays() | arrays, **({"fusion_layer": 1, "shapes": SHAPES} | options))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("token", [False, True])
def test_a_scenic_checkpoint_becomes_an_equivalent_model(tmp_path, token, nested):
    arrays = scenic_arrays(token=token)
    read = read_scenic(checkpoint(tmp_path / "checkpoint_15900", arrays, nested=nested))
    config = scenic_config(read, fusion_layer=1, shapes=SHAPES)
    assert (config.fusion, config.num_bottlenecks, config.pooling) == ("bottleneck", 5, "cls" if token else "gap")
    assert [(m.name, m.patch, m.channels) for m in config.modalities] == [
        ("rgb", (2, PATCH, PATCH), 3),
        ("spectrogram", (PATCH, PATCH), 3),
    ]
    assert (config.size, config.num_classes) == (SIZE, 5)
    model = MBT(config, rngs=nnx.Rngs(0))
    load_scenic(model, read)
    assert sorted(leaf.sum() for leaf in leaves(model)) == pytest.approx(sorted(a.sum() for a in arrays.values()))
    block = "Transformer/encoderblock_1_spectrogram/LayerNorm_1/scale"
    np.testing.assert_array_equal(model.layers[1]["spectrogram"].mlp_norm.scale[...], arrays[block])


def test_one_channel_takes_the_place_of_three_equal_ones():
    arrays = scenic_arrays()
    config = scenic_config(arrays, fusion_layer=1, shapes=SHAPES)
    three = MBT(config, rngs=nnx.Rngs(0))
    one = new_model(config.modalities[0], SOUND, num_bottlenecks=5)
    load_scenic(three, arrays)
    load_scenic(one, arrays)
    rng = np.random.default_rng(2)
    rgb, sound = rng.normal(size=(2, 4, 12, 12, 3)), rng.normal(size=(2, 20, 8, 1))
    expected = three({"rgb": rgb, "spectrogram": sound.repeat(3, axis=-1)})["logits"]
    np.testing.assert_allclose(one({"rgb": rgb, "spectrogram": sound})["logits"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bottlenecks": 0}, "the file has nothing for bottlenecks .1 missing.: the number of bottlenecks"),
        (
            {"bottlenecks": 4},
            r"bottleneck has shape \(1, 4, 8\), bottlenecks has \(1, 5, 8\): the number",
        ),
        ({"token": False}, "the file has nothing for tokens.rgb.cls .2 missing.: one has CLS tokens"),
        ({"frames": 3}, r"embedding/kernel has shape \(3, 4, 4, 3, 8\), tokens.rgb.kernel has \(2, .*: the patch"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_model_is_refused(changes, message):
    model = MBT(scenic_config(scenic_arrays(), fusion_layer=1, shapes=SHAPES), rngs=nnx.Rngs(0))
    with pytest.raises(WeightsError, match=message):
        load_scenic(model, scenic_arrays(**changes))


def test_a_checkpoint_with_more_than_the_model_is_refused():
    model = new_model(SOUND, num_bottlenecks=5)
    with pytest.raises(WeightsError, match=r"the model has no place for .*left over"):
        load_scenic(model, scenic_arrays())


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(WeightsError, match=r"pos_embedding has shape \(1, 19, 8\); rgb of \(4, 16, 16\).*needs 33"):
        scenic_config(scenic_arrays(), fusion_layer=1, shapes=SHAPES | {"rgb": (4, 16, 16)})
    with pytest.raises(WeightsError, match="the file has an input spectrogram: give the shape"):
        scenic_config(scenic_arrays(), fusion_layer=1, shapes={"rgb": (4, 12, 12)})
    with pytest.raises(WeightsError, match="has no output_projection/kernel: it is cut short"):
        scenic_config({k: v for k, v in scenic_arrays().items() if "output" not in k}, fusion_layer=1, shapes=SHAPES)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference outputs are not here (MBT_SHARED_DATA)")
def test_the_references_own_parameters_through_a_checkpoint_file(tmp_path):
    name = "conv3d_bottleneck_f2_b4"
    arrays, text = np.load(GOLDEN / f"{name}.npz"), json.loads((GOLDEN / f"{name}.json").read_text())
    params = {key.removeprefix("params/"): arrays[key] for key in arrays if key.startswith("params/")}
    inputs = {key.removeprefix("inputs/"): arrays[key] for key in arrays if key.startswith("inputs/")}
    read = read_scenic(checkpoint(tmp_path / "checkpoint_1", params))
    shapes = {m: x.shape[1:-1] for m, x in inputs.items()}
    model = MBT(scenic_config(read, fusion_layer=text["fusion_layer"], shapes=shapes), rngs=nnx.Rngs(0))
    load_scenic(model, read)
    np.testing.assert_allclose(model(inputs)["logits"], arrays["logits"], atol=1e-5)


def test_bottlenecks_that_late_fusion_has_no_use_for_are_left():
    model = MBT(scenic_config(scenic_arrays(), fusion_layer=DEPTH, shapes=SHAPES), rngs=nnx.Rngs(0))
    load_scenic(model, scenic_arrays())
    assert not model.config.has_bottlenecks


def test_a_model_of_one_modality_has_a_cls_without_a_suffix():
    arrays = {name: array for name, array in scenic_arrays().items() if "_spectrogram" in name or "cls" not in name}
    arrays = {name: array for name, array in arrays.items() if not alone_of_rgb(name)} | {"cls": scenic_arrays()["cls"]}
    config = scenic_config(arrays, fusion_layer=0, shapes=SHAPES)
    model = MBT(config, rngs=nnx.Rngs(0))
    load_scenic(model, arrays)
    assert config.names == ("spectrogram",)
    np.testing.assert_array_equal(model.tokens["spectrogram"].cls[...], arrays["cls"])


def alone_of_rgb(name: str) -> bool:
    part = name.removeprefix("Transformer/").split("/")[0]
    return part.startswith(("embedding", "posembed", "encoderblock")) and not part.endswith("_spectrogram")


def test_modalities_that_share_their_layers():
    arrays = {name: array for name, array in scenic_arrays().items() if not unshared(name)}
    config = scenic_config(arrays, fusion_layer=1, shapes=SHAPES)
    assert (config.fusion, config.share_before, config.share_after) == ("bottleneck", True, True)
    model = MBT(config, rngs=nnx.Rngs(0))
    load_scenic(model, arrays)
    arrays.pop("bottleneck")
    assert scenic_config(arrays, fusion_layer=1, shapes=SHAPES).fusion == "self_attention"


def unshared(name: str) -> bool:
    return "encoderblock" in name and "_spectrogram" in name
