"""The protocols by name: that each is whole, and that its numbers are the paper's."""

import runpy

import jax.numpy as jnp
import pytest

from mbt.schemas.manifest import Manifest, Split
from mbt.train import config as config_lib
from mbt.train.errors import UsageError
from mbt.train.optim import make_schedule

pytestmark = pytest.mark.quick

# Clips for training and classes: the paper's where it has them (section 4.1), else those of the official lists.
SIZES = {
    "audioset_mini": (20_361, 527),
    "audioset_500k": (500_000, 527),
    "vggsound": (172_427, 309),
    "epic_kitchens": (67_217, 397),
    "kinetics400": (246_534, 400),
    "moments": (802_264, 339),
    "scenic_audioset_mini": (20_361, 527),
    "audioset_mini_gpu": (20_361, 527),
    "audioset_500k_tpu_pod": (500_000, 527),
    "demo": (320, 16),
    "digits": (4_000, 16),
}
PAPERS = [name for name in SIZES if name not in ("demo", "digits", "scenic_audioset_mini")]
# The splits that `mbt-data --dataset=NAME` makes, as docs/datasets.md lists them.
SPLITS = {
    "audioset_mini": ("balanced_train", "eval"),
    "scenic_audioset_mini": ("balanced_train", "eval"),
    "audioset_500k": ("train", "eval"),
    "vggsound": ("train", "test"),
    "epic_kitchens": ("train", "validation"),
    "kinetics400": ("train", "val"),
    "moments": ("train", "validation"),
}


def manifest(config, clips: int, classes: int) -> Manifest:
    """A snapshot of a dataset's size, as far as a config is completed from it."""
    split = Split(shards=(), num_clips=clips, num_records=clips, lost={}, mel_mean=-5.0, mel_stddev=2.0)
    return Manifest(
        dataset=config.data.train_split,
        snapshot="first",
        parent=None,
        created="2026-01-01T00:00:00Z",
        labels=tuple(f"class {number}" for number in range(classes)),
        splits={config.data.train_split: split, config.data.eval_split: split},
        annotations_sha256="",
        tool_versions={},
    )


def resolved(name: str, *flags: str):
    config = config_lib.load_config(name, ["--config.data.root=somewhere", *flags])
    return config_lib.resolve(config, manifest(config, *SIZES[name]))


def num_patches(config) -> dict[str, int]:
    return {modality.name: modality.num_patches for modality in config_lib.model_config(config).modalities}


def test_every_config_is_in_this_table():
    assert sorted(SIZES) == config_lib.config_names()


@pytest.mark.parametrize("name", SIZES)
def test_every_config_by_name_is_whole(name):
    config = resolved(name)
    config_lib.check(config)
    assert config_lib.model_config(config).num_classes == SIZES[name][1]
    assert config_lib.differences(config, config_lib.from_json(config_lib.to_json(config))) == []


@pytest.mark.parametrize("name", SIZES)
def test_every_docstring_has_the_command_the_time_and_the_result(name):
    path = config_lib.CONFIGS_FOLDER / f"{name}.py"
    text = " ".join(runpy.run_path(str(path))["__doc__"].split())
    assert f"mbt-train train --config={name} --workdir=DIR" in text
    assert "Expected time" in text
    assert "Expected result" in text


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_training(name):
    """Section 4.2, and what the reference adds: the clip of the gradient, the rate scaled with the batch."""
    config = resolved(name)
    optim, model, masks = config.optim, config.model, config.data.spec_augment
    assert (optim.name, optim.momentum, optim.learning_rate, optim.clip_norm) == ("sgd", 0.9, 0.5, 1.0)
    assert config.train.epochs == 50
    assert optim.warmup * config.train.epochs == 2.5
    assert (model.size, model.fusion, model.fusion_layer, model.num_bottlenecks) == ("vit_b", "bottleneck", 8, 4)
    assert (model.pooling, model.stochastic_depth, config.loss.on) == ("cls", 0.3, "modality")
    assert (config.mixup.alpha, config.mixup.by_modality) == (0.3, True)
    assert (masks.time_masks, masks.time_rows, masks.frequency_masks, masks.frequency_bins) == (1, 192, 1, 48)
    assert config.data.flip and config.data.color_jitter > 0 and config.data.crop_area[0] < 1
    assert config.loss.name == ("bce" if "audioset" in name else "ce")


@pytest.mark.parametrize("name", PAPERS)
def test_the_rate_is_for_a_batch_of_64(name):
    config = resolved(name)
    peak = make_schedule(config)(jnp.float32(config.optim.warmup * config.train.steps))
    assert peak == pytest.approx(0.5 * config.train.batch_size / 64)
    assert config.train.batch_size == (256 if name.endswith("tpu_pod") else 64)


@pytest.mark.parametrize(("name", "splits"), SPLITS.items())
def test_splits_are_those_that_mbt_data_makes(name, splits):
    data = resolved(name).data
    assert (data.train_split, data.eval_split) == splits


@pytest.mark.parametrize(
    ("name", "seconds", "frames", "views", "patches"),
    [
        ("audioset_mini", 8, 8, 4, {"rgb": 1568, "spectrogram": 400}),
        ("audioset_500k", 8, 8, 4, {"rgb": 1568, "spectrogram": 400}),
        ("vggsound", 8, 8, 4, {"rgb": 1568, "spectrogram": 400}),
        ("kinetics400", 8, 8, 4, {"rgb": 1568, "spectrogram": 400}),
        ("epic_kitchens", 8, 32, 4, {"rgb": 6272, "spectrogram": 400}),
        ("moments", 3, 8, 1, {"rgb": 1568, "spectrogram": 144}),
        ("scenic_audioset_mini", 8, 32, 4, {"rgb": 3136, "spectrogram": 400}),
    ],
)
def test_inputs_in_patches(name, seconds, frames, views, patches):
    config = resolved(name)
    assert (config.data.seconds, config.data.frames, config.data.views) == (seconds, frames, views)
    assert num_patches(config) == patches


@pytest.mark.parametrize(
    ("seconds", "stride", "patches"), [(2, 6.25, 96), (4, 12.5, 200), (6, 18.75, 296), (8, 25, 400)]
)
def test_other_spans_change_the_stride_and_the_sound_alone(seconds, stride, patches):
    config = resolved("audioset_mini", f"--config.data.seconds={seconds}")
    assert config_lib.frame_stride(config) == stride
    assert num_patches(config) == {"rgb": 1568, "spectrogram": patches}


def test_epic_kitchens_has_neighbouring_frames_and_two_heads():
    config = resolved("epic_kitchens")
    assert config_lib.frame_stride(config) == 1
    assert config_lib.model_config(config).head_sizes == (97, 300)


def test_what_scenic_released():
    config = resolved("scenic_audioset_mini")
    masks = config.data.spec_augment
    assert (config_lib.frame_stride(config), config.model.patch, config.model.pooling) == (2, (2, 16, 16), "gap")
    assert (config.mixup.alpha, config.mixup.by_modality, config.loss.label_smoothing) == (0.5, False, 0.3)
    assert (masks.time_masks, masks.frequency_masks, masks.frequency_bins) == (0, 1, 48)
    assert (config.optim.clip_norm, config.optim.clip, config.data.alignment) == (1, "part", "wrapped")
    assert config.train.batch_size / config.train.accumulate == config.mixup.group == 2  # rows of a device there
    given = config_lib.load_config("scenic_audioset_mini", ["--config.data.root=x"])
    assert given.data.mel_mean is None and given.data.mel_stddev is None  # the dataset's own


def test_gap_with_modality_mixup_is_refused():
    with pytest.raises(UsageError, match=r"config\.mixup\.by_modality=True: must be False"):
        config_lib.check(resolved("scenic_audioset_mini", "--config.mixup.by_modality=true"))


def test_meshes():
    gpu, pod = resolved("audioset_mini_gpu"), resolved("audioset_500k_tpu_pod")
    assert (gpu.train.mesh.to_dict(), gpu.model.dtype) == ({"data": 8, "fsdp": 1}, "bfloat16")
    assert (pod.train.mesh.to_dict(), pod.model.dtype) == ({"data": 8, "fsdp": 4}, "bfloat16")


def test_epochs_are_of_the_share_that_is_trained_on():
    whole, half = resolved("audioset_mini"), resolved("audioset_mini", "--config.data.share=0.5")
    assert whole.train.steps == round(50 * 20_361 / 64)
    assert half.train.steps == round(50 * 20_361 / 2 / 64)
