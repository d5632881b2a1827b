"""What the values of a config must be."""

import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from mbt.model.config import SIZES
from mbt.train.modalities import RGB, SPECTROGRAM

ALIGNMENTS = ("start", "proportion", "wrapped", "independent")
DIVISOR = "a divisor of config.train.batch_size"
# JAX would take only the lower half of a longer seed, so that two seeds gave one run.
SEEDS = 2**32
# Beyond these no machine has the memory, and the shapes alone would take hours.
MOST: dict[str, float] = {
    **{"data.seconds": 300, "data.frames": 7500, "data.stride": 7500, "data.crop": 4096, "data.views": 4096},
    **{"data.readers": 4096, "data.crop_aspect": 1000},
    **{"data.spec_augment.time_masks": 1000, "data.spec_augment.frequency_masks": 1000},
    **{"model.width": 1 << 16, "model.depth": 1000, "model.heads": 1 << 16, "model.mlp_dim": 1 << 18},
    **{"model.patch": 4096, "model.spectrogram_patch": 1 << 15, "model.num_bottlenecks": 1 << 16},
    **{"model.pre_logits": 1 << 16, "model.num_classes": 1 << 20, "model.head_sizes": 1 << 20},
    **{"train.batch_size": 1 << 20, "train.eval_batch_size": 1 << 20, "mixup.alpha": 1e6, "optim.clip_norm": 1e30},
    **{"optim.learning_rate": 1e30, "optim.weight_decay": 1e30},
}


def rules(config: ConfigDict) -> Iterator[tuple[str, object, str]]:
    """Every rule: a key, whether it holds, what its value must be."""
    data, train, optim, mixup = config.data, config.train, config.optim, config.mixup
    names = tuple(config.modalities)
    known = len(set(names)) == len(names) and set(names) <= {RGB, SPECTROGRAM}
    yield "seed", 0 <= config.seed < SEEDS, f"from 0 to {SEEDS - 1}"
    yield "modalities", names and known, f"{RGB}, {SPECTROGRAM} or ('{RGB}', '{SPECTROGRAM}')"
    yield "data.root", data.root, "the folder of a dataset, as in --config.data.root=ROOT"
    yield "model.size", config.model.size in SIZES, f"one of {', '.join(SIZES)}"
    yield "loss.name", config.loss.name in ("bce", "ce"), "bce or ce"
    yield "loss.on", config.loss.on in ("modality", "mean_logits"), "modality or mean_logits"
    yield "loss.label_smoothing", 0 <= config.loss.label_smoothing < 1, "in [0, 1)"
    yield "mixup.alpha", 0 <= mixup.alpha < math.inf, "0 or more"
    own = config.model.pooling == "cls" and config.loss.on == "modality"
    one = "False with model.pooling=gap and with loss.on=mean_logits, which leave no logits of each modality"
    yield "mixup.by_modality", not mixup.by_modality or own, one
    divides = mixup.group > 0 and (train.batch_size // max(1, train.accumulate)) % mixup.group == 0
    yield "mixup.group", mixup.alpha == 0 or divides, "a divisor of config.train.batch_size / accumulate"
    yield "init.state", config.init.state == "weights", "weights"
    yield "init.source", not (config.init.source and config.init.vit), "empty where config.init.vit is given"
    yield "optim.clip", optim.clip in ("batch", "part"), "batch or part"
    yield "optim.name", optim.name in ("sgd", "adamw"), "sgd or adamw"
    yield "optim.learning_rate", 0 <= optim.learning_rate < math.inf, "0 or more"
    yield "optim.momentum", 0 <= optim.momentum < 1, "in [0, 1)"
    yield "optim.weight_decay", 0 <= optim.weight_decay < math.inf, "0 or more"
    yield "optim.warmup", 0 <= optim.warmup <= 1, "in [0, 1]"
    yield "data.seconds", 0 < data.seconds < math.inf, "positive"
    mean, stddev = data.mel_mean, data.mel_stddev
    yield "data.mel_mean", mean is None or math.isfinite(mean), "finite, or unset for the training split's"
    yield "data.mel_stddev", stddev is None or 0 < stddev < math.inf, "positive, or unset for the training split's"
    yield "data.crop_area", _interval(data.crop_area, 1), "(least, greatest), with 0 < least <= greatest <= 1"
    yield "data.crop_aspect", _interval(data.crop_aspect, math.inf), "(least, greatest), with 0 < least <= greatest"
    yield "data.alignment", data.alignment in ALIGNMENTS, f"one of {', '.join(ALIGNMENTS)}"
    yield "data.short", data.short in ("pad", "loop"), "pad or loop"
    yield "data.share", 0 < data.share <= 1, "in (0, 1]"
    yield "data.sampling", data.sampling in ("uniform", "class_balanced"), "uniform or class_balanced"
    yield "data.on_bad_record", data.on_bad_record in ("replace", "stop"), "replace or stop"
    yield "optim.ema", 0 <= optim.ema < 1, "in [0, 1)"
    yield "train.accumulate", train.accumulate > 0 and train.batch_size % train.accumulate == 0, DIVISOR
    yield "train.mesh", all(size > 0 or size == -1 for size in train.mesh.values()), "positive sizes, or -1 for one"
    yield "data.eval_crop", 0 < data.eval_crop <= 1, "in (0, 1]"
    yield "train.epochs", train.steps or train.epochs > 0, "positive, or train.steps given"
    for key in ("data.frames", "data.crop", "data.views"):
        yield key, value_of(config, key) > 0, "positive"
    for key in ("model.patch", "model.spectrogram_patch", "model.head_sizes"):
        yield key, all(size > 0 for size in value_of(config, key)), "of positive numbers"
    yield "model.num_classes", config.model.num_classes is None or config.model.num_classes > 0, "positive, or None"
    for key, most in MOST.items():
        yield key, _largest(value_of(config, key)) <= most, f"at most {most:g}"
    yield "data.readers", data.readers >= 0, "0 or more"
    for key in ("train.batch_size", "train.eval_batch_size", "train.log_every", "train.checkpoint_every"):
        yield key, value_of(config, key) > 0, "positive"
    for key in ("data.color_jitter", "data.color_drop"):
        yield key, 0 <= value_of(config, key) <= 1, "in [0, 1]"
    for key in data.spec_augment:
        yield f"data.spec_augment.{key}", data.spec_augment[key] >= 0, "0 or more"
    for key in ("data.stride", "train.images_every", "train.steps", "train.eval_every", "optim.clip_norm"):
        yield key, value_of(config, key) >= 0, "0 or more"


def idle(config: ConfigDict) -> Iterator[tuple[str, bool, str]]:
    """Settings that may change nothing: a key, whether it does not, why."""
    optim, mixup = config.optim, config.mixup
    yield (
        "optim.weight_decay",
        optim.weight_decay > 0 and optim.name == "sgd",
        "with config.optim.name=sgd: set it to 0, or take adamw",
    )
    whole = "with config.train.accumulate=1, where the batch is the one part"
    yield "optim.clip", optim.clip == "part" and config.train.accumulate == 1, whole
    alone = "on a row that is alone in its group: take 2 or more, which must divide batch_size / accumulate"
    yield "mixup.group", mixup.alpha > 0 and mixup.group == 1, alone


def _largest(value) -> float:
    return max(value, default=0) if isinstance(value, tuple | list) else value or 0


def _interval(pair, most: float) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= most


def value_of(config: ConfigDict, key: str):
    """The value of a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
