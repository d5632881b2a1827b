"""Runs in trouble: a folder as typed, a full disk, an evaluation that is killed, a run that starts from another."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from train_runs import fake_clip, finish, lines, train_command, wait_for_step, write_dataset

from mbt.schemas.fakes import write_snapshot
from mbt.train import class_order, init_source, kept_scores, loop, old_configs, resuming, sharding
from mbt.train import config as config_lib
from mbt.train.checkpoint import Checkpoints
from mbt.train.errors import UsageError
from mbt.train.main import main
from mbt.train.step import eval_params, state_shapes
from mbt.train.workdir import checkpoint_steps, read_config


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    assert main(train_command(root, workdir, "--config.train.best=map", "--config.optim.ema=0.5")) == 0
    return workdir


def said(capsys, command: list[str]) -> str:
    """The last line of a command that is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(command))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_tilde_is_the_home_folder_and_an_empty_folder_is_refused(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    (tmp_path / "data").symlink_to(root)
    command = train_command("~/data", "~/runs/one", "--config.train.steps=1", "--config.data.eval_split=")
    assert main(command) == 0
    assert (tmp_path / "runs" / "one" / "config.json").exists()
    assert read_config(tmp_path / "runs" / "one").data.root == str(tmp_path / "data")
    for words in (
        train_command(root, ""),
        ["evaluate", "--workdir=~/runs/one", "--data_root="],
        ["predict", "--workdir=~/runs/one", "--rollout=", "a.mp4"],
        ["train", "--config=", "--workdir=x"],
        ["evaluate", "--workdir=~nobody-of-that-name/x"],
    ):
        line = said(capsys, words)
        assert "is empty; is a variable of the command unset?" in line or "no such user here" in line
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("kill_at", [4, 12])
def test_an_evaluation_that_is_killed_costs_no_training_and_is_made_up_for(
    root, finished, tmp_path, monkeypatch, kill_at
):
    class KilledError(BaseException):
        pass

    evaluate = loop.Evaluator.__call__

    def die(self, state):
        if int(state.step) == kill_at:
            raise KilledError
        return evaluate(self, state)

    command = train_command(root, tmp_path / "run", "--config.train.best=map", "--config.optim.ema=0.5")
    monkeypatch.setattr(loop.Evaluator, "__call__", die)
    with pytest.raises(KilledError):
        main(command)
    assert checkpoint_steps(tmp_path / "run")[-1] == kill_at
    steps = []
    monkeypatch.setattr(
        loop.Evaluator, "__call__", lambda self, state: steps.append(int(state.step)) or evaluate(self, state)
    )
    assert main(command) == 0
    assert steps[0] == kill_at
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    results = [json.loads((run / "result.json").read_text()) for run in (tmp_path / "run", finished)]
    assert results[0] | {"workdir": "", "seconds": 0} == results[1] | {"workdir": "", "seconds": 0}
    best = [Checkpoints(run, best="map") for run in (tmp_path / "run", finished)]
    assert best[0].best() == best[1].best()
    for checkpoints in best:
        checkpoints.close()


@pytest.mark.slow
def test_killed_for_good_in_the_last_evaluation_a_run_has_its_last_step(mbt_train, root, tmp_path):
    command = train_command(root, tmp_path / "run", "--config.data.views=400", "--config.train.eval_every=0")
    process = mbt_train.listen(*command, env=dict(os.environ))
    wait_for_step(process, tmp_path / "run", 12)
    while checkpoint_steps(tmp_path / "run")[-1:] != [12]:
        assert process.poll() is None
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert [line["kind"] for line in lines(tmp_path / "run")].count("eval") == 0
    status, errors = finish(mbt_train.listen(*command, env=dict(os.environ)))
    assert status == 0, errors
    assert [line["step"] for line in lines(tmp_path / "run") if line["kind"] == "eval"] == [12]


FULL_DISK = """
for last; do :; done
folder="${last#--workdir=}/evaluations"
mount -t tmpfs -o size=8m tmpfs "$folder" && head -c 20m /dev/zero > "$folder/full" 2>/dev/null
exec "$@"
"""


def test_on_a_full_disk_the_scores_are_told_and_the_trouble_once(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "evaluations").mkdir()
    words = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "sh")
    program = "import sys; from mbt.train.main import main; sys.exit(main(['evaluate', '--json', sys.argv[1]]))"
    command = [*words, sys.executable, "-c", program, f"--workdir={tmp_path}/run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in ended.stderr or "mount" in ended.stderr:
        pytest.skip("no file system can be mounted here")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["clips"] == 4
    assert ended.stderr.splitlines()[-1].endswith(
        "the scores, which are told, cannot be written: No space left on device"
    )
    assert "Traceback" not in ended.stderr


def params_of(workdir: pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
    config = read_config(workdir)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        state = checkpoints.restore(state_shapes(config, sharding.make_mesh(config)), step)
    leaves = jax.tree_util.tree_leaves_with_path(eval_params(state))
    return {sharding.name_of(path): np.asarray(value) for path, value in leaves}


def test_a_run_starts_from_the_weights_of_another(root, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(finished.parent)
    command = train_command(root, tmp_path / "run", f"--config.init.source={finished.name}", "--config.train.steps=2")
    command += ["--config.optim.learning_rate=0", "--config.data.eval_split="]
    assert main(command) == 0
    assert read_config(tmp_path / "run").init.source == f"{finished}@12"
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "run"), params_of(finished))
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert main([*command[:-1], f"--config.init.source={finished}", command[-1]]) == 0  # the same run
    line = said(capsys, train_command(root, tmp_path / "other", "--config.init.source=absent"))
    assert "config.init.source=absent: " in line and "no checkpoint of a run there" in line
    line = said(capsys, train_command(root, tmp_path / "other", f"--config.init.source={finished}@7"))
    assert line.endswith("no checkpoint of step 7 there; it has those of 4, 10, 12") and "damaged" not in line
    line = said(
        capsys, train_command(root, tmp_path / "other", f"--config.init.source={finished}", "--config.model.depth=3")
    )
    assert "of layers/2/" in line and "it has nothing" in line
    assert not (tmp_path / "other").exists()


def test_with_other_classes_the_head_is_new_and_all_else_is_taken(finished, tmp_path):
    clips = [fake_clip(number) for number in range(6)]
    write_snapshot(tmp_path / "data", {"train": clips, "test": clips}, ("a", "b", "c", "d", "e"))
    flags = (f"--config.init.source={finished}@12", "--config.optim.learning_rate=0", "--config.train.steps=1")
    assert main(train_command(tmp_path / "data", tmp_path / "run", *flags, "--config.data.eval_split=")) == 0
    new, old = params_of(tmp_path / "run"), params_of(finished)
    assert new["head/kernel"].shape == (16, 5) and not new["head/kernel"].any()
    for name in old.keys() - set(init_source.OF_CLASSES):
        np.testing.assert_array_equal(new[name], old[name])


def test_a_run_goes_on_on_what_a_purge_has_left_and_says_so(root, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(root, data)
    command = train_command(data, tmp_path / "run", "--config.train.steps=12")
    assert main([*command, "--config.train.epochs=1"]) == 0
    (path,) = (data / "snapshots").glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    amendment = {"time": "2026-01-01T00:00:00+00:00", "reason": "", "num_clips": 1, "shards": []}
    manifest["amended"] = [amendment | {"old_clips_sha256": "", "new_clips_sha256": ""}]
    path.write_text(json.dumps(manifest))
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    capsys.readouterr()
    assert main([*command, "--config.train.epochs=1"]) == 0
    told = capsys.readouterr().err
    assert "clips were purged from the dataset since this run last wrote; it goes on with the 7 training clips" in told
    assert [line["step"] for line in lines(tmp_path / "run") if line["kind"] == "train"] == list(range(1, 13))


def test_another_order_of_classes_is_noticed():
    random = np.random.default_rng(0)
    labels = np.eye(40)[random.integers(0, 40, 400)]
    right = random.normal(size=(400, 40)) + 3 * labels
    assert not class_order.is_another(right, labels)
    assert class_order.is_another(np.roll(right, 1, axis=1), labels)
    assert class_order.is_another(right[:, random.permutation(40)], labels)
    assert not class_order.is_another(random.normal(size=(400, 40)), labels)  # it knows nothing
    assert not class_order.is_another(right[:3], labels[:3])


def test_a_closed_pipe_keeps_no_scores_back(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from mbt.train.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "evaluate", f"--workdir={tmp_path / 'run'}"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert ended.returncode == 1 and "Broken pipe" in ended.stderr
    assert json.loads((tmp_path / "run" / "evaluations" / "test-2views.json").read_text())["clips"] == 4


def test_an_evaluation_needs_no_training_split(root, finished, tmp_path, capsys):
    shutil.copytree(root, tmp_path / "data")
    for path in (tmp_path / "data" / "shards").glob("train*"):
        path.unlink()
    shutil.copytree(finished, tmp_path / "run")
    assert main(["evaluate", f"--workdir={tmp_path / 'run'}", f"--data_root={tmp_path / 'data'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 4


def test_classes_that_were_never_shown_are_named(finished, tmp_path, capsys):
    clips = [fake_clip(number) for number in range(6)]
    write_snapshot(tmp_path / "data", {"train": clips[:2], "test": clips}, ("a", "b", "c"))
    assert main(train_command(tmp_path / "data", tmp_path / "run", "--config.train.steps=1")) == 0
    capsys.readouterr()
    assert main(["evaluate", f"--workdir={tmp_path / 'run'}"]) == 0
    assert "1 of the classes that split test has clips of have no clip in split train: c" in capsys.readouterr().err


def test_what_an_older_version_did_otherwise_is_said_once(root, tmp_path, capsys):
    command = train_command(root, tmp_path / "run", "--config.train.steps=1", "--config.optim.ema=0.5")
    assert main(command) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["optim"]["clip"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "result.json").unlink()
    for is_first in (True, False):
        capsys.readouterr()
        assert main(command) == 0
        told = capsys.readouterr().err
        for what in (
            "weight decay spares the biases of queries",
            "the moving average gives the parameters at the start",
        ):
            assert (f"begun with an older version; from here on {what}" in told) == is_first
        (tmp_path / "run" / "result.json").unlink()


def test_a_lower_batch_of_an_older_protocol_goes_on(root, tmp_path, capsys):
    """The protocol has parts and groups now that would not divide it."""
    flags = [f"--config.data.root={root}", "--config.train.batch_size=8", "--config.data.train_split=train"]
    given = config_lib.load_config("scenic_audioset_mini", [*flags, "--config.data.eval_split=test"])
    old = given.copy_and_resolve_references()
    old.update_from_flattened_dict(old_configs.CHANGED["scenic_audioset_mini"])
    with pytest.raises(UsageError, match=r"train\.accumulate"):
        config_lib.check(given)
    for name in ("scenic_audioset_mini", str(config_lib.CONFIGS_FOLDER / "scenic_audioset_mini.py")):
        goes_on = resuming.resumed(name, given, old)
        config_lib.check(goes_on)
        assert config_lib.differences(old, goes_on) == []
    assert "this run goes on with optim.clip=batch, as it began" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), "RESOURCE_EXHAUSTED: out of memory"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_machine_that_fails_is_not_a_damaged_checkpoint(finished, capsys, monkeypatch, error, reason):
    def fail(*_, **__):
        raise error

    with contextlib.closing(Checkpoints(finished)) as checkpoints:
        monkeypatch.setattr(type(checkpoints._manager), "restore", fail)
    assert main(["evaluate", f"--workdir={finished}"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot be restored here: {reason}" in line and "delete" not in line


def test_a_source_that_is_gone_when_it_is_needed_is_no_damaged_checkpoint(finished):
    source = f"{finished}@5"
    with pytest.raises(UsageError, match=r"that checkpoint is gone; those of steps .*12 are there") as refused:
        init_source.read(source, sharding.make_eval_mesh())
    assert "delete" not in str(refused.value)


def test_a_score_that_no_class_has_is_no_evaluation_that_is_owed(tmp_path):
    state = {"map": None, "clips": 3}
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    kept_scores.write(tmp_path / "checkpoints" / "4", state)
    assert kept_scores.are_there(tmp_path / "checkpoints" / "4")
    assert kept_scores.read(tmp_path / "checkpoints" / "4", "map") is None
    assert [path.name for path in (tmp_path / "checkpoints" / "4").iterdir()] == [kept_scores.FILE]
    data = (tmp_path / "checkpoints" / "4" / kept_scores.FILE).read_bytes()
    (tmp_path / "checkpoints" / "4" / kept_scores.FILE).write_bytes(data.replace(b"3", b"7"))
    assert not kept_scores.are_there(tmp_path / "checkpoints" / "4")
