"""Meshes, path rules and the placing of batches; nothing is compiled but by `test_train_step.py`."""

import types

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from train_steps import tiny_batch, tiny_config

from mbt.train import sharding, step
from mbt.train.config import default_config
from mbt.train.errors import UsageError

SIZES = {"data": 2, "fsdp": 4}
MESH = AbstractMesh((2, 4), sharding.AXES, axis_types=(AxisType.Auto,) * 2)


def specs(config) -> dict[str, P]:
    """By path, where every array of a state lies on 2 x 4 devices."""
    shapes = step.state_shapes(config, sharding.make_mesh(config))
    leaves = jax.tree_util.tree_leaves_with_path(sharding.state_shardings(MESH, shapes))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec for path, leaf in leaves}


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"), [(8, 1, (8, 1)), (-1, 1, (8, 1)), (1, -1, (1, 8)), (2, -1, (2, 4)), (4, 2, (4, 2))]
)
def test_the_mesh_takes_all_devices(data, fsdp, shape):
    assert sharding.mesh_shape(data, fsdp, 8) == shape


@pytest.mark.parametrize(
    ("data", "fsdp", "reason"),
    [
        (3, 2, "data=3 times fsdp=2 is not the number of devices, 8"),
        (8, 2, "data=8 times fsdp=2"),
        (-1, 3, "3 must divide it"),
        (-1, 16, "16 must divide it"),
        (-1, -1, "only one of data and fsdp can be -1"),
    ],
)
def test_a_mesh_of_other_sizes_is_refused(data, fsdp, reason):
    with pytest.raises(UsageError, match=reason):
        sharding.mesh_shape(data, fsdp, 8)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train.batch_size": 12}, r"config.train.batch_size / accumulate = 12: must be a multiple .* devices, 8"),
        ({"train.batch_size": 32, "train.accumulate": 8}, r"accumulate = 4: must be a multiple"),
        ({"mixup.alpha": 0.3, "mixup.group": 16}, r"config.mixup.group=16: must divide the 8 rows"),
    ],
)
def test_rows_that_cannot_be_split_are_refused(changes, reason):
    with pytest.raises(UsageError, match=reason):
        sharding.check_train_rows(tiny_config(**changes), devices=8, hosts=2)


@pytest.mark.parametrize(("asked", "devices", "rows"), [(64, 8, 64), (64, 6, 66), (1, 8, 8), (7, 1, 7)])
def test_a_batch_of_an_evaluation_is_filled_up_to_the_devices(asked, devices, rows):
    mesh = types.SimpleNamespace(size=devices)
    assert sharding.eval_rows(tiny_config(**{"train.eval_batch_size": asked}), mesh) == rows


def test_a_run_that_fits_is_not_refused():
    sharding.check_train_rows(tiny_config(**{"mixup.alpha": 0.3, "mixup.group": 8}), devices=8, hosts=2)
    with pytest.raises(UsageError, match=r"config\.train\.mesh"):
        sharding.make_mesh(tiny_config(**{"train.mesh.data": 3}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.fusion": "cross_attention", "model.pre_logits": 8},
        {"model.fusion": "self_attention", "model.pooling": "gap", "loss.on": "mean_logits"},
    ],
    ids=["bottleneck", "cross_attention", "self_attention"],
)
def test_rules_cover_every_parameter_and_the_optimizer_follows(changes):
    by_path = specs(tiny_config(**changes, **{"optim.name": "adamw", "optim.ema": 0.9}))
    params = {path.removeprefix("params/"): spec for path, spec in by_path.items() if path.startswith("params/")}
    split = {path for path, spec in params.items() if "fsdp" in spec}
    assert split == {path for path in params if path.endswith("/kernel") and not path.startswith("tokens/")}
    for path, spec in params.items():
        followers = [other for name, other in by_path.items() if name.endswith(f"/{path}")]
        assert followers == [spec] * 4, path  # itself, both moments of AdamW, the moving average
    assert by_path["step"] == by_path["mel_mean"] == P()


def test_a_split_state_takes_its_share_of_every_device():
    """Of the paper's model, on 4 devices along `fsdp`: 2 % is left whole, as docs/sharding.md says."""
    config = default_config()
    config.data.update(mel_mean=0.0, mel_stddev=1.0)
    config.train.steps, config.model.num_classes = 1, 527
    shapes = step.state_shapes(config, sharding.make_mesh(config))
    places = jax.tree.leaves(sharding.state_shardings(MESH, shapes).params)
    pairs = list(zip(jax.tree.leaves(shapes.params), places, strict=True))
    whole = sum(leaf.size for leaf, _ in pairs)
    share = sum(np.prod(place.shard_shape(leaf.shape)) for leaf, place in pairs)
    assert 0.25 <= share / whole < 0.25 + 0.75 * 0.02


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match=r"no rule of train/sharding\.py covers the parameter layers/0/gate"):
        sharding.spec_of("layers/0/gate", (8, 8), SIZES)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [((8, 16), P("fsdp", None)), ((6, 16), P(None, "fsdp")), ((6, 9), P(None, None))],
    ids=["as_ruled", "other_dimension", "whole"],
)
def test_dimensions_that_do_not_divide_fall_back(shape, spec):
    assert sharding.spec_of("layers/0/rgb/mlp/expand/kernel", shape, SIZES) == spec


def test_batches_are_placed_ahead_and_come_in_order():
    config = tiny_config()
    taken = []

    def batches():
        for number in range(4):
            taken.append(number)
            yield tiny_batch(config, number) | {"records": np.full(16, number), "names": ["a"] * 16}

    mesh = sharding.make_mesh(config)
    ready = sharding.placed(mesh, batches(), ("rgb", "records"), depth=2)
    batch, arrays = next(ready)
    assert taken == [0, 1]
    assert set(arrays) == {"rgb", "records"} and "names" in batch
    np.testing.assert_array_equal(arrays["rgb"], batch["rgb"])
    assert arrays["rgb"].sharding == sharding.rows_sharding(mesh)
    assert [int(arrays["records"][0]) for _, arrays in ready] == [1, 2, 3]
