"""The config of a run: every key with its default, how it is read, checked and completed.

A config file defines `get_config()`, which changes what it needs of `default_config()`; the command line changes
single keys, `--config.optim.learning_rate=0.1`.
"""

import copy
import dataclasses
import difflib
import json
import pathlib
import runpy
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import placeholder

from mbt.model.config import SIZES, MBTConfig, Modality, Size
from mbt.schemas import own_json, paths
from mbt.schemas.clip import FRAME_RATE_HZ, MEL_BINS, MEL_ROWS_PER_SECOND
from mbt.schemas.manifest import Manifest
from mbt.train import old_configs, value_types
from mbt.train.errors import UsageError
from mbt.train.modalities import CHANNELS, PATCH_KEYS, RGB, SPECTROGRAM
from mbt.train.rules import idle, rules, value_of

CONFIGS_FOLDER = pathlib.Path(__file__).parent / "configs"
# Keys that name a place.
PATHS = ("data.root", "init.vit", "init.source")
# Keys of `model` that are attributes of `MBTConfig` as they are.
MODEL_KEYS = tuple(field.name for field in dataclasses.fields(MBTConfig) if field.name not in ("modalities", "size"))
# A run may go on with other values of these: they change where and how fast, never a number.
FREE_KEYS = (
    *("data.root", "data.readers"),
    *("train.mesh.data", "train.mesh.fsdp"),
    *("train.log_every", "train.checkpoint_every", "train.images_every", "train.eval_batch_size"),
    "dataset.amendments",  # what was purged is gone; see preflight
)


def default_config() -> ConfigDict:
    """The paper's values (section 4.2) for AudioSet, without mixup; `data.root` must be given."""
    return ConfigDict(
        {
            "seed": 0,
            "modalities": (RGB, SPECTROGRAM),  # or one of them
            "data": {
                "root": "",  # folder of the dataset: ROOT of `mbt-data build --output=ROOT`
                "snapshot": "latest",  # or a name in ROOT/snapshots
                "train_split": "train",
                "eval_split": "test",  # "" for no evaluation
                "seconds": 8.0,  # t: length of the window
                "frames": 8,  # F: frames taken from the window at equal strides
                "stride": 0.0,  # source frames from one to the next; 0 for 25 t / F, so that they fill the window
                # start: sight and sound begin together; proportion: at the same share of what the clip leaves free;
                # wrapped: Scenic's, the sound begins with the frames and goes on at the clip's beginning where it ends;
                # independent: each where it likes
                "alignment": "start",
                "short": "pad",  # a clip shorter than the window: its last frame and silence, or loop: from its start
                "crop": 224,  # side of a frame as the model sees it, pixels
                "crop_area": (0.35, 1.0),  # training: least and greatest share of the frame in a random crop
                "crop_aspect": (0.75, 4 / 3),  # training: least and greatest width / height of it
                "flip": True,  # training: mirror half of the clips
                "color_jitter": 0.0,  # training: probability of other brightness, contrast, saturation and hue
                "color_drop": 0.0,  # training: probability of grey frames
                "spec_augment": {  # training: stripes of the spectrogram that are masked, and their greatest widths
                    "time_masks": 0,
                    "time_rows": 192,  # 10 ms each
                    "frequency_masks": 0,
                    "frequency_bins": 48,
                },
                "share": 1.0,  # of the training clips; the others are left out, chosen by a hash of their ids
                "sampling": "uniform",  # every clip once an epoch; or class_balanced: drawn with equal share of classes
                "on_bad_record": "replace",  # by another clip of the epoch; or stop
                "eval_crop": 0.875,  # evaluation: side of the centre crop, as a share of the shorter side
                "views": 4,  # evaluation: windows per clip, logits averaged
                "readers": 0,  # clips that are read at a time; 0 for 8 from disks, 64 from gs://
                "mel_mean": placeholder(float),  # of the spectrogram; None: the training split's
                "mel_stddev": placeholder(float),
            },
            "model": {
                "size": "vit_b",  # vit_ti, vit_s, vit_b, vit_l
                "width": 0,  # each of these four overrides `size` where it is not 0
                "depth": 0,
                "heads": 0,
                "mlp_dim": 0,
                "patch": (16, 16),  # of a frame, pixels; (2, 16, 16) makes tubelets of two frames
                "spectrogram_patch": (16, 16),  # rows (10 ms each), mel bins
                "fusion": "bottleneck",  # or cross_attention, self_attention
                "fusion_layer": 8,  # L_f
                "num_bottlenecks": 4,  # B
                "bottleneck_update": "mean",  # of the modalities' copies, or in_turn: from modality to modality
                "share_before": False,  # one set of weights for all modalities before L_f
                "share_after": False,  # likewise from L_f on; self_attention always shares there
                "pooling": "cls",  # or gap: the mean of all patches
                "pre_logits": 0,  # width of a tanh layer before the head; 0 for none
                "stochastic_depth": 0.3,
                "rescale_kept": False,  # divides what stochastic depth keeps by the probability of keeping it
                "remat": False,  # computes layers again in the backward pass, to save memory
                "dtype": "float32",  # or bfloat16
                "attention": "auto",  # cudnn for bfloat16 on NVIDIA, xla elsewhere; or one of these
                "num_classes": placeholder(int),  # None: the labels of the dataset
                "head_sizes": (),  # sizes of several heads, e.g. (97, 300); () for one
            },
            "init": {
                "vit": "",  # .npz of a ViT that every modality starts from; "" for random weights
                "source": "",  # RUN or RUN@STEP: a run that this one starts from
                "state": "weights",  # what is taken of it
            },
            "mixup": {
                "alpha": 0.0,  # of the weight's Beta distribution; 0 for no mixup
                "by_modality": False,  # modality mixup: a weight for each modality, labels mixed likewise
                "group": 8,  # neighbours in the batch among which examples are mixed; a divisor of the batch size
            },
            "loss": {
                "name": "bce",  # bce: any number of labels per clip; ce: exactly one
                "label_smoothing": 0.0,
                "on": "modality",  # each modality's own logits, or mean_logits
            },
            "optim": {
                "name": "sgd",  # or adamw
                "learning_rate": 0.5,  # for a batch of 64; scaled by batch_size / 64
                "warmup": 0.05,  # share of the steps in which the rate rises linearly; then a cosine to 0
                "momentum": 0.9,  # sgd
                "weight_decay": 0.0,  # adamw; on matrices only
                "clip_norm": 1.0,  # greatest norm of the gradient; 0 for none
                "clip": "batch",  # the gradient of a whole batch, or part: of each of `train.accumulate`, then averaged
                "ema": 0.0,  # decay of a moving average of the parameters, which is then what is evaluated; 0 for none
            },
            "train": {
                "batch_size": 64,  # of all devices together
                "accumulate": 1,  # parts of a batch whose gradients are computed one after the other, to save memory
                "mesh": {"data": -1, "fsdp": 1},  # devices along each axis; -1 for what is left
                "epochs": 50.0,
                "steps": 0,  # overrides `epochs` where it is not 0
                "log_every": 50,  # steps
                "eval_every": 0,  # steps; 0 for once, at the end
                "checkpoint_every": 1000,  # steps
                "best": "",  # score whose best checkpoint is kept, such as map; "" for the newest alone
                "images_every": 0,  # steps; 0 for no pictures of batches
                "eval_batch_size": 64,
            },
        }
    )


def load_config(name: str, overrides: list[str]) -> ConfigDict:
    """Reads a config file and applies `--config.key=value` flags.

    Args:
      name: path of a file with `get_config()`, or the name of one in `train/configs`.
      overrides: the flags.

    Raises:
      UsageError: the file cannot be read, or a key or value is wrong.
    """
    path = _find_config(name)
    _check_flags(overrides)
    argv = ["mbt-train", *overrides]
    values = flags.FlagValues()
    try:
        config = _read_file(path)
        _check_keys(config)
        holder = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except UsageError:
        raise
    except Exception as error:  # a config file is code: it can raise anything
        raise UsageError(f"config {name}: {type(error).__name__}: {_one_line(error)}") from error
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; a config key is set with --config.KEY=VALUE")
    _open_paths(holder.value)
    return holder.value


def _open_paths(config: ConfigDict) -> None:
    """Opens the `~` of paths; what is no path at all is for `check`."""
    for key in PATHS:
        value = value_of(config, key)
        if isinstance(value, str) and value:
            try:
                config.update_from_flattened_dict({key: paths.anywhere(value)})
            except paths.PathError as error:
                raise UsageError(f"config.{key}={error}") from error


def config_names() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(path.stem for path in CONFIGS_FOLDER.glob("*.py") if path.stem != "__init__")


def own_name(name: str) -> str:
    """The name of a config that comes with the package, by its name or its path; any other as it is."""
    path = pathlib.Path(name)
    return path.stem if path.suffix == ".py" and path.absolute().parent == CONFIGS_FOLDER.absolute() else name


def check(config: ConfigDict) -> None:
    """Cross-checks the values of a config.

    Raises:
      UsageError: naming the first wrong key.
    """
    check_types(config)
    for key, holds, rule in rules(config):
        if not holds:
            raise UsageError(f"config.{key}={_shown(config, key)}: must be {rule}")


def check_types(config: ConfigDict) -> None:
    """Refuses values of other types than the defaults'.

    Raises:
      UsageError: naming the first wrong key.
    """
    for key, rule in value_types.wrong(_flat(config), _flat(default_config())):
        raise UsageError(f"config.{key}={_shown(config, key)}: must be {rule}")


def check_effects(config: ConfigDict) -> None:
    """Refuses settings that a new run would not heed; one that goes on may have them.

    Raises:
      UsageError: naming the first.
    """
    for key, is_idle, why in idle(config):
        if is_idle:
            raise UsageError(f"config.{key}={_shown(config, key)}: has no effect {why}")


def _shown(config: ConfigDict, key: str) -> str:
    """The value of a key on one line."""
    value = value_of(config, key)
    return " ".join(repr(value.to_dict() if isinstance(value, ConfigDict) else value).split())[:200]


def resolve(config: ConfigDict, manifest: Manifest) -> ConfigDict:
    """Completes a config from a snapshot: its name, class count and spectrogram statistics, frozen for the run."""
    config = ConfigDict(config)
    config.data.snapshot = manifest.snapshot
    split = manifest.splits[config.data.train_split]
    for key in ("mel_mean", "mel_stddev"):
        if config.data[key] is None:
            config.data[key] = getattr(split, key)
    if config.model.num_classes is None:
        config.model.num_classes = len(manifest.labels)
    if not config.train.steps:
        records = split.num_records * config.data.share
        config.train.steps = _steps(config.train.epochs * records / config.train.batch_size)
    return config


def _steps(number: float) -> int:
    """A number of steps as one that a state can count to.

    Raises:
      UsageError: there is none.
    """
    if number > value_types.LARGEST:
        raise UsageError(f"config.train.epochs: makes {number:.3g} steps, and {value_types.LARGEST} are the most")
    return max(1, round(number))


def as_decided(given: ConfigDict, old: ConfigDict) -> ConfigDict:
    """What was asked for now, with the numbers that the data decided when the run began.

    A purge leaves the data with others.
    """
    given = copy.deepcopy(given)
    for key in ("mel_mean", "mel_stddev"):
        if given.data[key] is None:
            given.data[key] = old.data[key]
    given.model.num_classes = old.model.num_classes if given.model.num_classes is None else given.model.num_classes
    given.train.steps = given.train.steps or old.train.steps
    return given


def to_json(config: ConfigDict) -> str:
    """A config as the text of `config.json`."""
    return json.dumps(config.to_dict(), indent=1) + "\n"


def from_json(text: str | bytes) -> ConfigDict:
    """Reads `config.json`.

    Raises:
      ValueError: it is no config, or lacks a key that every version had.
    """
    values = own_json.parse(text)
    if not isinstance(values, dict):
        raise ValueError("it is no config")
    config = ConfigDict(_tuples(old_configs.completed(values)))
    if missing := sorted(_flat(default_config()).keys() - _flat(config).keys()):
        more = f" and {len(missing) - 3} more keys" if len(missing) > 3 else ""
        raise ValueError(f"it lacks {', '.join(missing[:3])}{more}; use the mbt-train that wrote it, or train anew")
    return config


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Keys that make two resolved configs different runs, as "key: old -> new"."""
    before, after = _flat(old), _flat(new)
    keys = [key for key in sorted(before.keys() | after.keys()) if key not in FREE_KEYS]
    if "dataset.name" not in before:  # an older version did not say which it was
        keys = [key for key in keys if not key.startswith("dataset.")]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def frame_stride(config: ConfigDict) -> float:
    """Source frames from one frame of the window to the next."""
    return config.data.stride or config.data.seconds * FRAME_RATE_HZ / config.data.frames


def window_frames(config: ConfigDict) -> int:
    """Length of the window of frames, in source frames."""
    return max(1, round(frame_stride(config) * config.data.frames))


def mel_rows(config: ConfigDict) -> int:
    """Length of the window of sound, in spectrogram rows."""
    return max(1, round(config.data.seconds * MEL_ROWS_PER_SECOND))


def input_shapes(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    """Shape of one example without channels, by modality."""
    frames = (config.data.frames, config.data.crop, config.data.crop)
    shapes = {RGB: frames, SPECTROGRAM: (mel_rows(config), MEL_BINS)}
    return {name: shapes[name] for name in config.modalities}


def model_config(config: ConfigDict) -> MBTConfig:
    """The model that a resolved config describes.

    Raises:
      UsageError: there is no such model.
    """
    model = config.model
    try:
        return MBTConfig(
            modalities=tuple(_modality(config, name) for name in config.modalities),
            size=_size(model),
            **{key: model[key] for key in MODEL_KEYS},
        )
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from error


def _modality(config: ConfigDict, name: str) -> Modality:
    patch = tuple(config.model[PATCH_KEYS[name]])
    return Modality(name=name, shape=input_shapes(config)[name], channels=CHANNELS[name], patch=patch)


def _size(model: ConfigDict) -> Size:
    changes = {field.name: model[field.name] for field in dataclasses.fields(Size) if model[field.name]}
    return dataclasses.replace(SIZES[model.size], **changes)


def _find_config(name: str) -> str:
    if name in config_names():
        return str(CONFIGS_FOLDER / f"{name}.py")
    if not pathlib.Path(name).is_file():
        raise UsageError(f"--config={name}: no such file, nor one of the configs {', '.join(config_names())}")
    return name


def _read_file(path: str) -> ConfigDict:
    """What `get_config()` of a file returns. (config_flags would load the file in a way that Python has deprecated.)"""
    names = runpy.run_path(path)
    if "get_config" not in names:
        raise UsageError(f"{path} does not define get_config()")
    return names["get_config"]()


def _check_flags(overrides: list[str]) -> None:
    """Refuses flags for keys that do not exist, naming the nearest that does."""
    keys = _flat(default_config()).keys()
    for flag in overrides:
        key = flag.partition("=")[0].removeprefix("--config.")
        if flag.startswith("--") and not flag.startswith("--config."):
            raise UsageError(f"unknown argument {flag}; a config key is set with --config.KEY=VALUE")
        if flag.startswith("--") and key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"; did you mean --config.{near[0]}?" if near else "; train/config.py lists all keys"
            raise UsageError(f"--config.{key}: no such key{hint}")


def _check_keys(config: ConfigDict) -> None:
    """Refuses keys that `default_config` lacks, so that a misspelt one is never silently without effect."""
    if not isinstance(config, ConfigDict):
        raise UsageError("get_config() must return an ml_collections.ConfigDict; start from default_config()")
    ours, theirs = _flat(default_config()), _flat(config)
    if unknown := sorted(theirs.keys() - ours.keys()):
        raise UsageError(f"config key {unknown[0]} does not exist; train/config.py lists them all")
    if missing := sorted(ours.keys() - theirs.keys()):
        raise UsageError(f"config key {missing[0]} is missing; start from mbt.train.config.default_config()")


def _flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else {prefix + key: value}
    return flat


def _tuples(value):
    """JSON has no tuples: every list of ours was one."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines) if len(lines) <= 2 else lines[-1]
