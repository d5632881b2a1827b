"""The paper's ablations (sections 4.3 and 4.4): for each, the models that it compares, as changes of one config.

Numbers that depend on the size of the model or of the window follow the config, so that an ablation runs at any size;
with `audioset_mini` they are the paper's.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from mbt.model.config import SIZES
from mbt.train.modalities import RGB, SPECTROGRAM

AUDIO, VISUAL, FUSED = "audio", "visual", "fused"
SENSES = {AUDIO: {"modalities": SPECTROGRAM}, VISUAL: {"modalities": RGB}, FUSED: {}}
BOTTLENECKS = (4, 36, 64, 256, 1024)
SHARES = (0.25, 0.5, 0.75, 1.0)
BACKBONES = ("vit_s", "vit_b", "vit_l")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One model of an ablation.

    Attributes:
      line: of the figure.
      x: its place on the line: a number, or a word where the figure has bars.
      changes: values of config keys.
    """

    line: str
    x: float | str
    changes: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """A list of models, and what their figure is called.

    Attributes:
      title: what it asks.
      x_label: of the figure.
      finding: what the paper says of it.
      points: the models, from a config.
      log_x: whether the axis is logarithmic.
      costs: whether the figure has the models' operations beside their scores.
    """

    title: str
    x_label: str
    finding: str
    points: Callable[[ConfigDict], Iterator[Point]]
    log_x: bool = False
    costs: bool = False


def _fusion_layer(config: ConfigDict) -> Iterator[Point]:
    """At half of the window: t = 4 s, where the final protocol has 8."""
    seconds = config.data.seconds / 2
    for fusion in ("bottleneck", "cross_attention"):
        for layer in _layers(config):
            changes = {"model.fusion": fusion, "model.fusion_layer": layer, "data.seconds": seconds}
            yield Point(line=fusion, x=layer, changes=changes)


def _bottlenecks(config: ConfigDict) -> Iterator[Point]:
    del config
    for number in BOTTLENECKS:
        yield Point(line=FUSED, x=number, changes={"model.fusion": "bottleneck", "model.num_bottlenecks": number})


def _span(config: ConfigDict) -> Iterator[Point]:
    for line, changes in SENSES.items():
        for seconds in _spans(config):
            yield Point(line=line, x=seconds, changes=changes | {"data.seconds": seconds})


def _data(config: ConfigDict) -> Iterator[Point]:
    del config
    for line, changes in SENSES.items():
        for share in SHARES:
            yield Point(line=line, x=share, changes=changes | {"data.share": share})


def _sharing(config: ConfigDict) -> Iterator[Point]:
    for line, fusion in (("shared weights", "self_attention"), ("separate weights", "cross_attention")):
        for layer in _layers(config):
            yield Point(line=line, x=layer, changes={"model.fusion": fusion, "model.fusion_layer": layer})


def _async(config: ConfigDict) -> Iterator[Point]:
    for line, alignment in (("synchronous", "start"), ("asynchronous", "independent")):
        for seconds in _spans(config):
            yield Point(line=line, x=seconds, changes={"data.alignment": alignment, "data.seconds": seconds})


def _mixup(config: ConfigDict) -> Iterator[Point]:
    alpha = config.mixup.alpha or 0.3
    for word, by_modality in (("mixup", False), ("modality mixup", True)):
        yield Point(line=FUSED, x=word, changes={"mixup.alpha": alpha, "mixup.by_modality": by_modality})


def _backbone(config: ConfigDict) -> Iterator[Point]:
    """Fused in the last third of the layers, as ViT-B is at L_f = 8."""
    own = dict.fromkeys(("model.width", "model.depth", "model.heads", "model.mlp_dim"), 0)
    for size in BACKBONES:
        changes = {"model.size": size, "model.fusion_layer": SIZES[size].depth * 2 // 3} | own
        yield Point(line=FUSED, x=size, changes=changes | {"init.vit": config.init.vit.replace("{size}", size)})


def _layers(config: ConfigDict) -> range:
    return range(0, (config.model.depth or SIZES[config.model.size].depth) + 1, 2)


def _spans(config: ConfigDict) -> list[float]:
    """A quarter of the window to the whole of it: 2, 4, 6 and 8 s."""
    return [config.data.seconds * part / 4 for part in range(1, 5)]


ABLATIONS = {
    "fig3_fusion_layer": Ablation(
        title="Where to fuse, and at what cost (Fig. 3)",
        x_label="fusion layer",
        finding="best at L_f = 8 for bottlenecks, 10 for cross-attention; at 0 bottlenecks are more than 2 mAP ahead",
        points=_fusion_layer,
        costs=True,
    ),
    "bottlenecks": Ablation(
        title="How many bottleneck tokens",
        x_label="bottleneck tokens B",
        finding="all within 0.5 mAP",
        points=_bottlenecks,
        log_x=True,
    ),
    "fig4_span": Ablation(
        title="How long a window (Fig. 4)",
        x_label="window t, s",
        finding="audio and fused gain with t, visual loses slightly",
        points=_span,
    ),
    "fig5_data": Ablation(
        title="How many clips (Fig. 5)",
        x_label="share of the training clips",
        finding="all gain with the number of clips, audio more than visual",
        points=_data,
    ),
    "fig7_sharing": Ablation(
        title="One set of weights for both modalities, or two (Fig. 7)",
        x_label="fusion layer",
        finding="separate weights are better where fusion is early; alike where it is late",
        points=_sharing,
    ),
    "fig8_async": Ablation(
        title="Windows that begin together, or anywhere (Fig. 8)",
        x_label="window t, s",
        finding="largely the same",
        points=_async,
    ),
    "modality_mixup": Ablation(
        title="One mixup weight, or one for each modality",
        x_label="",
        finding="42.6 mAP with mixup, 43.9 with modality mixup, on AudioSet-mini",
        points=_mixup,
    ),
    "backbone": Ablation(
        title="Size of the transformer",
        x_label="",
        finding="unknown; the paper says that the method does not depend on the backbone",
        points=_backbone,
    ),
}
