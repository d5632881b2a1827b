"""The state of training, and the two pure functions that use it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from mbt.model.mbt import MBT
from mbt.model.vit_weights import load_vit, read_vit
from mbt.model.weights import WeightsError
from mbt.train.config import model_config
from mbt.train.errors import UsageError
from mbt.train.loss import loss_of
from mbt.train.mixup import draw_weights, mix_batch
from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.optim import make_optimizer, make_schedule

# What mixup's draws are keyed by, beside the step; the layers of the model take the numbers from 0.
MIXUP = 1_000_000


class State(NamedTuple):
    """Everything that the next step reads, data apart, whose position follows from the step.

    Attributes:
      step: updates made so far.
      params: of the model.
      opt_state: of the optimizer.
      mel_mean: spectrogram statistics, frozen when the run began.
      mel_stddev: likewise.
    """

    step: jax.Array
    params: nnx.State
    opt_state: optax.OptState
    mel_mean: jax.Array
    mel_stddev: jax.Array


def init_state(config: ConfigDict) -> State:
    """The state before the first step of a resolved config.

    Raises:
      UsageError: the weights that the run starts from cannot be used.
    """
    model = MBT(model_config(config), rngs=nnx.Rngs(config.seed))
    if config.init.vit:
        try:
            load_vit(model, read_vit(config.init.vit))
        except (WeightsError, OSError) as error:
            raise UsageError(f"config.init.vit={config.init.vit}: {error}") from error
    return state_of(config, model)


def state_of(config: ConfigDict, model: MBT) -> State:
    """The state before the first step, with a model's parameters."""
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(config).init(params),
        mel_mean=jnp.float32(config.data.mel_mean),
        mel_stddev=jnp.float32(config.data.mel_stddev),
    )


def state_shapes(config: ConfigDict) -> State:
    """The form of a resolved config's state, without values."""
    return jax.eval_shape(lambda: state_of(config, MBT(model_config(config), rngs=nnx.Rngs(0))))


def model_inputs(state: State, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Scales a batch: frames from 0..255 to -1..1, the spectrogram to mean 0 and standard deviation 1."""
    inputs = {}
    if RGB in batch:
        inputs[RGB] = batch[RGB].astype(jnp.float32) / 127.5 - 1
    if SPECTROGRAM in batch:
        inputs[SPECTROGRAM] = (batch[SPECTROGRAM] - state.mel_mean) / state.mel_stddev
    return inputs


def mixed(config: ConfigDict, key: jax.Array, inputs: dict[str, jax.Array], labels: jax.Array):
    """Inputs, and labels (B, K) or such by modality, after the mixup that the config asks for."""
    mixup = config.mixup
    if mixup.alpha == 0:
        return inputs, labels
    groups = labels.shape[0] // mixup.group
    weights = draw_weights(key, tuple(inputs), groups=groups, alpha=mixup.alpha, by_modality=mixup.by_modality)
    return mix_batch(inputs, labels, weights)


def make_train_step(config: ConfigDict) -> Callable[[State, dict], tuple[State, dict]]:
    """The jitted training step of a resolved config: (state, batch) to (state, metrics); the old state is consumed."""
    graph = model_graph(config)
    optimizer, schedule = make_optimizer(config), make_schedule(config)
    loss_options = {"name": config.loss.name, "smoothing": config.loss.label_smoothing, "on": config.loss.on}
    loss_options["heads"] = tuple(config.model.head_sizes)
    seed = config.seed

    def train_step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        inputs, labels = mixed(config, jax.random.fold_in(key, MIXUP), model_inputs(state, batch), batch["labels"])

        def loss_fn(params):
            outputs = nnx.merge(graph, params)(inputs, key=key)
            return loss_of(outputs, labels, **loss_options)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {"loss": loss, "learning_rate": schedule(state.step), "grad_norm": optax.tree.norm(grads)}
        params = optax.apply_updates(state.params, updates)
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return jax.jit(train_step, donate_argnums=0)


def make_eval_step(config: ConfigDict, views: int) -> Callable[[State, dict], jax.Array]:
    """The jitted evaluation step: (state, batch) to (B, K) logits, averaged over `views` neighbouring rows."""
    graph = model_graph(config)

    def eval_step(state: State, batch: dict[str, jax.Array]) -> jax.Array:
        logits = nnx.merge(graph, state.params)(model_inputs(state, batch))["logits"]
        return logits.reshape(-1, views, logits.shape[-1]).mean(axis=1)

    return jax.jit(eval_step)


def model_graph(config: ConfigDict) -> nnx.GraphDef:
    """The model without its parameters."""
    return nnx.split(nnx.eval_shape(lambda: MBT(model_config(config), rngs=nnx.Rngs(0))))[0]


def place(batch: dict, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """Puts the named arrays of a batch on the device."""
    return jax.device_put({name: batch[name] for name in names})
