"""What cannot end well does not begin: one line, status 2, before anything is compiled."""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import jax
import pytest
from train_runs import fake_clip, train_command, write_dataset

from mbt.schemas.fakes import write_snapshot
from mbt.schemas.manifest import DATASET_FILE, Dataset
from mbt.train import config as config_lib
from mbt.train import preflight
from mbt.train import workdir as workdir_lib
from mbt.train.checkpoint import Checkpoints
from mbt.train.errors import UsageError
from mbt.train.main import main
from mbt.train.snapshot import load_manifest
from mbt.train.step import State

ON_NVIDIA = jax.devices()[0].device_kind.startswith("NVIDIA")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def no_compilation():
    """Fails a test in which anything is compiled."""
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))
    yield
    jax.monitoring.clear_event_listeners()
    assert not [name for name in seen if "backend_compile" in name]


def config_of(root: pathlib.Path, *flags: str):
    command = train_command(root, "unused", *flags)
    given = config_lib.load_config("demo", [flag for flag in command if flag.startswith("--config.")])
    manifest = load_manifest(str(root), "latest")
    config = config_lib.resolve(given, manifest)
    preflight.freeze_dataset(config, manifest)
    return config


def begun(root: pathlib.Path, workdir: pathlib.Path, *flags: str) -> pathlib.Path:
    """A workdir as a run leaves it that was killed before its first checkpoint."""
    workdir.mkdir()
    workdir_lib.write_config(workdir, config_of(root, *flags))
    return workdir


def refused(capsys, command: list[str]) -> str:
    """What a command says that is refused."""
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--config.optim.lerning_rate=1"], "--config.optim.lerning_rate: no such key; did you mean"),
        (
            ["--config.model.pooling=gap", "--config.mixup.by_modality=True", "--config.mixup.alpha=0.3"],
            "config.mixup.by_",
        ),
        (["--config.train.best=accuracy"], "config.train.best='accuracy': must be one of top1, "),
        (["--config.train.best=top1", "--config.loss.name=bce"], "must be one of map, mauc, dprime, or"),
        (["--config.train.best=map", "--config.data.eval_split="], "needs an evaluation"),
        (["--config.train.mesh.data=3"], "is not the number of devices"),
        (["--profile_steps=5"], "--profile_steps=5: must be FIRST:LAST"),
        (["--profile_steps=5:3"], "--profile_steps=5:3: must be FIRST:LAST"),
        (["--coordinator=here"], "are given together"),
        pytest.param(
            ["--config.model.attention=cudnn", "--config.model.dtype=bfloat16"],
            "config.model.attention=cudnn: needs an NVIDIA GPU",
            marks=pytest.mark.skipif(ON_NVIDIA, reason="there is an NVIDIA GPU"),
        ),
    ],
    ids=[
        "key",
        "gap",
        "best",
        "best-of-bce",
        "no-evaluation",
        "mesh",
        "profile",
        "profile-order",
        "coordinator",
        "cudnn",
    ],
)
def test_a_command_that_cannot_work_writes_nothing(root, tmp_path, capsys, no_compilation, flags, told):
    assert told in refused(capsys, train_command(root, tmp_path / "run", *flags))
    assert list(tmp_path.iterdir()) == []


def test_another_version_of_the_dataset_is_refused(root, tmp_path, capsys, no_compilation):
    workdir = begun(root, tmp_path / "run")
    shutil.copytree(root, tmp_path / "other")
    path = tmp_path / "other" / DATASET_FILE
    dataset = json.loads(path.read_text()) | {"encoder": {"jpeg": {"quality": 5}}, "canary": "ab"}
    path.write_text(Dataset.from_json(json.dumps(dataset)).to_json())
    line = refused(capsys, train_command(tmp_path / "other", workdir))
    assert (
        "other is another version than the run was trained on (canary:  -> ab; encoder.jpeg.quality: None -> 5)" in line
    )
    line = refused(capsys, ["evaluate", f"--workdir={workdir}", f"--data_root={tmp_path / 'other'}"])
    assert "encoder.jpeg.quality: None -> 5" in line


def test_a_run_that_goes_on_needs_its_snapshot_and_an_evaluation_only_its_dataset(root):
    old = config_of(root)
    new = preflight.identify(str(root), load_manifest(str(root), "latest"))
    new.amendments = 1
    preflight.check_dataset(old, new, str(root), same_snapshot=False)
    new.annotations = "other"
    preflight.check_dataset(old, new, str(root), same_snapshot=False)
    with pytest.raises(UsageError, match=r"annotations: .* -> other"):
        preflight.check_dataset(old, new, str(root), same_snapshot=True)


def test_a_run_goes_on_after_a_purge_and_not_with_what_was_purged(root):
    old = config_of(root)
    new = preflight.identify(str(root), load_manifest(str(root), "latest"))
    new.amendments = 1
    preflight.check_dataset(old, new, str(root), same_snapshot=True)
    old.dataset.amendments = 2
    with pytest.raises(UsageError, match="has clips that were purged from the one that the run was trained on"):
        preflight.check_dataset(old, new, str(root), same_snapshot=True)


def test_a_checkpoint_of_another_model_is_refused(root, tmp_path, capsys, no_compilation):
    workdir = begun(root, tmp_path / "run")
    with contextlib.closing(Checkpoints(workdir, writes=True)) as checkpoints:
        number = jax.device_put(0)
        checkpoints.save(State(number, {"kernel": number}, (), {}, number, number))
    capsys.readouterr()
    assert "is of another model" in refused(capsys, train_command(root, workdir))
    assert "is of another model" in refused(capsys, ["evaluate", f"--workdir={workdir}"])


def test_a_workdir_that_is_no_folder_is_refused(root, tmp_path, capsys, no_compilation):
    (tmp_path / "file").touch()
    assert "cannot be written: Not a directory" in refused(capsys, train_command(root, tmp_path / "file" / "run"))


def test_a_workdir_that_cannot_be_written_is_refused_before_weights_are_looked_at(
    root, tmp_path, capsys, no_compilation
):
    (tmp_path / "file").touch()
    command = train_command(root, tmp_path / "file" / "run", "--config.init.vit=absent.npz")
    assert "cannot be written: Not a directory" in refused(capsys, command)


def test_a_damaged_result_is_refused(root, tmp_path, capsys, no_compilation):
    workdir = begun(root, tmp_path / "run")
    (workdir / workdir_lib.RESULT_FILE).write_text('{"steps"')
    assert "result.json cannot be read" in refused(capsys, train_command(root, workdir))


def test_more_shards_than_files_that_are_open_by_default(tmp_path, capsys, no_compilation):
    count = 120
    clips = [fake_clip(0)] * count  # the softmax of the config looks at all labels
    write_snapshot(tmp_path, {"train": clips, "test": clips[:1]}, ("a", "b", "c"), num_shards=count)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + count // 2, limits[1]))
    try:
        line = refused(capsys, train_command(tmp_path, tmp_path / "run", "--config.train.mesh.data=3"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "is not the number of devices" in line


MOUNTED = 'mount -t tmpfs -o size=$1,$2 tmpfs "$3" && shift 3 && exec "$@"'


@pytest.mark.parametrize(
    ("size", "mode", "told"),
    [("200k", "rw", "MiB free, 3 checkpoints of 1 MiB need 4 MiB"), ("8m", "ro", "cannot be written: Read-only")],
    ids=["full", "read-only"],
)
def test_a_disk_without_room_is_refused(root, tmp_path, size, mode, told):
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED, "sh", size, mode, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    command = [sys.executable, "-m", "mbt.train.main", *train_command(root, tmp_path / "run")]
    ended = subprocess.run([*unshare, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert told in line


def test_a_softmax_over_clips_without_exactly_one_label_is_refused(tmp_path, capsys, no_compilation):
    clips = [dataclasses.replace(fake_clip(number), labels=labels) for number, labels in enumerate([(0,), (0, 1), ()])]
    write_snapshot(tmp_path, {"train": clips, "test": clips[:1]}, ("a", "b", "c"))
    message = refused(capsys, train_command(tmp_path, tmp_path / "run"))
    assert "split train: 2 of 3 clips have not one label, such as " in message and "use bce" in message
    two_heads = ["--config.model.head_sizes=(1, 2)", "--config.data.train_split=test"]
    message = refused(capsys, train_command(tmp_path, tmp_path / "run", *two_heads))
    assert "split test: 1 of 1 clips have not one label of head 1, such as 'clip-0' with 0" in message
    assert not (tmp_path / "run").exists()
