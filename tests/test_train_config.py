"""Configs: read, checked, completed, kept."""

import json

import pytest
from train_runs import write_dataset

from mbt.train import config as config_lib
from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError
from mbt.train.snapshot import load_manifest

pytestmark = pytest.mark.quick

GOOD = """
from mbt.train.config import default_config
def get_config():
    config = default_config()
    config.seed = 7
    return config
"""


def rooted(**changes):
    config = config_lib.default_config()
    config.data.root = "somewhere"
    config.update(changes)
    return config


def test_a_file_and_flags(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    flags = ["--config.optim.learning_rate=2", "--config.data.flip=false", "--config.train.steps", "3"]
    config = config_lib.load_config(str(path), flags)
    assert (config.seed, config.optim.learning_rate, config.data.flip, config.train.steps) == (7, 2.0, False, 3)


@pytest.mark.parametrize("flag", ["('spectrogram',)", "spectrogram", "('rgb', 'spectrogram')"])
def test_modalities_from_the_command_line(flag):
    config = config_lib.load_config("demo", [f"--config.modalities={flag}"])
    assert set(config.modalities) <= {"rgb", "spectrogram"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def get_config(:", "SyntaxError"),
        ("x = 1", r"does not define get_config\(\)"),
        ("def get_config(): return {}", "must return an ml_collections.ConfigDict"),
        (GOOD.replace("config.seed = 7", "config.sede = 7"), "config key sede does not exist"),
        (GOOD.replace("config.seed = 7", "del config.seed"), "config key seed is missing"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        config_lib.load_config(str(path), [])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.optim.lerning_rate=1", r"no such key; did you mean --config\.optim\.learning_rate"),
        ("--config.zzz=1", "no such key"),
        ("--config.train.steps=many", "config.train.steps"),
        ("--config.seed", "Missing value"),
    ],
)
def test_a_bad_flag_is_one_line(flag, message):
    with pytest.raises(UsageError, match=message) as error:
        config_lib.load_config("demo", [flag])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("modalities", ()),
        ("modalities", ("rgb", "rgb")),
        ("modalities", ("smell",)),
        ("data.root", ""),
        ("data.seconds", 0.0),
        ("data.seconds", float("nan")),
        ("data.crop_area", (0.5, 0.2)),
        ("data.eval_crop", 1.5),
        ("data.share", 0.0),
        ("data.share", 1.1),
        ("loss.name", "mse"),
        ("loss.label_smoothing", 1.0),
        ("optim.name", "lion"),
        ("optim.learning_rate", -1.0),
        ("train.batch_size", 0),
        ("train.log_every", 0),
        ("model.size", "vit_xl"),
        ("seed", -1),
        ("seed", 2**32),
        ("data.mel_stddev", 0.0),
        ("data.mel_mean", float("nan")),
        ("optim.momentum", 1.0),
        ("optim.weight_decay", -0.1),
    ],
)
def test_wrong_values_are_named(key, value):
    config = rooted()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=rf"config\.{key}="):
        config_lib.check(config)


def test_a_model_that_cannot_be():
    config = rooted()
    config.model.update(heads=5, num_classes=2)
    with pytest.raises(UsageError, match=r"config\.model: width 768 is not a multiple of 5 heads"):
        config_lib.model_config(config)


def test_a_config_survives_its_file():
    config = rooted()
    again = config_lib.from_json(config_lib.to_json(config))
    assert again.to_dict() == config.to_dict()
    assert config_lib.differences(config, again) == []


@pytest.mark.parametrize("given", [{"mel_mean": 1.5}, {"mel_stddev": 2.5}], ids=["mean", "deviation"])
def test_a_statistic_that_is_given_stays(tmp_path, given):
    config = rooted()
    config.data.update(given)
    resolved = config_lib.resolve(config, load_manifest(str(write_dataset(tmp_path)), "latest"))
    (other,) = {"mel_mean", "mel_stddev"} - given.keys()
    assert {key: resolved.data[key] for key in given} == given
    assert isinstance(resolved.data[other], float)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config.pop("seed"), "lacks seed; use the mbt-train that wrote it, or train anew"),
        (lambda config: config.pop("train"), "lacks .* and 4 more keys"),
        (lambda config: [], "it is no config"),
    ],
    ids=["key", "keys", "list"],
)
def test_a_config_of_another_version_is_refused(tmp_path, change, told):
    config = json.loads(config_lib.to_json(rooted()))
    changed = change(config)
    (tmp_path / "config.json").write_text(json.dumps(changed if changed == [] else config))
    with pytest.raises(UsageError, match=told) as error:
        workdir_lib.read_run(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_made_with_cudnn_is_asked_on_any_device(tmp_path):
    config = rooted()
    config.model.attention = "cudnn"
    workdir_lib.write_config(tmp_path, config)
    assert workdir_lib.read_run(tmp_path).model.attention == "auto"
    assert workdir_lib.read_config(tmp_path).model.attention == "cudnn"


def test_differences_name_keys_that_matter():
    old, new = rooted(), rooted()
    new.data.root, new.seed = "elsewhere", 3
    assert config_lib.differences(old, new) == ["seed: 0 -> 3"]
