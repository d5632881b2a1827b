"""A new run that starts from another one: `config.init.source=RUN[@STEP]`.

What is taken of it is `config.init.state`: its weights, those that an evaluation of it uses. Schedule, optimizer and
step begin anew.
"""

import contextlib
from typing import Any

import jax
from ml_collections import ConfigDict

from mbt.train import ema, sharding, source_run
from mbt.train.checkpoint import Checkpoints
from mbt.train.errors import UsageError
from mbt.train.step import State, eval_params, init_state, state_shapes
from mbt.train.workdir import checkpoint_steps, read_run

# Parameters that are of the classes, not of what is seen and heard: a run of other classes begins with its own.
OF_CLASSES = ("head/kernel", "head/bias")


def first_state(config: ConfigDict, mesh: jax.sharding.Mesh) -> State:
    """The state before the first step of a resolved config, with the weights that it starts from.

    Raises:
      UsageError: they cannot be used.
    """
    state = init_state(config, mesh)
    if not config.init.source:
        return state
    params = weights(config, state.params, mesh)
    return state._replace(params=params, ema=ema.start(config.optim.ema, params))


def read(source: str, mesh: jax.sharding.Mesh) -> State:
    """The state of the checkpoint that a source names.

    Raises:
      UsageError: there is none, or it is damaged.
    """
    workdir, step = source_run.parse(source)
    if step is not None and step not in (there := checkpoint_steps(workdir)):
        steps = ", ".join(map(str, there)) or "(none)"
        raise UsageError(
            f"config.init.source={source}: that checkpoint is gone; those of steps {steps} are there; name another, "
            "with another --workdir"
        )
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        return checkpoints.restore(state_shapes(read_run(workdir, "config.init.source"), mesh), step)


def weights(config: ConfigDict, params: Any, mesh: jax.sharding.Mesh) -> Any:
    """The parameters of a new run, with the weights of its source in the place of those drawn.

    Args:
      config: resolved, of the new run.
      params: of the new run, as drawn.
      mesh: of the new run.

    Raises:
      UsageError: the source is another model; a head of other classes is left as drawn.
    """
    source = config.init.source
    theirs, ours = (_by_name(tree) for tree in (eval_params(read(source, mesh)), params))
    new_head = any(name in theirs and theirs[name].shape != ours[name].shape for name in OF_CLASSES if name in ours)
    kept = OF_CLASSES if new_head else ()
    for name in sorted(ours.keys() | theirs.keys()):
        has, needs = (values[name].shape if name in values else None for values in (theirs, ours))
        if name not in kept and has != needs:
            raise UsageError(
                f"config.init.source={source}: of {name} it has {_told(has)}, the config asks for {_told(needs)}; "
                "give a config of the same model, or a run of this one"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, value: value if sharding.name_of(path) in kept else theirs[sharding.name_of(path)], params
    )


def _by_name(params: Any) -> dict[str, jax.Array]:
    return {sharding.name_of(path): value for path, value in jax.tree_util.tree_leaves_with_path(params)}


def _told(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(list(shape))
