"""What defines a model: its inputs, its size, where and how it fuses."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modality:
    """One input of the model.

    Attributes:
      name: of the input, e.g. "rgb".
      shape: of one example without channels, e.g. (frames, height, width) or (rows, mel bins).
      channels: values per position.
      patch: sides of a patch along the last axes of `shape`; axes before have side 1. So (16, 16) on
        (frames, height, width) cuts each frame on its own and (2, 16, 16) makes tubelets.
    """

    name: str
    shape: tuple[int, ...]
    channels: int
    patch: tuple[int, ...]

    def __post_init__(self):
        if len(self.patch) > len(self.shape):
            raise ValueError(f"{self.name}: patch {self.patch} has more axes than the input {self.shape}")
        if not all(self.grid):
            raise ValueError(f"{self.name}: the input {self.shape} is smaller than a patch {self.patch}")

    @property
    def patch_sides(self) -> tuple[int, ...]:
        """A side for every axis of `shape`."""
        return (1,) * (len(self.shape) - len(self.patch)) + self.patch

    @property
    def grid(self) -> tuple[int, ...]:
        """Whole patches along each axis; what does not fill a patch is dropped."""
        return tuple(size // side for size, side in zip(self.shape, self.patch_sides, strict=True))

    @property
    def num_patches(self) -> int:
        """N, patches of the whole input."""
        return math.prod(self.grid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the transformer.

    Attributes:
      width: of a token, D.
      depth: number of layers, L.
      heads: attention heads in a layer.
      mlp_dim: hidden width of the MLP.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")


SIZES = {
    "vit_ti": Size(width=192, depth=12, heads=3, mlp_dim=768),
    "vit_s": Size(width=384, depth=12, heads=6, mlp_dim=1536),
    "vit_b": Size(width=768, depth=12, heads=12, mlp_dim=3072),
    "vit_l": Size(width=1024, depth=24, heads=16, mlp_dim=4096),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MBTConfig:
    """The Multimodal Bottleneck Transformer.

    Attributes:
      modalities: one or more inputs; with one, the model is a plain ViT on it.
      size: of the transformer; `SIZES` has the published ones by name.
      num_classes: outputs of the head.
      fusion_layer: L_f, the first layer (from 0) that exchanges; L for late fusion.
      num_bottlenecks: B, bottleneck tokens.
      stochastic_depth: probability of dropping a residual branch of the last layer; linear from 0 at the first.
      dtype: of activations, "float32" or "bfloat16"; parameters, LayerNorm statistics, softmax and logits are
        always float32.
      attention: implementation of `jax.nn.dot_product_attention`: "xla" or "cudnn".
    """

    modalities: tuple[Modality, ...]
    size: Size
    num_classes: int
    fusion_layer: int = 8
    num_bottlenecks: int = 4
    stochastic_depth: float = 0.0
    dtype: str = "float32"
    attention: Literal["xla", "cudnn"] = "xla"

    def __post_init__(self):
        names = [modality.name for modality in self.modalities]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"modalities must be one or more, with different names; got {names}")
        if not 0 <= self.fusion_layer <= self.size.depth:
            raise ValueError(f"fusion_layer must be in 0..{self.size.depth}; got {self.fusion_layer}")
        if self.num_bottlenecks < 0:
            raise ValueError(f"num_bottlenecks must be 0 or more; got {self.num_bottlenecks}")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be in [0, 1); got {self.stochastic_depth}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16; got {self.dtype}")
        if self.attention not in ("xla", "cudnn"):
            raise ValueError(f"attention must be xla or cudnn; got {self.attention}")

    @property
    def fuses(self) -> bool:
        """Whether any layer exchanges."""
        return len(self.modalities) > 1 and self.num_bottlenecks > 0 and self.fusion_layer < self.size.depth

    def drop_rate(self, layer: int) -> float:
        """Stochastic depth of a layer's residual branches."""
        return self.stochastic_depth * layer / max(1, self.size.depth - 1)
