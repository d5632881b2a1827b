"""Published weights through `mbt-train`: a run that starts from a ViT, and a run made of Scenic's checkpoint."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization, traverse_util

from mbt.model.mbt import MBT
from mbt.model.scenic_weights import load_scenic, scenic_config
from mbt.schemas.fakes import FakeClip, write_snapshot
from mbt.train import config as config_lib
from mbt.train.main import main
from mbt.train.records import eval_batches, make_reader
from mbt.train.sharding import make_mesh
from mbt.train.snapshot import Records, find_split, load_manifest
from mbt.train.step import init_state, model_inputs

WIDTH, HEADS, MLP, PATCH = 16, 2, 24, 16
INPUTS = ["--config.data.seconds=0.4", "--config.data.frames=2", "--config.data.crop=32", "--config.data.views=1"]
MODEL = [f"--config.model.{key}" for key in ("width=16", "depth=2", "heads=2", "mlp_dim=24", "fusion_layer=1")]
STEPS = ["--config.train.steps=1", "--config.train.batch_size=2", "--config.data.eval_split="]


def jpeg(value: int) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), value, np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("dataset")
    mels = np.random.default_rng(0).normal(-5, 2, (6, 80, 128)).astype(np.float32)
    clips = [
        FakeClip(id=f"clip-{i}", jpegs=[jpeg(40 * i)] * 20, size=(20, 24), mel=mel, labels=(i % 3,))
        for i, mel in enumerate(mels)
    ]
    write_snapshot(root, {"train": clips[:3], "test": clips[3:]}, ("a", "b", "c"))
    return str(root)


def block(numbers: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    first, attention, second, mlp = numbers
    mha, inner = f"MultiHeadDotProductAttention_{attention}", (HEADS, WIDTH // HEADS)
    shapes: dict[str, tuple[int, ...]] = {
        f"LayerNorm_{n}/{part}": (WIDTH,) for n in (first, second) for part in ("scale", "bias")
    }
    for part in ("query", "key", "value"):
        shapes |= {f"{mha}/{part}/kernel": (WIDTH, *inner), f"{mha}/{part}/bias": inner}
    shapes |= {f"{mha}/out/kernel": (*inner, WIDTH), f"{mha}/out/bias": (WIDTH,)}
    shapes |= {f"MlpBlock_{mlp}/Dense_0/kernel": (WIDTH, MLP), f"MlpBlock_{mlp}/Dense_0/bias": (MLP,)}
    return shapes | {f"MlpBlock_{mlp}/Dense_1/kernel": (MLP, WIDTH), f"MlpBlock_{mlp}/Dense_1/bias": (WIDTH,)}


def random_arrays(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def common(numbers, suffixes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    blocks = {
        f"Transformer/encoderblock_{layer}{suffix}/{name}": shape
        for layer in range(2)
        for suffix in suffixes
        for name, shape in block(numbers).items()
    }
    return blocks | {f"Transformer/encoder_norm/{part}": (WIDTH,) for part in ("scale", "bias")}


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("weights") / "vit.npz"
    shapes = common((0, 1, 2, 3), ("",)) | {
        "cls": (1, 1, WIDTH),
        "embedding/kernel": (PATCH, PATCH, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + 9, WIDTH),
        "head/kernel": (WIDTH, 21),
        "head/bias": (21,),
    }
    np.savez(path, **random_arrays(shapes))
    return path


def test_a_run_starts_from_a_vit_and_is_evaluated_without_it(root, vit, tmp_path):
    flags = [*INPUTS, *MODEL, *STEPS, f"--config.data.root={root}", f"--config.init.vit={vit}"]
    config = config_lib.resolve(config_lib.load_config("demo", flags), load_manifest(root, "latest"))
    params = init_state(config, make_mesh(config)).params
    arrays = np.load(vit)
    for name in ("rgb", "spectrogram"):
        np.testing.assert_array_equal(params["tokens"][name]["cls"], arrays["cls"])
    moved = tmp_path / "moved.npz"
    moved.write_bytes(vit.read_bytes())
    flags[-1] = f"--config.init.vit={moved}"
    assert main(["train", "--config=demo", f"--workdir={tmp_path / 'run'}", *flags]) == 0
    moved.unlink()
    assert main(["evaluate", f"--workdir={tmp_path / 'run'}", "--split=test"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.init.vit=absent.npz"], "config.init.vit=absent.npz: [Errno 2] No such file"),
        (
            ["--config.model.patch=(8, 8)"],
            "embedding/kernel has shape (16, 16, 3, 16), tokens.rgb.kernel has (8, 8, 3, 16)",
        ),
    ],
)
def test_a_vit_that_cannot_be_used_leaves_no_run(root, vit, tmp_path, capsys, flags, message):
    command = ["train", "--config=demo", f"--workdir={tmp_path / 'run'}", f"--config.data.root={root}"]
    assert main([*command, *INPUTS, *MODEL, *STEPS, f"--config.init.vit={vit}", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def scenic_arrays() -> dict[str, np.ndarray]:
    shapes = common((0, 0, 1, 0), ("", "_spectrogram")) | {
        "cls": (1, 1, WIDTH),
        "clsspectrogram": (1, 1, WIDTH),
        "bottleneck": (1, 5, WIDTH),
        "embedding/kernel": (2, PATCH, PATCH, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "embedding_spectrogram/kernel": (PATCH, PATCH, 3, WIDTH),
        "embedding_spectrogram/bias": (WIDTH,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + 4, WIDTH),
        "Transformer/posembed_input_spectrogram/pos_embedding": (1, 1 + 2 * 8, WIDTH),
        "output_projection/kernel": (WIDTH, 3),
        "output_projection/bias": (3,),
    }
    return random_arrays(shapes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("weights") / "checkpoint_7"
    target = traverse_util.unflatten_dict(scenic_arrays(), sep="/")
    path.write_bytes(serialization.msgpack_serialize({"global_step": 7, "optimizer": {"target": target, "state": {}}}))
    return path


def import_command(root, workdir, checkpoint, *flags: str) -> list[str]:
    words = ["import", "--config=demo", f"--workdir={workdir}", f"--checkpoint={checkpoint}"]
    return [*words, f"--config.data.root={root}", "--config.model.fusion_layer=1", *INPUTS, *flags]


def test_an_imported_checkpoint_is_evaluated(root, checkpoint, tmp_path):
    """Its scores are those of the logits that the reference's parameters give, with the spectrogram repeated thrice."""
    workdir = tmp_path / "run"
    assert main(import_command(root, workdir, checkpoint)) == 0
    assert main(["evaluate", f"--workdir={workdir}", "--views=1"]) == 0
    scores = json.loads((workdir / "evaluations" / "test-1views.json").read_text())
    config = config_lib.from_json((workdir / "config.json").read_text())
    assert (config.model.num_bottlenecks, config.model.patch, config.model.width) == (5, (2, 16, 16), WIDTH)
    arrays = scenic_arrays()
    model = MBT(scenic_config(arrays, fusion_layer=1, shapes=config_lib.input_shapes(config)), rngs=nnx.Rngs(0))
    load_scenic(model, arrays)
    records = Records(root, find_split(load_manifest(root, "latest"), "split", "test"))
    state, correct = init_state(config, make_mesh(config)), 0
    for batch in eval_batches(make_reader(records, config), config, 1):
        inputs = model_inputs(state, {m: jnp.asarray(batch[m]) for m in config.modalities})
        inputs["spectrogram"] = jnp.repeat(inputs["spectrogram"], 3, axis=-1)
        hits = model(inputs)["logits"].argmax(-1) == batch["labels"].argmax(-1)
        correct += int((np.asarray(hits) & (batch["weights"] > 0)).sum())
    assert scores["top1"] == pytest.approx(correct / 3)


def test_an_imported_checkpoint_names_a_film(root, checkpoint, make_media, tmp_path, capsys):
    assert main(import_command(root, tmp_path / "run", checkpoint)) == 0
    film = make_media(tmp_path / "film.mp4")
    capsys.readouterr()
    assert main(["predict", f"--workdir={tmp_path / 'run'}", str(film), "--top=9", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["clips"]
    assert sorted(found["label"] for found in said["labels"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.crop=48"], "pos_embedding has shape (1, 5, 16); rgb of (2, 48, 48)"),
        (["--config.modalities=rgb"], "the file has an input spectrogram: give the shape"),
        (["--config.model.fusion_layer=5"], "the model of the file: fusion_layer must be in 0..2; got 5"),
        (["--checkpoint=absent"], "--checkpoint=absent: [Errno 2] No such file"),
    ],
)
def test_an_import_that_does_not_fit_leaves_no_run(root, checkpoint, tmp_path, capsys, flags, message):
    assert main(import_command(root, tmp_path / "run", checkpoint, *flags)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
