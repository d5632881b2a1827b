"""What a model costs, found without running or compiling it.

One GMAC is 1e9 multiply-accumulates, two floating-point operations each. All numbers are for one example.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from mbt.model.config import MBTConfig
from mbt.model.mbt import MBT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one model, one example.

    Attributes:
      parameters: their number.
      gmac: forward, half of the operations that XLA's cost analysis counts, elementwise ones included.
      product_gmac: forward, in matrix products and convolutions alone.
      activation_bytes: what the forward pass keeps of each example for the backward pass, with XLA's attention.
      cudnn_activation_bytes: the same without the weights of attention, which cuDNN does not keep. A number that it
        keeps of each query and head is not counted: under a thousandth.
    """

    parameters: int
    gmac: float
    product_gmac: float
    activation_bytes: int
    cudnn_activation_bytes: int


def cost_of(config: MBTConfig) -> Cost:
    """The cost of a model."""
    config = dataclasses.replace(config, attention="xla")
    graph, params = nnx.split(nnx.eval_shape(lambda: MBT(config, rngs=nnx.Rngs(0))))
    inputs = _inputs(config, 1)

    def forward(params, inputs):
        return nnx.merge(graph, params)(inputs)["logits"]

    kept = [_kept(forward, params, _inputs(config, examples)) for examples in (1, 2)]
    weights = [[array for array in arrays if _is_attention(array, config.size.heads)] for arrays in kept]
    analysis: Any = jax.jit(forward).lower(params, inputs).cost_analysis()
    return Cost(
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        gmac=analysis["flops"] / 2e9,
        product_gmac=product_macs(jax.make_jaxpr(forward)(params, inputs).jaxpr) / 1e9,
        activation_bytes=_per_example(*kept),
        cudnn_activation_bytes=_per_example(*kept) - _per_example(*weights),
    )


def product_macs(jaxpr: core.Jaxpr) -> int:
    """Multiply-accumulates in the matrix products of a program and of those inside it.

    Raises:
      NotImplementedError: it has a convolution or a loop, which no part of the model has.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "while", "scan"):
            raise NotImplementedError(f"no count for {equation.primitive.name}")
        if equation.primitive.name == "dot_general":
            total += _dot_macs(equation)
        total += sum(product_macs(inner) for inner in _inside(equation))
    return total


def _dot_macs(equation: core.JaxprEqn) -> int:
    """Size of the result times the length that is summed over."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left: Any = equation.invars[0].aval
    result: Any = equation.outvars[0].aval
    return math.prod(result.shape) * math.prod(left.shape[axis] for axis in contracted)


def _inside(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    for value in equation.params.values():
        for inner in value if isinstance(value, tuple | list) else (value,):
            if isinstance(inner, core.ClosedJaxpr):
                yield inner.jaxpr
            elif isinstance(inner, core.Jaxpr):
                yield inner


def _inputs(config: MBTConfig, examples: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {m.name: jax.ShapeDtypeStruct((examples, *m.shape, m.channels), jnp.float32) for m in config.modalities}


def _per_example(of_one: list, of_two: list) -> int:
    """Bytes that a second example adds: copies of weights in another type have no part in them."""
    one, two = (sum(array.size * array.dtype.itemsize for array in arrays) for arrays in (of_one, of_two))
    return two - one


def _is_attention(array: Any, heads: int) -> bool:
    """Whether an array is of weights or their sums: in JAX's own attention (1, examples, heads, queries, keys or 1)."""
    return array.ndim == 5 and array.shape[2] == heads and array.shape[3] > 1


def _kept(forward, params: Any, inputs: dict) -> list[Any]:
    """The arrays that the gradient's function holds on to and that are not its arguments themselves."""
    jaxpr = jax.make_jaxpr(lambda params, inputs: jax.vjp(lambda params: forward(params, inputs), params)[1])(
        params, inputs
    ).jaxpr
    kept: dict[int, Any] = {id(variable): variable.aval for variable in jaxpr.outvars if isinstance(variable, core.Var)}
    for argument in jaxpr.invars:
        kept.pop(id(argument), None)
    return list(kept.values())


def reference_excess_gmac(config: MBTConfig) -> float:
    """What Scenic's cross-attention takes in products beyond ours.

    It runs each modality's layer over the tokens of all and keeps the modality's own.
    """
    lengths = [m.num_patches + (config.pooling == "cls") for m in config.modalities]
    excess = sum(
        _layer_macs(config, sum(lengths), sum(lengths)) - _layer_macs(config, n, sum(lengths)) for n in lengths
    )
    return excess * sum(map(config.fuses, range(config.size.depth))) / 1e9


def _layer_macs(config: MBTConfig, queries: int, keys: int) -> int:
    """T queries, S keys: 2 T D^2 and 2 S D^2 for projections, 2 T S D for attention, 2 T D M for the MLP."""
    width = config.size.width
    return 2 * width * (queries * width + keys * width + queries * keys + queries * config.size.mlp_dim)
