"""The model's time against a plain stack of the same layers.

    python benchmarks/model_speed.py [--rounds=31] [--sizes=demo,vit_ti,vit_b]

Prints, for each size, how long the forward pass and forward with backward take beside a hand-written stack of
attention and MLP layers of the same shapes: jitted, taken in turns, median of the rounds. The goal is a ratio of at
most 1.05. Compiling, tracing included, is timed apart.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.config import SIZES, MBTConfig, Modality, Size
from mbt.model.mbt import MBT

GOAL = 1.05
PATCH = (16, 16)


def config_of(size: Size, frames: int, side: int, rows: int) -> MBTConfig:
    """Bottlenecks in the upper half of the layers."""
    rgb = Modality(name="rgb", shape=(frames, side, side), channels=3, patch=PATCH)
    sound = Modality(name="spectrogram", shape=(rows, 128), channels=1, patch=PATCH)
    return MBTConfig(modalities=(rgb, sound), size=size, num_classes=527, fusion_layer=size.depth // 2)


# Batch and model. The last two have the published widths in fewer layers, so that a round stays short on a CPU.
CASES = {
    "demo": (32, config_of(Size(width=96, depth=4, heads=3, mlp_dim=192), 4, 48, 192)),
    "vit_ti": (4, config_of(Size(width=192, depth=4, heads=3, mlp_dim=SIZES["vit_ti"].mlp_dim), 4, 112, 400)),
    "vit_b": (1, config_of(Size(width=768, depth=2, heads=12, mlp_dim=SIZES["vit_b"].mlp_dim), 4, 112, 400)),
}


def init_stack(config: MBTConfig, key: jax.Array) -> dict:
    """Parameters of the plain stacks, one for each input."""
    width, hidden = config.size.width, config.size.mlp_dim

    def matrix(i: int, *shape: int) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, i), shape) / shape[0] ** 0.5

    def layer(i: int) -> dict:
        sizes = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
        sizes |= {"in": (width, hidden), "out": (hidden, width)}
        weights = {name: matrix(i * 10 + j, *shape) for j, (name, shape) in enumerate(sizes.items())}
        biases = {f"{name}_bias": jnp.zeros(shape[1]) for name, shape in sizes.items()}
        norms = {f"norm{n}_{part}": jnp.ones(width) for n in (1, 2) for part in ("scale", "bias")}
        return weights | biases | norms

    streams = {}
    for i, m in enumerate(config.modalities):
        values = PATCH[0] * PATCH[1] * m.channels
        streams[m.name] = {
            "embed": matrix(1000 + i, values, width),
            "cls": jnp.zeros((1, 1, width)),
            "more": jnp.zeros((1, config.num_bottlenecks, width)),
            "positions": jnp.zeros((1, 1 + m.num_patches, width)),
            "layers": [layer(100 * i + number) for number in range(config.size.depth)],
        }
    norm = {"scale": jnp.ones(width), "bias": jnp.zeros(width)}
    return {"streams": streams, "norm": norm, "head": matrix(2000, width, config.num_classes)}


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean)
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias


def stack_layer(p: dict, z: jax.Array, heads: int) -> jax.Array:
    """Attention and MLP."""
    batch, tokens, width = z.shape
    x = layer_norm(z, p["norm1_scale"], p["norm1_bias"])
    q, k, v = ((x @ p[n] + p[f"{n}_bias"]).reshape(batch, tokens, heads, width // heads) for n in "qkv")
    y = jax.nn.dot_product_attention(q, k, v).reshape(batch, tokens, width)
    z = z + y @ p["o"] + p["o_bias"]
    x = layer_norm(z, p["norm2_scale"], p["norm2_bias"])
    return z + jax.nn.gelu(x @ p["in"] + p["in_bias"]) @ p["out"] + p["out_bias"]


def cut(x: jax.Array) -> jax.Array:
    """(B, ..., rows, columns, C) to (B, N, 256 C)."""
    *_, rows, columns, channels = x.shape
    split = x.reshape(-1, rows // PATCH[0], PATCH[0], columns // PATCH[1], PATCH[1], channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], -1, PATCH[0] * PATCH[1] * channels)


def run_stack(params: dict, inputs: dict[str, jax.Array], config: MBTConfig) -> jax.Array:
    """One plain stack for each input: its CLS, its patches, and from L_f on B tokens more."""
    logits = []
    for name, stream in params["streams"].items():
        x = cut(inputs[name]) @ stream["embed"]
        cls, more = (jnp.broadcast_to(stream[token], (len(x), *stream[token].shape[1:])) for token in ("cls", "more"))
        z = jnp.concatenate([cls, x], axis=1) + stream["positions"]
        for number, layer in enumerate(stream["layers"]):
            if number == config.fusion_layer:
                z = jnp.concatenate([z, more], axis=1)
            z = stack_layer(layer, z, config.size.heads)
        logits.append(layer_norm(z[:, 0], **params["norm"]) @ params["head"])
    return sum(logits) / len(logits)


def programs(batch: int, config: MBTConfig) -> dict[str, dict]:
    """By pass, the compiled model and stack, their arguments, and how long compiling took, in seconds."""
    graph, params = nnx.split(MBT(config, rngs=nnx.Rngs(0)))
    stack = init_stack(config, jax.random.key(1))
    inputs = {
        m.name: jax.random.normal(jax.random.key(i), (batch, *m.shape, m.channels))
        for i, m in enumerate(config.modalities)
    }

    def model_forward(params, inputs):
        return nnx.merge(graph, params)(inputs)["logits"]

    def stack_forward(params, inputs):
        return run_stack(params, inputs, config)

    def backward(forward):
        return jax.value_and_grad(lambda params, inputs: jnp.square(forward(params, inputs) - 1).mean())

    forwards = {"model": (model_forward, params), "stack": (stack_forward, stack)}
    return {
        "forward": {name: compiled(f, p, inputs) for name, (f, p) in forwards.items()},
        "forward+backward": {name: compiled(backward(f), p, inputs) for name, (f, p) in forwards.items()},
    }


def compiled(function, params, inputs) -> tuple:
    start = time.perf_counter()
    program = jax.jit(function).lower(params, inputs).compile()
    return program, (params, inputs), time.perf_counter() - start


def measure(pair: dict[str, tuple], rounds: int) -> dict[str, float]:
    """Median seconds; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    for number in range(rounds + 1):
        for name in sorted(pair, reverse=number % 2 == 1):
            program, arguments, _ = pair[name]
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--sizes", default=",".join(CASES))
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, float32, median of {args.rounds}; goal: at most {GOAL} of the stack's time")
    for name in args.sizes.split(","):
        batch, config = CASES[name]
        tokens = " + ".join(str(1 + m.num_patches) for m in config.modalities)
        print(f"{name}: batch {batch}, {tokens} tokens, width {config.size.width}, {config.size.depth} layers")
        for direction, pair in programs(batch, config).items():
            report(direction, pair, measure(pair, args.rounds))


def report(direction: str, pair: dict[str, tuple], seconds: dict[str, float]) -> None:
    ratio = seconds["model"] / seconds["stack"]
    times = ", ".join(f"{name} {1e3 * seconds[name]:.1f} ms (compiled in {pair[name][2]:.1f} s)" for name in pair)
    print(f"  {direction}: {times}; ratio {ratio:.3f}{'' if ratio <= GOAL else ', over the goal'}", flush=True)


if __name__ == "__main__":
    main()
