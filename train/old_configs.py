"""The `config.json` of older versions: what a key meant before there was one."""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# Key to the value by which a run goes on as the version did that had no such key. A key that is added to
# `default_config` gets its line here; what it is for new runs is another matter.
BEFORE: dict[str, Any] = {
    "data.alignment": "start",
    "data.color_drop": 0.0,
    "data.color_jitter": 0.0,
    "data.on_bad_record": "stop",
    "data.sampling": "uniform",
    "data.share": 1.0,
    "data.short": "pad",
    "data.spec_augment.frequency_bins": 48,
    "data.spec_augment.frequency_masks": 0,
    "data.spec_augment.time_masks": 0,
    "data.spec_augment.time_rows": 192,
    "data.stride": 0.0,
    "init.source": "",
    "init.state": "weights",
    "init.vit": "",
    "mixup.alpha": 0.0,
    "mixup.by_modality": False,
    "mixup.group": 8,
    "model.bottleneck_update": "mean",
    "model.fusion": "bottleneck",
    "model.head_sizes": (),
    "model.pooling": "cls",
    "model.pre_logits": 0,
    "model.remat": False,
    "model.rescale_kept": False,
    "model.share_after": False,
    "model.share_before": False,
    "optim.clip": "batch",
    "optim.ema": 0.0,
    "train.accumulate": 1,
    "train.best": "",
    "train.images_every": 0,
    "train.mesh.data": -1,
    "train.mesh.fsdp": 1,
}


# Config of this package to keys of which it has another value now, and the value that it had: a run that it began goes
# on with that.
CHANGED: dict[str, dict[str, Any]] = {
    "epic_kitchens": {"data.alignment": "proportion", "data.short": "pad"},
    "scenic_audioset_mini": {
        "data.alignment": "proportion",
        "data.mel_mean": 1.102,
        "data.mel_stddev": 2.762,
        "data.short": "pad",
        "data.spec_augment.time_masks": 4,
        "data.spec_augment.time_rows": 48,
        "mixup.group": 8,
        "optim.clip": "batch",
        "train.accumulate": 1,
    },
}


def resumed(
    given: ConfigDict, old: ConfigDict, usual: ConfigDict, before: Mapping[str, Any] = BEFORE
) -> tuple[ConfigDict, list[str]]:
    """The config that a run goes on with, and the keys of which it keeps the value of an older version.

    Args:
      given: what was asked for now.
      old: the run's config.
      usual: that of new runs, which is what `given` has where nobody asked for anything.
      before: the values of the older version.
    """
    given = copy.deepcopy(given)
    then, now, new = (config.to_dict() for config in (old, given, usual))
    kept = []
    for key, value in before.items():
        if _value(then, key) == value != _value(now, key) == _value(new, key):
            given.update_from_flattened_dict({key: value})
            kept.append(key)
    return given, kept


def _value(values: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a `config.json` with those of the keys that its version did not have."""
    whole = copy.deepcopy(values)
    for key, value in BEFORE.items():
        *groups, name = key.split(".")
        group = whole
        for each in groups:
            group = group.setdefault(each, {}) if isinstance(group, dict) else None
        if isinstance(group, dict):  # else it is no config, which its reader finds out
            group.setdefault(name, value)
    return whole
