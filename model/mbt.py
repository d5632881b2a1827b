"""The Multimodal Bottleneck Transformer (Nagrani et al., 2021), over any named inputs.

B batch, T_m tokens of modality m (its CLS first), F bottleneck tokens, D width, L layers, K classes.

    tokens    z_m = [z_cls, E x_1, ..., E x_N] + p           `tokens.py`     Eq. 1, 4
    layers    l <  L_f: every modality on its own            `encoder.py`    Eq. 2, 3
              l >= L_f: cross-attention to all, or           `fusion.py`     Eq. 5, 6
                        exchange through the bottlenecks     `fusion.py`     Eq. 7-9
    head      LN; the CLS of every modality through one shared linear map; logits averaged
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.config import MBTConfig
from mbt.model.encoder import Block, fold, layer_norm
from mbt.model.fusion import Stream, fuse
from mbt.model.tokens import Tokens

# The name of the one set of weights in layers that share it.
SHARED = "shared"
# The name of the one vector of logits under GAP, among the logits by modality.
ALL = "all"


class MBT(nnx.Module):
    """The model. One modality makes it a plain ViT on that input.

    Example:
      >>> rgb = Modality(name="rgb", shape=(8, 224, 224), channels=3, patch=(16, 16))
      >>> sound = Modality(name="spectrogram", shape=(800, 128), channels=1, patch=(16, 16))
      >>> config = MBTConfig(modalities=(rgb, sound), size=SIZES["vit_b"], num_classes=527)
      >>> outputs = MBT(config, rngs=nnx.Rngs(0))({"rgb": frames, "spectrogram": log_mel})
    """

    def __init__(self, config: MBTConfig, *, rngs: nnx.Rngs):
        width = config.size.width
        self.config = config
        self.tokens = nnx.Dict({m.name: Tokens(m, config, rngs=rngs) for m in config.modalities})
        self.layers = nnx.List([_make_layer(config, layer, rngs) for layer in range(config.size.depth)])
        if config.has_bottlenecks:
            bottlenecks = nnx.initializers.normal(0.02)(rngs.params(), (1, config.num_bottlenecks, width))
            self.bottlenecks = nnx.Param(bottlenecks)
        self.norm = layer_norm(width, "float32", rngs=rngs)
        if config.pre_logits:
            self.pre_logits = nnx.Linear(width, config.pre_logits, rngs=rngs)
        # At zero, every class starts at the same score and the first steps only fit the class frequencies.
        zeros = nnx.initializers.zeros
        self.head = nnx.Linear(config.pre_logits or width, config.num_classes, kernel_init=zeros, rngs=rngs)

    def __call__(self, inputs: dict[str, jax.Array], *, key: jax.Array | None = None) -> dict:
        """Runs the model.

        Args:
          inputs: by modality, each (B, *shape, channels).
          key: turns stochastic depth on (training): one key, or (B,) with one for each example; None is evaluation.

        Returns:
          `logits`: (B, K) float32, averaged over modalities.
          `logits_by_modality`: (B, K) float32 each; under GAP one, named "all".
          `pre_logits`: (B, D) float32 each, what the head sees.
          `tokens`: (B, T_m, D) float32 each, after the last LayerNorm.

        Raises:
          ValueError: an input is missing or has another shape.
        """
        keys = jax.random.split(key, len(next(iter(inputs.values())))) if key is not None and key.ndim == 0 else key
        stream = self.embed(inputs)
        for layer in range(self.config.size.depth):
            apply = functools.partial(self._apply, layer, fold(keys, layer))
            stream = fuse(self.config, layer, apply, stream)
        return self.classify({m: self.norm(tokens) for m, tokens in stream.z.items()})

    def embed(self, inputs: dict[str, jax.Array]) -> Stream:
        """What the first layer gets."""
        if missing := [name for name in self.config.names if name not in inputs]:
            raise ValueError(f"there is no input {missing[0]}; given are {', '.join(inputs)}")
        z = {m: self.tokens[m](inputs[m]) for m in self.config.names}
        if not self.config.has_bottlenecks:
            return Stream(z, None)
        batch = next(iter(z.values())).shape[0]
        bottlenecks_1FD = self.bottlenecks[...].astype(self.config.dtype)
        return Stream(z, jnp.broadcast_to(bottlenecks_1FD, (batch, *bottlenecks_1FD.shape[1:])))

    def block(self, layer: int, m: str) -> Block:
        """The weights of a modality in a layer."""
        return self.layers[layer][SHARED if self.config.shares(layer) else m]

    def classify(self, tokens: dict[str, jax.Array]) -> dict:
        """From tokens after the last LayerNorm to all outputs; see `__call__`."""
        pooled = self._pool(tokens)
        if self.config.pre_logits:
            pooled = {m: jnp.tanh(self.pre_logits(x)) for m, x in pooled.items()}
        logits = {m: self.head(x) for m, x in pooled.items()}
        return {
            "logits": sum(logits.values()) / len(logits),
            "logits_by_modality": logits,
            "pre_logits": pooled,
            "tokens": tokens,
        }

    def _pool(self, tokens: dict[str, jax.Array]) -> dict[str, jax.Array]:
        if self.config.pooling == "cls":
            return {m: z[:, 0] for m, z in tokens.items()}
        return {ALL: jnp.concatenate([*tokens.values()], axis=1).mean(axis=1)}

    def _apply(self, layer: int, keys: jax.Array | None, m: str, z: jax.Array, context: jax.Array | None) -> jax.Array:
        """One layer of one modality."""
        run = nnx.remat(Block.__call__) if self.config.remat else Block.__call__
        return run(self.block(layer, m), z, context, fold(keys, self.config.names.index(m)))


def split_heads(values: jax.Array, head_sizes: tuple[int, ...]) -> list[jax.Array]:
    """Logits or labels (B, K) by head, (B, K_h) each; without sizes all are one head's."""
    ends = [sum(head_sizes[: i + 1]) for i in range(len(head_sizes) - 1)]
    return jnp.split(values, ends, axis=-1)


def _make_layer(config: MBTConfig, layer: int, rngs: nnx.Rngs) -> nnx.Dict:
    names = (SHARED,) if config.shares(layer) else config.names
    return nnx.Dict({name: Block(config, layer, rngs=rngs) for name in names})
