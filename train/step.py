"""The state of training, and the two pure functions that use it, compiled for a mesh of devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from mbt.model.mbt import MBT
from mbt.model.vit_weights import load_vit, read_vit
from mbt.model.weights import WeightsError
from mbt.train import ema, sharding
from mbt.train.config import model_config
from mbt.train.device_augment import augment_on_device, device_columns
from mbt.train.errors import UsageError
from mbt.train.loss import loss_of
from mbt.train.mixup import draw_weights, mix_batch
from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.optim import clip_part, make_optimizer, make_schedule

# What the draws of a step are for.
MIXUP, STOCHASTIC_DEPTH = range(2)


class State(NamedTuple):
    """Everything that the next step reads, data apart, whose position follows from the step.

    Attributes:
      step: updates made so far.
      params: of the model.
      opt_state: of the optimizer.
      ema: moving average of `params`; empty when the config asks for none.
      mel_mean: spectrogram statistics, frozen when the run began.
      mel_stddev: likewise.
    """

    step: jax.Array
    params: nnx.State
    opt_state: optax.OptState
    ema: Any
    mel_mean: jax.Array
    mel_stddev: jax.Array


TrainStep = Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]


def init_state(config: ConfigDict, mesh: Mesh) -> State:
    """The state before the first step of a resolved config, on the devices that are to hold it.

    Raises:
      UsageError: the weights that the run starts from cannot be used.
    """
    shardings = sharding.state_shardings(mesh, state_shapes(config, mesh))
    if config.init.vit:
        return jax.device_put(state_of(config, _from_vit(config)), shardings)
    return jax.jit(lambda: state_of(config, _new_model(config)), out_shardings=shardings)()


def _new_model(config: ConfigDict) -> MBT:
    return MBT(model_config(config), rngs=nnx.Rngs(config.seed))


def _from_vit(config: ConfigDict) -> MBT:
    try:
        weights = read_vit(config.init.vit)
        model = _new_model(config)
        load_vit(model, weights)
    except (WeightsError, OSError) as error:
        raise UsageError(f"config.init.vit={config.init.vit}: {error}") from error
    return model


def state_of(config: ConfigDict, model: MBT) -> State:
    """The state before the first step, with a model's parameters."""
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(config).init(params),
        ema=ema.start(config.optim.ema, params),
        mel_mean=jnp.float32(config.data.mel_mean),
        mel_stddev=jnp.float32(config.data.mel_stddev),
    )


def state_shapes(config: ConfigDict, mesh: Mesh) -> State:
    """The form of a resolved config's state and where it lies, without values: what Orbax restores into."""
    shapes = jax.eval_shape(lambda: state_of(config, _new_model(config)))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.state_shardings(mesh, shapes),
    )


def eval_params(state: State) -> nnx.State:
    """What is evaluated: the moving average of the parameters where there is one, else the parameters."""
    return state.ema if jax.tree.leaves(state.ema) else state.params


def model_inputs(state: State, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Scales a batch: frames from 0..255 to -1..1, the spectrogram to mean 0 and standard deviation 1."""
    inputs = {}
    if RGB in batch:
        inputs[RGB] = batch[RGB].astype(jnp.float32) / 127.5 - 1
    if SPECTROGRAM in batch:
        inputs[SPECTROGRAM] = (batch[SPECTROGRAM] - state.mel_mean) / state.mel_stddev
    return inputs


def train_columns(config: ConfigDict) -> tuple[str, ...]:
    """What the training step reads of a batch of the loader."""
    return (*config.modalities, "labels", *device_columns(config))


def mixup_weights(config: ConfigDict, key: jax.Array) -> dict[str, jax.Array]:
    """The weights of mixup for a whole batch, (groups,) by modality; none without mixup."""
    mixup, names = config.mixup, tuple(config.modalities)
    if mixup.alpha == 0:
        return {}
    groups = config.train.batch_size // mixup.group
    return draw_weights(key, names, groups=groups, alpha=mixup.alpha, by_modality=mixup.by_modality)


def mixed(inputs: dict[str, jax.Array], labels: jax.Array, weights: dict[str, jax.Array]):
    """Inputs, and labels (B, K) or such by modality, after the mixup that the weights ask for."""
    return mix_batch(inputs, labels, weights) if weights else (inputs, labels)


class Rows(NamedTuple):
    """Some rows of a batch, and what is drawn for them.

    Attributes:
      batch: of the loader, B rows.
      keys: (B,), of stochastic depth.
      weights: of mixup, (B / group,) by modality, or none.
    """

    batch: dict[str, jax.Array]
    keys: jax.Array
    weights: dict[str, jax.Array]


def train_inputs(config: ConfigDict, state: State, rows: Rows):
    """What the model gets in training, augmented, scaled and mixed, and its labels as `mixed` gives them."""
    batch = augment_on_device(config, rows.batch)
    return mixed(model_inputs(state, batch), batch["labels"], rows.weights)


def draw_rows(config: ConfigDict, step: jax.Array, batch: dict[str, jax.Array]) -> Rows:
    """Everything that a step draws: a function of the seed, the step and the row, wherever the row lies."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    depth_key = jax.random.fold_in(key, STOCHASTIC_DEPTH)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(depth_key, jnp.arange(config.train.batch_size))
    return Rows(batch, keys, mixup_weights(config, jax.random.fold_in(key, MIXUP)))


def split_rows(config: ConfigDict, rows: Rows) -> Rows:
    """Rows dealt into `train.accumulate` parts, a new first dimension.

    They are dealt in turn, by groups of mixup, so that every device gives rows of its own to every part.
    """
    parts, group = config.train.accumulate, config.mixup.group if config.mixup.alpha else 1

    def deal(values: jax.Array, run: int) -> jax.Array:
        dealt = values.reshape(-1, parts, run, *values.shape[1:]).swapaxes(0, 1)
        return dealt.reshape(parts, -1, *values.shape[1:])

    batch = {name: deal(values, group) for name, values in rows.batch.items()}
    return Rows(batch, deal(rows.keys, group), {m: deal(values, 1) for m, values in rows.weights.items()})


def make_train_step(config: ConfigDict, mesh: Mesh) -> TrainStep:
    """The jitted training step of a resolved config: (state, batch) to (state, metrics); the old state is consumed."""
    optimizer, schedule = make_optimizer(config), make_schedule(config)
    shardings = sharding.state_shardings(mesh, state_shapes(config, mesh))
    gradient = make_gradient(config, mesh, shardings.params)

    def train_step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        rows = draw_rows(config, state.step, batch)
        # Drawing weights takes a loop until all are drawn: on every device its own, so that none waits for another.
        rows = rows._replace(weights=jax.lax.with_sharding_constraint(rows.weights, sharding.replicated(mesh)))
        loss, grads = gradient(state, rows)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = ema.update(config.optim.ema, state.ema, params, state.step + 1)
        metrics = {"loss": loss, "learning_rate": schedule(state.step), "grad_norm": optax.tree.norm(grads)}
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state, ema=average), metrics

    return jax.jit(
        train_step,
        in_shardings=(shardings, sharding.rows_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def make_gradient(config: ConfigDict, mesh: Mesh, params_shardings) -> Callable[[State, Rows], tuple[jax.Array, Any]]:
    """The loss of a batch and its gradient, part by part where the config says so."""
    graph = model_graph(config)
    options = {"name": config.loss.name, "smoothing": config.loss.label_smoothing, "on": config.loss.on}
    options["heads"] = tuple(config.model.head_sizes)

    def of_rows(state: State, rows: Rows) -> tuple[jax.Array, Any]:
        # Whole examples, each on one device: from here the compiler gathers weights and moves no activations.
        pair = train_inputs(config, state, rows)
        inputs, labels = jax.lax.with_sharding_constraint(pair, sharding.rows_sharding(mesh))

        def loss_fn(params):
            return loss_of(nnx.merge(graph, params)(inputs, key=rows.keys), labels, **options)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        grads = clip_part(config, grads)
        return loss, jax.lax.with_sharding_constraint(grads, params_shardings)

    parts = config.train.accumulate
    if parts == 1:
        return of_rows
    by_part = NamedSharding(mesh, P(None, sharding.AXES))

    def of_parts(state: State, rows: Rows) -> tuple[jax.Array, Any]:
        split = split_rows(config, rows)
        split = split._replace(batch=jax.lax.with_sharding_constraint(split.batch, by_part))
        zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), state.params))

        def add(total, part: Rows):
            return jax.tree.map(jnp.add, total, of_rows(state, part)), None

        total, _ = jax.lax.scan(add, zeros, split)
        return jax.tree.map(lambda value: value / parts, total)

    return of_parts


def make_eval_step(config: ConfigDict, views: int, mesh: Mesh) -> Callable[[State, dict], jax.Array]:
    """The jitted evaluation step: (state, batch) to (B, K) logits, averaged over `views` neighbouring rows.

    The rows go through the model in parts, so that it takes no more memory than a step of training. Every host gets
    the logits of all hosts' rows.
    """
    graph = model_graph(config)
    shardings = sharding.state_shardings(mesh, state_shapes(config, mesh))
    by_part = NamedSharding(mesh, P(None, sharding.AXES))

    def eval_step(state: State, batch: dict[str, jax.Array]) -> jax.Array:
        rows = len(next(iter(batch.values())))
        parts = eval_parts(config, rows, devices=mesh.size)
        dealt = {name: values.reshape(-1, parts, *values.shape[1:]).swapaxes(0, 1) for name, values in batch.items()}
        model = nnx.merge(graph, eval_params(state))
        logits = jax.lax.map(
            lambda part: model(model_inputs(state, part))["logits"], jax.lax.with_sharding_constraint(dealt, by_part)
        )
        return logits.swapaxes(0, 1).reshape(-1, views, logits.shape[-1]).mean(axis=1)

    return jax.jit(
        eval_step,
        in_shardings=(shardings, sharding.rows_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )


def eval_parts(config: ConfigDict, rows: int, *, devices: int) -> int:
    """In how many parts of the same size the rows of an evaluation go through the model.

    The fewest whose rows are no more than those of a part of a training step, and can be shared out among all devices.
    """
    most = max(devices, config.train.batch_size // config.train.accumulate)
    each = rows // devices
    return next(parts for parts in range(1, each + 1) if each % parts == 0 and rows // parts <= most)


def model_graph(config: ConfigDict) -> nnx.GraphDef:
    """The model without its parameters."""
    return nnx.split(nnx.eval_shape(lambda: MBT(model_config(config), rngs=nnx.Rngs(0))))[0]
