"""The Multimodal Bottleneck Transformer (Nagrani et al., 2021), over any named inputs.

B batch, T_m tokens of modality m (its CLS first), F bottleneck tokens, D width, L layers, K classes.

    tokens    z_m = [z_cls, E x_1, ..., E x_N] + p           `tokens.py`    Eq. 1, 4
    layers    l <  L_f: every modality on its own            `encoder.py`   Eq. 2, 3
              l >= L_f: exchange through the bottlenecks     `fusion.py`    Eq. 7-9
    head      LN; the CLS of every modality through one shared linear map; logits averaged
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mbt.model.config import MBTConfig
from mbt.model.encoder import Block, layer_norm
from mbt.model.fusion import bottleneck_layer, unimodal_layer
from mbt.model.tokens import Tokens


class MBT(nnx.Module):
    """The model. One modality makes it a plain ViT on that input.

    Example:
      >>> rgb = Modality(name="rgb", shape=(8, 224, 224), channels=3, patch=(16, 16))
      >>> sound = Modality(name="spectrogram", shape=(800, 128), channels=1, patch=(16, 16))
      >>> config = MBTConfig(modalities=(rgb, sound), size=SIZES["vit_b"], num_classes=527)
      >>> outputs = MBT(config, rngs=nnx.Rngs(0))({"rgb": frames, "spectrogram": log_mel})
    """

    def __init__(self, config: MBTConfig, *, rngs: nnx.Rngs):
        width, dtype = config.size.width, jnp.dtype(config.dtype)
        self.config = config
        self.tokens = nnx.Dict({m.name: Tokens(m, width, dtype=dtype, rngs=rngs) for m in config.modalities})
        self.layers = nnx.List(
            [
                nnx.Dict({m.name: Block(config, layer, rngs=rngs) for m in config.modalities})
                for layer in range(config.size.depth)
            ]
        )
        if config.fuses:
            bottlenecks = nnx.initializers.normal(0.02)(rngs.params(), (1, config.num_bottlenecks, width))
            self.bottlenecks = nnx.Param(bottlenecks)
        self.norm = layer_norm(config, rngs=rngs)
        # At zero, every class starts at the same score and the first steps only fit the class frequencies.
        self.head = nnx.Linear(width, config.num_classes, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, inputs: dict[str, jax.Array], *, key: jax.Array | None = None) -> dict:
        """Runs the model.

        Args:
          inputs: by modality, each (B, *shape, channels).
          key: turns stochastic depth on (training); None is evaluation.

        Returns:
          `logits`: (B, K) float32, averaged over modalities.
          `logits_by_modality`: (B, K) float32 each.
          `cls`: (B, D) each, after the last LayerNorm.
          `tokens`: (B, T_m, D) each, likewise.
        """
        z = {name: tokens(inputs[name]) for name, tokens in self.tokens.items()}
        z = {name: self.norm(tokens) for name, tokens in self.encode(z, key).items()}
        cls = {name: tokens[:, 0] for name, tokens in z.items()}
        logits = {name: self.head(token.astype(jnp.float32)) for name, token in cls.items()}
        return {
            "logits": sum(logits.values()) / len(logits),
            "logits_by_modality": logits,
            "cls": cls,
            "tokens": z,
        }

    def encode(self, z: dict[str, jax.Array], key: jax.Array | None = None) -> dict[str, jax.Array]:
        """All layers: tokens by modality, each (B, T_m, D), to the same."""
        if self.config.fuses:
            batch = next(iter(z.values())).shape[0]
            fsn_BFD = jnp.broadcast_to(self.bottlenecks[...], (batch, *self.bottlenecks.shape[1:]))
            fsn_BFD = fsn_BFD.astype(self.config.dtype)
        for layer, blocks in enumerate(self.layers):
            keys = self._keys(key, layer)
            if self.config.fuses and layer >= self.config.fusion_layer:
                z, fsn_BFD = bottleneck_layer(blocks, z, fsn_BFD, keys)
            else:
                z = unimodal_layer(blocks, z, keys)
        return z

    def _keys(self, key: jax.Array | None, layer: int) -> dict[str, jax.Array | None]:
        """One key for each modality of a layer."""
        names = [modality.name for modality in self.config.modalities]
        if key is None:
            return dict.fromkeys(names)
        return dict(zip(names, jax.random.split(jax.random.fold_in(key, layer), len(names)), strict=True))
