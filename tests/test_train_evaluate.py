"""Evaluation: the loader's views, averaged; what fills a batch never counts; several hosts give what one does."""

import io
import pathlib
import socket

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mbt.schemas.fakes import FakeClip, write_snapshot
from mbt.train import sharding
from mbt.train.config import load_config, resolve
from mbt.train.errors import RunError
from mbt.train.evaluate import Evaluator, predict
from mbt.train.scores import summarize
from mbt.train.snapshot import Records, load_manifest
from mbt.train.step import State, init_state, model_graph

SIZE = (20, 24)
SECONDS, FRAMES, CROP = 0.8, 4, 16
WINDOW_FRAMES, WINDOW_ROWS = 20, 80
FLAGS = [
    f"--config.data.seconds={SECONDS}",
    f"--config.data.frames={FRAMES}",
    f"--config.data.crop={CROP}",
    *(f"--config.model.{key}" for key in ("width=16", "depth=1", "heads=2", "mlp_dim=16", "fusion_layer=0")),
    "--config.train.eval_batch_size=4",
    "--config.train.steps=1",
]


def shade(clip: int, frame: int) -> int:
    return 20 * clip + 2 * frame


def fake_clip(number: int) -> FakeClip:
    """Frames of one shade each; 37 of them or more, so that the windows of several views differ."""
    length = 37 + 5 * number
    jpegs = []
    for frame in range(length):
        file = io.BytesIO()
        Image.fromarray(np.full((*SIZE, 3), shade(number, frame), np.uint8)).save(file, "JPEG", quality=100)
        jpegs.append(file.getvalue())
    mel = np.random.default_rng(number).normal(-5, 2, (4 * length, 128)).astype(np.float32)
    return FakeClip(id=f"clip-{number}", jpegs=jpegs, size=SIZE, mel=mel, labels=(number % 3,))


def order() -> list[int]:
    """The clips at the records: clips go to the two shards in turn."""
    return [0, 2, 4, 1, 3]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("dataset")
    clips = [fake_clip(number) for number in range(5)]
    write_snapshot(root, {"train": clips, "test": clips}, ("a", "b", "c"))
    return root


@pytest.fixture(scope="module")
def config(root):
    return resolve(load_config("demo", [f"--config.data.root={root}", *FLAGS]), load_manifest(str(root), "latest"))


@pytest.fixture(scope="module")
def mesh(config):
    return sharding.make_eval_mesh()


@pytest.fixture(scope="module")
def state(config, mesh) -> State:
    """With a head that is not zero."""
    state = init_state(config, mesh)
    leaves, form = jax.tree.flatten(state.params)
    noise = [jax.random.normal(jax.random.key(number), leaf.shape) for number, leaf in enumerate(leaves)]
    return state._replace(params=jax.tree.unflatten(form, noise))


@pytest.fixture(scope="module")
def model(config, state):
    """One example's inputs to its logits."""
    graph = model_graph(config)
    return jax.jit(lambda inputs: nnx.merge(graph, state.params)(inputs)["logits"][0])


def logits_by_hand(config, model, clip: int, views: int) -> np.ndarray:
    """Each view cut out and shown to the model on its own."""
    fake = fake_clip(clip)
    free = len(fake.jpegs) - WINDOW_FRAMES
    logits = []
    for view in range(views):
        start = int(np.rint(free * view / (views - 1))) if views > 1 else int(np.rint(free / 2))
        shades = [shade(clip, start + offset) for offset in (0, 5, 10, 15)]
        rgb = np.broadcast_to(np.float32(shades)[:, None, None, None], (FRAMES, CROP, CROP, 3)) / 127.5 - 1
        mel = (fake.mel[4 * start :][:WINDOW_ROWS, :, None] - config.data.mel_mean) / config.data.mel_stddev
        logits.append(np.asarray(model({"rgb": rgb[None], "spectrogram": mel[None]})))
    return np.mean(logits, axis=0)


@pytest.mark.parametrize("views", [1, 3, 4])
def test_views_equal_a_plain_loop(root, config, mesh, state, model, views):
    records = Records(str(root), load_manifest(str(root), "latest").splits["test"])
    evaluator = Evaluator(config, records, views, mesh)
    found = evaluator.predict(state)
    expected = np.stack([logits_by_hand(config, model, clip, views) for clip in order()])
    assert np.ptp(expected, axis=0).min() > 0.02  # the clips do differ
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, np.eye(3)[[clip % 3 for clip in order()]])
    np.testing.assert_array_equal(found.records, np.arange(5))
    assert evaluator(state) == summarize(found.logits, found.labels, loss="ce")


def batches(scores, labels, size, views):
    """Rows as the loader gives them, the last batch filled with rows of weight 0 that would score high."""
    total = -(-len(scores) // size) * size
    padding = total - len(scores)
    columns = {
        "records": np.pad(np.arange(len(scores)), (0, padding)),
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
    np.testing.assert_array_equal(got.logits, scores)
    np.testing.assert_array_equal(got.labels, labels)


def test_clips_that_weigh_nothing_are_left_out():
    scores, labels = np.arange(8.0).reshape(4, 2), np.eye(2)[[0, 1, 0, 1]]
    (batch,) = batches(scores, labels, 4, 1)
    batch["weights"][1] = 0
    got = predict(lambda batch: batch["scores"], [batch], 1)
    np.testing.assert_array_equal(got.records, [0, 2, 3])
    np.testing.assert_array_equal(got.logits, scores[[0, 2, 3]])
    batch["weights"][:] = 0
    with pytest.raises(RunError, match="no clip is left"):
        predict(lambda batch: batch["scores"], [batch], 1)


def test_logits_that_are_not_finite_are_an_error():
    bad = np.full((4, 2), np.nan)
    with pytest.raises(RunError, match="not finite"):
        predict(lambda batch: batch["scores"], batches(bad, np.ones((4, 2)), 4, 1), 1)


HOST = """
import sys
import jax, numpy as np
from mbt.train import distributed, sharding
from mbt.train.rendezvous import Processes
coordinator, host, root, path, *flags = sys.argv[1:]
with distributed.joined(Processes(coordinator, 2, int(host))):
    from mbt.train.config import load_config, resolve
    from mbt.train.evaluate import Evaluator
    from mbt.train.snapshot import Records, load_manifest
    from mbt.train.step import init_state
    manifest = load_manifest(root, "latest")
    config = resolve(load_config("demo", [f"--config.data.root={root}", *flags]), manifest)
    mesh = sharding.make_eval_mesh()
    assert distributed.agreed(10 + distributed.host()) == 10
    assert distributed.agreed(None if distributed.host() == 0 else 10) is None
    state = init_state(config, mesh)
    def head(path, leaf):
        return leaf + 1 if "head" in jax.tree_util.keystr(path) and leaf.ndim == 2 else leaf
    found = Evaluator(config, Records(root, manifest.splits["test"]), 3, mesh).predict(
        state._replace(params=jax.tree_util.tree_map_with_path(head, state.params)))
    np.savez(path, records=found.records, logits=found.logits, labels=found.labels)
"""


@pytest.mark.slow
def test_two_hosts_give_what_one_does(mbt_train, root, config, mesh, tmp_path):
    """Five clips in batches of four: the second host's last batch is all padding."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        mbt_train.listen_python(HOST, coordinator, host, root, tmp_path / f"{host}.npz", *FLAGS) for host in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
    state = init_state(config, mesh)
    state.params["head"]["kernel"] = state.params["head"]["kernel"] + 1
    records = Records(str(root), load_manifest(str(root), "latest").splits["test"])
    alone = Evaluator(config, records, 3, mesh).predict(state)
    assert np.abs(alone.logits).max() > 0
    for host in range(2):
        found = np.load(tmp_path / f"{host}.npz")
        np.testing.assert_array_equal(found["records"], alone.records)
        np.testing.assert_array_equal(found["labels"], alone.labels)
        np.testing.assert_allclose(found["logits"], alone.logits, rtol=1e-5, atol=1e-6)
