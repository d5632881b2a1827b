"""The training step's time against the bare work: forward, backward and optimizer; on a GPU, its share of the peak.

    python benchmarks/train_step.py [--rounds=25] [--model=demo]

The step is `mbt.train.step`'s, without mixup. Bare is the model's loss, its gradient, clip and optimizer, jitted in ten
lines. Both start from the same state and batch, are run in turns, and the median of the rounds counts. The goal is at
most 1.05 times the bare time. On a GPU then follows model FLOPs utilisation of MBT-B, batch 64, bfloat16: 3 x 2 x the
multiply-accumulates of one forward pass (`mbt.model.cost`, products alone), over the card's dense bfloat16 rate; the
goal is 45 % on an H100.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from mbt.model.cost import cost_of
from mbt.train import sharding, step
from mbt.train.config import default_config, input_shapes, model_config
from mbt.train.loss import loss_of
from mbt.train.modalities import CHANNELS, RGB
from mbt.train.optim import make_optimizer

GOAL = 1.05
MFU_GOAL = 0.45
# Dense bfloat16 rates from NVIDIA's data sheets, FLOP/s, by a part of the card's name.
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
MODELS = {
    "tiny": {"model.width": 32, "model.depth": 2, "model.heads": 2, "model.mlp_dim": 64, "model.fusion_layer": 1},
    "demo": {"model.width": 96, "model.depth": 4, "model.heads": 3, "model.mlp_dim": 192, "model.fusion_layer": 2},
}


def small_config(model: str) -> ConfigDict:
    """The demo's windows and batch; SGD with the clip, stochastic depth and BCE as in the paper."""
    config = default_config()
    config.data.update(seconds=2.0, frames=4, crop=48, eval_split="", mel_mean=0.0, mel_stddev=1.0)
    config.train.update(batch_size=32, steps=1000)
    config.model.num_classes = 527
    config.update_from_flattened_dict(MODELS[model])
    return config


def paper_config() -> ConfigDict:
    """MBT-B, batch 64, bfloat16, t = 8."""
    config = default_config()
    config.data.update(eval_split="", mel_mean=0.0, mel_stddev=1.0)
    config.train.steps = 1000
    config.model.update(num_classes=527, dtype="bfloat16")
    return config


def random_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    random, rows = np.random.default_rng(0), config.train.batch_size
    batch = {}
    for name, shape in input_shapes(config).items():
        whole = (rows, *shape, CHANNELS[name])
        pixels = name == RGB
        batch[name] = random.integers(0, 256, whole, np.uint8) if pixels else random.normal(size=whole).astype("f4")
    return batch | {"labels": (random.random((rows, config.model.num_classes)) < 0.01).astype(np.float32)}


def bare_step(config: ConfigDict) -> Callable:
    """Forward, backward, optimizer."""
    graph, optimizer = step.model_graph(config), make_optimizer(config)
    options = {"name": config.loss.name, "smoothing": 0.0, "on": config.loss.on}

    def run(params, opt_state, inputs, labels, key):
        def loss_fn(params):
            return loss_of(nnx.merge(graph, params)(inputs, key=key), labels, **options)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return jax.jit(run, donate_argnums=(0, 1))


def loops(config: ConfigDict) -> dict[str, Callable[[], jax.Array]]:
    """Functions that make one more step each, on a batch that lies on the device."""
    mesh = sharding.make_mesh(config)
    batch = sharding.place_batch(mesh, random_batch(config), (*config.modalities, "labels"))
    full, bare = step.make_train_step(config, mesh), bare_step(config)
    states = {"full": step.init_state(config, mesh), "bare": step.init_state(config, mesh)}
    inputs = jax.jit(step.model_inputs)(states["bare"], batch)
    key = jax.random.key(0)

    def full_step() -> jax.Array:
        states["full"], metrics = full(states["full"], batch)
        return metrics["loss"]

    def bare_once() -> jax.Array:
        old = states["bare"]
        params, opt_state, loss = bare(old.params, old.opt_state, inputs, batch["labels"], key)
        states["bare"] = old._replace(params=params, opt_state=opt_state)
        return loss

    return {"full": full_step, "bare": bare_once}


def measure(functions: dict[str, Callable[[], jax.Array]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, taken in turns; two rounds before warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 2):
        for name in sorted(functions, reverse=number % 2 == 1):
            start = time.perf_counter()
            jax.block_until_ready(functions[name]())
            times[name].append(time.perf_counter() - start)
    return {name: values[2:] for name, values in times.items()}


def compare(model: str, rounds: int) -> None:
    times = measure(loops(small_config(model)), rounds)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    of_pairs = statistics.median(full / bare for full, bare in zip(times["full"], times["bare"], strict=True))
    ratio = seconds["full"] / seconds["bare"]
    device = jax.devices()[0].device_kind
    print(f"{model}, {device}, float32, median of {rounds}; goal: at most {GOAL} of the bare time")
    print(f"  full step {1e3 * seconds['full']:.1f} ms, bare {1e3 * seconds['bare']:.1f} ms", end="; ")
    print(f"ratio {ratio:.3f}, of neighbouring rounds {of_pairs:.3f}{'' if ratio <= GOAL else ', over the goal'}")


def utilisation(rounds: int) -> None:
    """Input excluded: the same batch again and again. Included: another one placed each time, two ahead."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        print("model FLOPs utilisation: no GPU")
        return
    peak = next((rate for name, rate in PEAKS.items() if name in device.device_kind), None)
    config = paper_config()
    mesh, names = sharding.make_mesh(config), (*config.modalities, "labels")
    flops = 3 * 2 * cost_of(model_config(config)).product_gmac * 1e9 * config.train.batch_size / mesh.size
    train_step, batch = step.make_train_step(config, mesh), random_batch(config)
    inputs = {
        "excluded": iter([sharding.place_batch(mesh, batch, names)] * (rounds + 5)),
        "included": (placed for _, placed in sharding.placed(mesh, [batch] * (rounds + 5), names)),
    }
    for name, batches in inputs.items():
        seconds = seconds_of(train_step, step.init_state(config, mesh), batches, rounds)
        share = f"utilisation {flops / seconds / peak:.1%}" if peak else "the card's rate is not known"
        speed = f"{1e3 * seconds:.0f} ms, {flops / seconds / 1e12:.0f} TFLOP/s, {share}"
        print(
            f"MBT-B, batch {config.train.batch_size}, bfloat16, {device.device_kind}, input {name}: {speed}", end="; "
        )
        print(f"goal: {MFU_GOAL:.0%} on an H100")


def seconds_of(train_step: step.TrainStep, state: step.State, batches, rounds: int) -> float:
    """Mean seconds of a step, steps started without waiting for the ones before."""
    start = 0.0
    for number in range(rounds + 3):
        state, metrics = train_step(state, next(batches))
        if number == 2:
            jax.block_until_ready(metrics)
            start = time.perf_counter()
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--model", choices=MODELS, default="demo")
    args = parser.parse_args()
    compare(args.model, args.rounds)
    utilisation(args.rounds)


if __name__ == "__main__":
    main()
