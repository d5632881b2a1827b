"""Where arrays lie: a mesh of devices with two named axes, and rules for what is split along them.

The rows of a batch are split along both axes. Parameters, what the optimizer keeps for them, and their moving average
are split along `fsdp` and copied along `data`. So `data` alone is plain data parallelism, and `fsdp` saves memory for
the traffic of gathering each layer's parameters where it is computed.
"""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from mbt.train.errors import UsageError

AXES = ("data", "fsdp")
ROWS = P(AXES)

# Path patterns and what is split; the first that is found counts. Kernels are split along the model's width, a
# multiple of 64 in the published sizes. What is left whole is under 2 % of the paper's model.
RULES: tuple[tuple[str, P], ...] = (
    (r"attention/(query|key|value)/kernel$", P("fsdp", None, None)),  # width, heads, width of a head
    (r"attention/out/kernel$", P(None, None, "fsdp")),  # heads, width of a head, width
    (r"mlp/expand/kernel$", P("fsdp", None)),  # width, hidden
    (r"mlp/contract/kernel$", P(None, "fsdp")),  # hidden, width
    (r"^(head|pre_logits)/kernel$", P("fsdp", None)),  # width, classes or pre-logits
    (r"^tokens/|^bottlenecks$|/bias$|/scale$", P()),
)


def make_mesh(config: ConfigDict) -> Mesh:
    """The mesh that a config asks for, over all devices of all hosts. Nothing is compiled.

    Raises:
      UsageError: the devices, or the rows of a batch, do not divide as they must.
    """
    mesh = mesh_of(config.train.mesh.data, config.train.mesh.fsdp)
    check_train_rows(config, devices=mesh.size, hosts=jax.process_count())
    return mesh


def make_eval_mesh() -> Mesh:
    """A mesh for evaluation alone, whatever the run was trained on: every device takes rows, and all parameters."""
    return mesh_of(-1, 1)


def eval_rows(config: ConfigDict, mesh: Mesh) -> int:
    """Clips of a batch of an evaluation: as many as the config says, filled up so that all devices have as many.

    It changes no score.
    """
    return -(-config.train.eval_batch_size // mesh.size) * mesh.size


def mesh_of(data: int, fsdp: int) -> Mesh:
    """All devices as a mesh (data, fsdp); a size of -1 is what the other leaves.

    The devices of a host are neighbours, so that host h of H holds the h-th part of a batch's rows.

    Raises:
      UsageError: the sizes do not multiply to the number of devices.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    shape = mesh_shape(data, fsdp, len(devices))
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_shape(data: int, fsdp: int, devices: int) -> tuple[int, int]:
    """Sizes of both axes.

    Raises:
      UsageError: they do not multiply to the number of devices.
    """
    wrong = f"config.train.mesh: data={data} times fsdp={fsdp} is not the number of devices, {devices}"
    if data == -1 and fsdp == -1:
        raise UsageError("config.train.mesh: only one of data and fsdp can be -1, which is what the other leaves")
    if -1 in (data, fsdp):
        given = max(data, fsdp)
        if given < 1 or devices % given:
            raise UsageError(f"{wrong}; {given} must divide it")
        data, fsdp = (devices // given if size == -1 else size for size in (data, fsdp))
    if data * fsdp != devices:
        raise UsageError(f"{wrong}; -1 for one of them takes what the other leaves")
    return data, fsdp


def check_train_rows(config: ConfigDict, *, devices: int, hosts: int) -> None:
    """Refuses batches whose rows cannot be split evenly among devices, and groups of mixup that lie on two hosts.

    Raises:
      UsageError: naming the key.
    """
    rows = config.train.batch_size // config.train.accumulate
    if rows % devices:
        raise UsageError(
            f"config.train.batch_size / accumulate = {rows}: must be a multiple of the number of devices, {devices}"
        )
    if config.mixup.alpha and (rows // hosts) % config.mixup.group:
        raise UsageError(
            f"config.mixup.group={config.mixup.group}: must divide the {rows // hosts} rows that each of {hosts} hosts "
            "takes at a time (batch_size / accumulate / hosts)"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, P())


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension split among all devices."""
    return NamedSharding(mesh, ROWS)


def state_shardings(mesh: Mesh, shapes: Any) -> Any:
    """The sharding of every array of a `step.State`.

    What the optimizer and the moving average keep for a parameter lies where the parameter lies; all else is one
    number, and lies everywhere.

    Args:
      mesh: of `make_mesh`.
      shapes: the state, or its form.

    Raises:
      ValueError: no rule covers a parameter, or an array of the state is no parameter's.
    """
    specs = {path: spec_of(path, leaf.shape, mesh.shape) for path, leaf in _leaves(shapes.params)}

    def sharding(path, leaf) -> NamedSharding:
        if leaf.ndim == 0:
            return replicated(mesh)
        return NamedSharding(mesh, specs[_parameter(name_of(path), specs)])

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def spec_of(path: str, shape: Sequence[int], sizes: Mapping[str, int]) -> P:
    """How a parameter is split: by the first of `RULES` that its path meets.

    Where the dimension that the rule names is not a multiple of the axis, the longest that is takes its place; where
    none is, the parameter is left whole.

    Args:
      path: such as "layers/0/rgb/mlp/expand/kernel".
      shape: of the parameter.
      sizes: of the axes.

    Raises:
      ValueError: no rule covers it.
    """
    rule = next((spec for pattern, spec in RULES if re.search(pattern, path)), None)
    if rule is None:
        raise ValueError(f"no rule of train/sharding.py covers the parameter {path}: add one")
    spec = list(rule) + [None] * (len(shape) - len(rule))
    for dimension, axis in enumerate(spec):
        if axis is not None and shape[dimension] % sizes[axis]:
            spec[dimension] = None
            free = [i for i, size in enumerate(shape) if spec[i] is None and size % sizes[axis] == 0]
            if free:
                spec[max(free, key=lambda i: shape[i])] = axis
    return P(*spec)


def _leaves(tree) -> list[tuple[str, Any]]:
    return [(name_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def name_of(path) -> str:
    """The path of an array as one text, such as "layers/0/rgb/mlp/expand/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _parameter(path: str, names: Mapping[str, Any]) -> str:
    """Which parameter an array of the state belongs to: the one whose path its own ends with."""
    parts = path.split("/")
    ends = ("/".join(parts[i:]) for i in range(len(parts)))
    name = next((end for end in ends if end in names), None)
    if name is None:
        raise ValueError(f"{path} is neither a number nor kept for a parameter: train/sharding.py cannot place it")
    return name


def place_batch(mesh: Mesh, batch: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, jax.Array]:
    """Puts the named arrays on the devices, as arrays of all hosts' rows.

    Args:
      mesh: of `make_mesh`.
      batch: this host's rows, one H-th of the batch.
      names: of the arrays to place.
    """
    sharding = rows_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(batch[name])) for name in names}


def placed(
    mesh: Mesh, batches: Iterable[Mapping[str, Any]], names: Sequence[str], depth: int = 2
) -> Iterator[tuple[Mapping[str, Any], dict[str, jax.Array]]]:
    """Batches, each as it came and as `place_batch` places it.

    Placing returns before the copy is done; so with `depth` batches placed ahead, copying goes on while the devices
    compute.
    """
    ahead: collections.deque = collections.deque()
    for batch in batches:
        ahead.append((batch, place_batch(mesh, batch, names)))
        if len(ahead) >= depth:
            yield ahead.popleft()
    yield from ahead
