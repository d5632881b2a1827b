"""The paper's ablations (sections 4.3 and 4.4): for each, the models that it compares, as changes of one config.

Numbers that depend on the size of the model or of the window follow the config, so that an ablation runs at any size;
with `audioset_mini` they are the paper's.

The paper brings modality mixup in after its ablations (end of 4.3.2), and calls 42.6 mAP the value without it: so all
but that one are with plain mixup. It fixes t = 8 s after Fig. 3, 7 and the number of bottlenecks, which are at 4 s.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from mbt.model.config import SIZES
from mbt.train.errors import UsageError
from mbt.train.modalities import RGB, SPECTROGRAM

AUDIO, VISUAL, FUSED = "audio", "visual", "fused"
SENSES = {AUDIO: {"modalities": SPECTROGRAM}, VISUAL: {"modalities": RGB}, FUSED: {}}
BOTTLENECKS = (4, 36, 64, 256, 1024)
SHARES = (0.04, 0.1, 0.2, 0.5, 1.0)  # of 500,000 clips: 20,000 to all
INITIALISATIONS = ("imagenet1k", "imagenet21k")
DATASETS = ("audioset_mini", "vggsound", "epic_kitchens", "kinetics400", "moments")
Clips = Callable[[], int]  # how many a config has to train on
PLAIN = {"mixup.by_modality": False}
BACKBONES = ("vit_s", "vit_b", "vit_l")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One model of an ablation.

    Attributes:
      line: of the figure.
      x: its place on the line: a number, or a word where the figure has bars.
      changes: values of config keys.
      config: name of the config that is changed, where it is another than the sweep's.
      folder: what the name of its folder has in the place of `x`; "" for that.
    """

    line: str
    x: float | str
    changes: dict[str, Any]
    config: str = ""
    folder: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """A list of models, and what their figure is called.

    Attributes:
      title: what it asks.
      x_label: of the figure.
      finding: what the paper says of it; "" for what is not the paper's.
      points: the models, from a config and the number of its training clips.
      config: name of the config that is changed, where none is given.
      log_x: base of a logarithmic axis; 0 for a plain one.
      costs: whether the figure has the models' operations beside their scores.
    """

    title: str
    x_label: str
    finding: str
    points: Callable[[ConfigDict, Clips], Iterator[Point]]
    config: str = "audioset_mini"
    log_x: int = 0
    costs: bool = False


def _fusion_layer(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del clips
    for fusion in ("bottleneck", "cross_attention"):
        for layer in _layers(config):
            changes = {"model.fusion": fusion, "model.fusion_layer": layer}
            yield Point(line=fusion, x=layer, changes=changes | _early(config))


def _bottlenecks(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del clips
    for number in BOTTLENECKS:
        changes = {"model.fusion": "bottleneck", "model.num_bottlenecks": number}
        yield Point(line=FUSED, x=number, changes=changes | _early(config))


def _span(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del clips
    for line, changes in SENSES.items():
        for seconds in _spans(config):
            yield Point(line=line, x=seconds, changes=changes | {"data.seconds": seconds} | PLAIN)


def _data(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    """Their folders have the name of the share: after a purge its number of clips is another."""
    del config
    for line, changes in SENSES.items():
        for share in SHARES:
            number = max(1, round(clips() * share))
            yield Point(line=line, x=number, changes=changes | {"data.share": share} | PLAIN, folder=f"{share:g}")


def _sharing(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    """One set of weights in all layers, as in the reference; else the lines would meet in one model at the last L_f."""
    del clips
    shared = {"model.fusion": "self_attention", "model.share_before": True}
    separate = {"model.fusion": "cross_attention", "model.share_before": False}
    for line, changes in (("shared weights", shared), ("separate weights", separate)):
        for layer in _layers(config):
            yield Point(line=line, x=layer, changes=changes | {"model.fusion_layer": layer} | _early(config))


def _async(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del clips
    for line, alignment in (("synchronous", "start"), ("asynchronous", "independent")):
        for seconds in _spans(config):
            changes = {"data.alignment": alignment, "data.seconds": seconds}
            yield Point(line=line, x=seconds, changes=changes | PLAIN)


def _mixup(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del clips
    alpha = config.mixup.alpha or 0.3
    for word, by_modality in (("mixup", False), ("modality mixup", True)):
        yield Point(line=FUSED, x=word, changes={"mixup.alpha": alpha, "mixup.by_modality": by_modality})


def _backbone(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    """Fused in the last third of the layers, as ViT-B is at L_f = 8."""
    del clips
    own = dict.fromkeys(("model.width", "model.depth", "model.heads", "model.mlp_dim"), 0)
    for size in BACKBONES:
        changes = {"model.size": size, "model.fusion_layer": SIZES[size].depth * 2 // 3} | own | PLAIN
        yield Point(line=FUSED, x=size, changes=changes | {"init.vit": config.init.vit.replace("{size}", size)})


def _initialisation(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del clips
    if "{weights}" not in config.init.vit:
        names = " and ".join(INITIALISATIONS)
        raise UsageError(
            f"config.init.vit={config.init.vit!r}: must name the weights that are compared, as DIR/{{weights}}.npz, "
            f"which stands for {names}"
        )
    yield Point(line=FUSED, x="none", changes={"init.vit": ""} | PLAIN)
    for word in INITIALISATIONS:
        yield Point(line=FUSED, x=word, changes={"init.vit": config.init.vit.replace("{weights}", word)} | PLAIN)


def _update(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    del config, clips
    for word, update in (("mean", "mean"), ("in turn", "in_turn")):
        changes = {"model.fusion": "bottleneck", "model.bottleneck_update": update}
        yield Point(line=FUSED, x=word, changes=changes | PLAIN)


def _datasets(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    """Fused in the last third of the layers, and in none of them."""
    del clips
    if "{config}" not in config.data.root:
        raise UsageError(
            f"config.data.root={config.data.root}: must name the folders of several datasets, as DIR/{{config}}, which "
            f"stands for {', '.join(DATASETS)}"
        )
    depth = config.model.depth or SIZES[config.model.size].depth
    for line, layer in (("mid fusion", depth * 2 // 3), ("late fusion", depth)):
        for name in DATASETS:
            changes = {"model.fusion_layer": layer, "data.root": config.data.root.replace("{config}", name)}
            yield Point(line=line, x=name, changes=changes | PLAIN, config=name)


def _digits(config: ConfigDict, clips: Clips) -> Iterator[Point]:
    """Each sense on ten digits and on sixteen pairs, and both on those; beside them square patches of spectrograms."""
    del clips
    if "{task}" not in config.data.root:
        raise UsageError(
            f"config.data.root={config.data.root}: must name the datasets of both tasks, as DIR/{{task}}/dataset, "
            "which stands for ten and sixteen; demo/make_digits.py makes them"
        )
    square = {"model.spectrogram_patch": (16, 16)}
    lines: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        AUDIO: (SENSES[AUDIO], ("ten", "sixteen")),
        VISUAL: (SENSES[VISUAL], ("ten", "sixteen")),
        FUSED: (SENSES[FUSED], ("sixteen",)),
        "audio square patches": (SENSES[AUDIO] | square, ("ten",)),
        "fused square patches": (square, ("sixteen",)),
    }
    for line, (changes, tasks) in lines.items():
        for task in tasks:
            yield Point(line=line, x=task, changes=changes | {"data.root": config.data.root.replace("{task}", task)})


def _early(config: ConfigDict) -> dict[str, Any]:
    """What the paper's first ablations have otherwise than its final protocol: half of the window, t = 4 s."""
    return {"data.seconds": config.data.seconds / 2} | PLAIN


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
        log_x=2,
    ),
    "fig4_span": Ablation(
        title="How long a window (Fig. 4)",
        x_label="window t, s",
        finding="audio and fused gain with t, visual loses slightly",
        points=_span,
    ),
    "fig5_data": Ablation(
        title="How many clips (Fig. 5)",
        x_label="training clips",
        finding="all gain with the number of clips, audio more than visual",
        points=_data,
        config="audioset_500k",
        log_x=10,
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
    "initialisation": Ablation(
        title="Weights that the transformer starts from",
        x_label="",
        finding="unknown; the paper starts from ImageNet-21K",
        points=_initialisation,
    ),
    "update": Ablation(
        title="Bottlenecks updated by all modalities, or by one after the other",
        x_label="",
        finding="robust to the choice",
        points=_update,
    ),
    "digits": Ablation(
        title="Written and spoken digits, from nothing",
        x_label="",
        finding="",
        points=_digits,
        config="digits",
    ),
    "datasets": Ablation(
        title="Mid fusion and late fusion on several datasets",
        x_label="",
        finding="unknown; the numbers are in an appendix",
        points=_datasets,
    ),
}
