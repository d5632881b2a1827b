"""A run that a6ed681 began goes on with the same numbers; a config that lacks keys means what it meant."""

import json
import pathlib
import shutil

import old_version
import pytest

from mbt.schemas.manifest import DATASET_FILE, Dataset, Encoding
from mbt.train import config as config_lib
from mbt.train import old_configs, preflight
from mbt.train import workdir as workdir_lib
from mbt.train.main import main
from mbt.train.snapshot import load_manifest

KEYS = [
    *("data.seconds=0.4", "data.frames=2", "data.crop=16", "data.eval_split=test"),
    *("model.width=8", "model.depth=2", "model.heads=2", "model.mlp_dim=8", "model.fusion_layer=1"),
    *("model.stochastic_depth=0.5", "train.batch_size=4", "train.eval_batch_size=3", "train.steps=12"),
    *("train.log_every=1", "train.eval_every=4", "train.checkpoint_every=5"),
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> pathlib.Path:
    return old_version.unpack(tmp_path_factory.mktemp("a6ed681"))


@pytest.fixture
def old(pristine, tmp_path) -> pathlib.Path:
    return shutil.copytree(pristine, tmp_path / "old")


def reencoded(root: pathlib.Path) -> None:
    """Makes a dataset as it is once another encoder made a second snapshot, of the same shards for brevity."""
    dataset = Dataset.from_json((root / DATASET_FILE).read_text())
    encoder = dataset.encoder | {"ffmpeg": "newer"}
    (root / DATASET_FILE).write_text(dataset.made_by(Encoding(encoder=encoder, canary="other")).to_json())
    shutil.copytree(root / "snapshots" / "first", root / "snapshots" / "second")
    path = root / "snapshots" / "second" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"snapshot": "second", "created": "2099-01-01T00:00:00", "encoding": 1}))


def command(old: pathlib.Path, *keys: str) -> list[str]:
    flags = [f"--config.{key}" for key in (f"data.root={old}/root", *KEYS, *keys)]
    return ["train", "--config=demo", f"--workdir={old}/run", *flags]


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_goes_on_with_the_same_numbers_on_its_own_snapshot(old, capsys):
    """Also after the dataset was re-encoded, and from a config.json that lacks what older versions did."""
    reencoded(old / "root")
    path = old / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["optim"]["ema"], config["data"]["spec_augment"]
    path.write_text(json.dumps(config))
    assert main(command(old)) == 0
    assert "this run goes on with snapshot first; to train on second, give another --workdir" in capsys.readouterr().err
    got, expected = lines(old / "run" / "metrics.jsonl"), lines(old / "metrics.jsonl")
    assert len(got) == len(expected) == 15
    for one, other in zip(got, expected, strict=True):
        assert one.pop("kind") == other.pop("kind") and one == pytest.approx(other, rel=1e-4)


def test_it_is_not_moved_to_records_of_another_encoder(old, capsys):
    reencoded(old / "root")
    assert main(command(old, "data.snapshot=second")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "encoder.ffmpeg" in line and "-> newer" in line and "its snapshot first, or another --workdir" in line


def test_every_snapshot_has_the_encoder_of_its_time(old):
    root = str(old / "root")
    before = preflight.identify(root, load_manifest(root, "first"))
    reencoded(old / "root")
    assert preflight.identify(root, load_manifest(root, "first")) == before
    assert '"ffmpeg": "newer"' in preflight.identify(root, load_manifest(root, "second")).encoder
    assert workdir_lib.read_run(old / "run").dataset == before


def pruned(config: dict, key: str) -> None:
    *groups, name = key.split(".")
    for group in groups:
        config = config[group]
    config.pop(name, None)  # of a key that is newer than the run


def test_a_key_that_is_missing_means_what_was(old):
    """And a key that is new has its line: else every run of today would be lost with the next version."""
    text = (old / "run" / "config.json").read_text()
    config = json.loads(text)
    had = {key for key in config_lib.from_json(text).to_dict() if key != "dataset"}
    assert had == config_lib.default_config().to_dict().keys()
    now, then = (config_lib._flat(config) for config in (config_lib.default_config(), config_lib.from_json(text)))
    assert {key for key in now if key not in then} <= old_configs.BEFORE.keys()
    for key in old_configs.BEFORE:
        pruned(config, key)
    del config["dataset"]
    (old / "run" / "config.json").write_text(json.dumps(config))
    read = workdir_lib.read_config(old / "run")
    assert {key: config_lib.value_of(read, key) for key in old_configs.BEFORE} == old_configs.BEFORE
    whole = config_lib.from_json(text)
    differing = [key.split(":")[0] for key in config_lib.differences(read, whole)]
    assert differing == ["data.on_bad_record"]  # which stopped a run, when nobody could say otherwise


def test_a_run_of_a_protocol_that_has_changed_since_goes_on_as_it_began():
    for name, before in old_configs.CHANGED.items():
        usual, old, given = (config_lib.load_config(name, []) for _ in range(3))
        old.update_from_flattened_dict(before)
        given.optim.learning_rate = old.optim.learning_rate = 0.1
        resumed, kept = old_configs.resumed(given, old, usual, before)
        assert set(kept) == {key for key in before if before[key] != config_lib.value_of(usual, key)}
        assert config_lib.differences(old, resumed) == []
        given.data.short = "loop" if before["data.short"] == "pad" else "pad"  # as the protocol has it now
        old.data.alignment = "start"  # it was asked for
        assert "data.alignment" not in old_configs.resumed(given, old, usual, before)[1]


def test_a_run_goes_on_as_it_began_where_new_runs_do_otherwise():
    default = config_lib.default_config()
    old, given = default.copy_and_resolve_references(), default.copy_and_resolve_references()
    old.data.on_bad_record = "stop"
    resumed, kept = old_configs.resumed(given, old, default)
    assert kept == ["data.on_bad_record"] and resumed.data.on_bad_record == "stop"
    assert given.data.on_bad_record == "replace" and config_lib.differences(old, resumed) == []
    old.data.on_bad_record = "replace"
    assert old_configs.resumed(given, old, default)[1] == []
    given.optim.ema = old.optim.ema = 0.5  # asked for, then and now
    assert old_configs.resumed(given, old, default)[1] == []
