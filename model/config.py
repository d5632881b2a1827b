"""What defines a model: its inputs, its size, where and how it fuses."""

import dataclasses
import math
from typing import Literal, get_args

Fusion = Literal["bottleneck", "cross_attention", "self_attention"]
BottleneckUpdate = Literal["mean", "in_turn"]
Pooling = Literal["cls", "gap"]
AttentionName = Literal["auto", "xla", "cudnn"]


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
        if not self.patch or min((*self.shape, *self.patch, self.channels)) < 1:
            raise ValueError(
                f"{self.name}: sides must be 1 or more; got patch {self.patch} of an input {self.shape} "
                f"with {self.channels} channels"
            )
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
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}")
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
      num_classes: outputs of the head, K.
      head_sizes: where the outputs are several heads side by side, their sizes, e.g. (97, 300) for verbs and nouns.
      fusion: strategy of the layers from L_f on (section 3.2).
      fusion_layer: L_f, the first layer (from 0) that fuses; L for late fusion.
      num_bottlenecks: B, bottleneck tokens.
      bottleneck_update: "mean" averages the copies that the modalities updated (Eq. 9); "in_turn" hands the
        bottlenecks from modality to modality, in the order of `modalities`.
      share_before: one set of weights for all modalities in the layers before L_f.
      share_after: likewise from L_f on. Self-attention always shares there.
      pooling: "cls" scores each modality's CLS token and averages the logits; "gap" scores the mean of all patches
        of all modalities, and there are no CLS tokens.
      pre_logits: width of a tanh layer before the head; 0 for none.
      stochastic_depth: probability of dropping a residual branch of the last layer; linear from 0 at the first.
      rescale_kept: divides a residual branch that is kept by the probability of keeping it.
      remat: keeps only the inputs of each layer for the backward pass, and computes the rest again.
      dtype: of activations, "float32" or "bfloat16"; parameters, LayerNorm statistics, softmax and logits are
        always float32.
      attention: implementation of `jax.nn.dot_product_attention`: "xla", "cudnn", or "auto", which takes cuDNN for
        bfloat16 on an NVIDIA GPU and XLA elsewhere.
    """

    modalities: tuple[Modality, ...]
    size: Size
    num_classes: int
    head_sizes: tuple[int, ...] = ()
    fusion: Fusion = "bottleneck"
    fusion_layer: int = 8
    num_bottlenecks: int = 4
    bottleneck_update: BottleneckUpdate = "mean"
    share_before: bool = False
    share_after: bool = False
    pooling: Pooling = "cls"
    pre_logits: int = 0
    stochastic_depth: float = 0.0
    rescale_kept: bool = False
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: AttentionName = "auto"

    def __post_init__(self):
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"modalities must be one or more, with different names; got {list(self.names)}")
        if not 0 <= self.fusion_layer <= self.size.depth:
            raise ValueError(f"fusion_layer must be in 0..{self.size.depth}; got {self.fusion_layer}")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be in [0, 1); got {self.stochastic_depth}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more; got {self.num_classes}")
        if self.head_sizes and (sum(self.head_sizes) != self.num_classes or min(self.head_sizes) < 1):
            raise ValueError(
                f"head_sizes {self.head_sizes} must add up to num_classes, each 1 or more; got {self.num_classes}"
            )
        for name in ("num_bottlenecks", "pre_logits"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")
        self._check_words()
        if self.attention == "cudnn" and self.dtype == "float32":
            raise ValueError("attention cudnn takes no float32; set dtype to bfloat16, or attention to auto")

    def _check_words(self) -> None:
        """Refuses a word that is not one of an attribute's."""
        for field in dataclasses.fields(self):
            words, value = get_args(field.type), getattr(self, field.name)
            if words and isinstance(words[0], str) and value not in words:
                raise ValueError(f"{field.name} must be {' or '.join(words)}; got {value}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the modalities."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def has_bottlenecks(self) -> bool:
        """Whether there are bottleneck tokens."""
        return self.fusion == "bottleneck" and self.num_bottlenecks > 0 and self._fuses_somewhere

    @property
    def _fuses_somewhere(self) -> bool:
        return len(self.modalities) > 1 and self.fusion_layer < self.size.depth

    def fuses(self, layer: int) -> bool:
        """Whether the modalities meet in a layer."""
        meets = self.has_bottlenecks if self.fusion == "bottleneck" else self._fuses_somewhere
        return meets and layer >= self.fusion_layer

    def shares(self, layer: int) -> bool:
        """Whether all modalities use one set of weights in a layer."""
        if layer < self.fusion_layer:
            return self.share_before
        return self.share_after or (self.fusion == "self_attention" and self.fuses(layer))

    def drop_rate(self, layer: int) -> float:
        """Stochastic depth of a layer's residual branches."""
        return self.stochastic_depth * layer / max(1, self.size.depth - 1)
