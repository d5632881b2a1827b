"""Every key of a config set to anything: it is refused in one line before anything is written, or it can be used."""

import json
import math
import pathlib

import numpy as np
import pytest
from train_runs import train_command, write_dataset

from mbt.train import config as config_lib
from mbt.train.errors import UsageError
from mbt.train.main import main
from mbt.train.snapshot import find_split, load_manifest

ODD = (
    *(None, True, False, -1, 0, 1, 2**31, 10**23, -(2**70), 0.5, -0.5, 1e300, math.inf, -math.inf, math.nan),
    *(
        "",
        "x",
        "16x16",
        "~",
        "\n",
        b"x",
        (),
        (0,),
        (-1, 2),
        (16.0, 16),
        ("a",),
        (None,),
        (2**40,),
        [1],
        {"a": 1},
        object(),
    ),
)
TEXTS = (
    "",
    "x",
    "None",
    "True",
    "-1",
    "1e300",
    "inf",
    "nan",
    "1e23",
    "16x16",
    "(16.0,16)",
    "('a',)",
    "[1]",
    "{}",
    "=",
    "é",
)
KEYS = sorted(config_lib._flat(config_lib.default_config()))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


def set_key(root: pathlib.Path, key: str, value):
    """The config of a small run with one value, as a config file may set it."""
    config = config_lib.load_config("demo", train_command(root, "unused")[3:])
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    return config


def complaint(config, manifest) -> str:
    """Why a config is refused; "" where it is not, and can then be kept as text."""
    try:
        config_lib._check_keys(config)
        config_lib.check(config)
        find_split(manifest, "config.data.train_split", config.data.train_split)
        resolved = config_lib.resolve(config, manifest)
        config_lib.model_config(resolved)
    except UsageError as error:
        return str(error)
    text = config_lib.to_json(resolved)
    assert config_lib.to_json(config_lib.from_json(text)) == text
    return ""


@pytest.mark.parametrize("key", KEYS)
def test_every_value_of_a_config_file_is_refused_in_one_line_or_used(root, key):
    manifest = load_manifest(str(root), "latest")
    told = [complaint(set_key(root, key, value), manifest) for value in ODD]
    assert all("\n" not in line and len(line) < 400 for line in told)
    assert sum(map(bool, told)) >= 15  # of 31: no type has more than half of them
    assert all(line.startswith("config") for line in told if line)


@pytest.mark.parametrize("key", KEYS)
def test_every_text_of_a_flag_is_refused_in_one_line_or_used(root, key):
    manifest = load_manifest(str(root), "latest")
    for text in TEXTS:
        told = ""
        try:
            config = config_lib.load_config("demo", [*train_command(root, "unused")[3:], f"--config.{key}={text}"])
        except UsageError as error:
            told = str(error)
        assert "\n" not in (told or complaint(config, manifest))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.momentum", None),
        ("model.patch", (16.0, 16)),
        ("data.stride", math.inf),
        ("train.steps", 10**23),
        ("train.epochs", 1e300),
        ("train.mesh.data", 0),
        ("model.head_sizes", ("a",)),
        ("seed", True),
    ],
)
def test_what_is_refused_leaves_nothing_and_status_2(root, tmp_path, capsys, key, value):
    path = tmp_path / "odd.py"
    path.write_text(
        "from math import inf\n"
        "from mbt.train.config import load_config\n"
        "def get_config():\n"
        f"    config = load_config('demo', {[*train_command(root, 'unused')[3:], '--config.train.steps=0']!r})\n"
        "    with config.ignore_type():\n"
        f"        config.update_from_flattened_dict({{{key!r}: {value!r}}})\n"
        "    return config\n"
    )
    assert main(["train", f"--config={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"config.{key.rpartition('.')[0] if 'mesh' in key else key}" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--config.optim.name=sgd", "--config.optim.weight_decay=0.1"],
            "config.optim.weight_decay=0.1: has no effect",
        ),
        (["--config.mixup.alpha=0.3", "--config.mixup.group=1"], "config.mixup.group=1: has no effect on a row"),
        (["--config.optim.clip=part"], "config.optim.clip='part': has no effect with config.train.accumulate=1"),
    ],
)
def test_what_would_have_no_effect_is_refused_of_a_new_run(root, tmp_path, capsys, flags, told):
    assert main(train_command(root, tmp_path / "run", *flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "run").exists()


def test_numpys_floats_are_numbers(root):
    config_lib.check(set_key(root, "optim.learning_rate", np.float64(0.1) ** 0.5))


def test_values_that_are_kept_as_text_come_back(root):
    config = config_lib.resolve(set_key(root, "seed", 2**32 - 1), load_manifest(str(root), "latest"))
    assert json.loads(config_lib.to_json(config))["seed"] == 2**32 - 1
