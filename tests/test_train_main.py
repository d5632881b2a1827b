"""`mbt-train` from end to end on a small snapshot."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest
from train_runs import fake_clip, lines, start, train_command, write_dataset

from mbt.schemas.fakes import write_snapshot
from mbt.train import config as config_lib
from mbt.train import run
from mbt.train.main import main


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    assert main(train_command(root, workdir)) == 0
    return workdir


def test_a_run_leaves_its_config_metrics_and_result(finished):
    assert [line["step"] for line in lines(finished) if line["kind"] == "train"] == list(range(1, 13))
    evaluations = [line for line in lines(finished) if line["kind"] == "eval"]
    assert [line["step"] for line in evaluations] == [4, 8, 12]
    result = json.loads((finished / "result.json").read_text())
    assert {name: result[name] for name in ("map", "top1", "top5", "clips")} == {
        name: evaluations[-1][name] for name in ("map", "top1", "top5", "clips")
    }
    assert result["clips"] == 4
    assert result["parameters"] > 0
    config = json.loads((finished / "config.json").read_text())
    assert config["data"]["snapshot"] == "first"
    assert config["data"]["mel_mean"] == pytest.approx(-5, abs=0.1)
    assert "seconds" not in lines(finished)[0]
    assert list((finished / "tensorboard").iterdir())


def test_a_finished_run_is_only_reported(root, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(train_command(root, finished)) == 0
    output = capsys.readouterr()
    assert "already trained" in output.err
    assert "top1" in output.out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_evaluate_repeats_the_runs_own_scores(finished, capsys):
    assert main(["evaluate", f"--workdir={finished}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == 12
    expected = json.loads((finished / "result.json").read_text())
    assert all(result[name] == expected[name] for name in ("map", "top1", "top5", "clips", "split", "views"))
    assert json.loads((finished / "evaluations" / "test-2views.json").read_text()) == result


@pytest.mark.parametrize("modality", ["rgb", "spectrogram"])
def test_one_modality(root, tmp_path, modality):
    flags = [f"--config.modalities={modality}", "--config.train.steps=2", "--config.loss.name=bce"]
    assert (
        main(train_command(root, tmp_path / "run", *flags, "--config.optim.name=sgd", "--config.optim.weight_decay=0"))
        == 0
    )


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(root, tmp_path, capsys):
    flags = ["--config.optim.learning_rate=1e30", "--config.optim.warmup=0", "--config.optim.clip_norm=0"]
    flags += ["--config.train.checkpoint_every=1", "--config.train.eval_every=100"]
    flags += ["--config.optim.name=sgd", "--config.optim.weight_decay=0"]
    assert main(train_command(root, tmp_path / "run", *flags)) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    bad = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    assert f"step {bad['step']}: the " in told and ", ".join(bad["clips"]) in told
    assert len(bad["clips"]) == 4
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, bad["step"]))
    saved = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert max(saved) == bad["step"] - 1
    assert not (tmp_path / "run" / "result.json").exists()


def test_damaged_data_ends_the_run_in_one_line(tmp_path, capsys):
    write_snapshot(tmp_path / "data", {"train": [fake_clip(0)]}, ("a", "b", "c"), num_shards=1)
    (shard,) = tmp_path.glob("data/shards/*.tfrecord")
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert main(train_command(tmp_path / "data", tmp_path / "run", "--config.data.eval_split=")) == 1
    assert "records drawn in turn are damaged" in capsys.readouterr().err.splitlines()[-1]
    (bad,) = [json.loads(line) for line in (tmp_path / "run" / "bad_records.jsonl").read_text().splitlines()]
    assert (bad["shard"], bad["clip"]) == (str(shard), "clip-0")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.root=/no/such/place"], "no snapshot there"),
        (["--config.data.snapshot=second"], "which has first"),
        (["--config.data.eval_split=valid"], "has the splits train, test"),
        (["--config.model.num_classes=2"], "has 3 labels"),
        (["--config.model.heads=5"], "not a multiple"),
        (["--config.sede=5"], "did you mean --config.seed?"),
        (["--sede=5"], "unknown argument --sede=5"),
        (["--config.seed=1", "--sede=5"], "sede"),
    ],
)
def test_a_wrong_command_is_one_line_and_writes_nothing(root, tmp_path, capsys, flags, message):
    try:
        status = main(train_command(root, tmp_path / "run", *flags))
    except SystemExit as end:
        status = end.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_another_config_in_the_same_workdir_is_refused(root, finished, capsys):
    assert main(train_command(root, finished, "--config.seed=1")) == 2
    assert "another config (seed: 0 -> 1)" in capsys.readouterr().err


def test_a_second_writer_is_refused(root, tmp_path, capsys):
    from mbt.train.workdir import locked

    with locked(tmp_path / "run"):
        assert main(train_command(root, tmp_path / "run")) == 2
    assert f"another mbt-train is writing there (process {os.getpid()} on " in capsys.readouterr().err


def test_evaluate_without_a_run_is_refused(tmp_path, capsys):
    assert main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert "no run there" in capsys.readouterr().err


def test_help_is_quick():
    before = cpu_of_children_s()
    result = subprocess.run(
        [sys.executable, "-m", "mbt.train.main", "train", "--help"], check=True, capture_output=True, text=True
    )
    assert "examples:" in result.stdout
    assert cpu_of_children_s() - before < 5  # a fifth of a second on a machine at leisure
    heavy = "import sys, mbt.train.main; print({'jax', 'tensorflow', 'absl', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True).strip() == "set()"


def cpu_of_children_s() -> float:
    """What the processes that ended have used, however long they had to wait for it."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def test_interrupted_while_libraries_are_loaded_it_ends(root, tmp_path):
    """An exception would be lost there now and then."""
    process = start(train_command(root, tmp_path / "run"), dict(os.environ))
    while "jaxlib" not in pathlib.Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.endswith("mbt-train train: interrupted; the same command goes on from the last checkpoint\n")


@pytest.mark.parametrize(
    ("flags", "clips", "hinted"),
    [
        ([], 9_999, True),
        ([], 10_000, False),
        (["--config.model.spectrogram_patch=(8, 128)"], 320, False),
        (["--config.model.spectrogram_patch=(16, 16)"], 320, False),
        (["--config.modalities=rgb"], 320, False),
        (["--config.modalities=spectrogram"], 320, True),
        (["--config.init.vit=vit.npz"], 320, False),
        (["--config.init.source=runs/other"], 320, False),
    ],
)
def test_a_run_from_nothing_on_few_clips_is_told_of_patches_over_the_whole_band(capsys, flags, clips, hinted):
    run._hint(config_lib.load_config("demo", flags), flags, clips)
    said = capsys.readouterr().err
    assert ("--config.model.spectrogram_patch='(8, 128)'" in said, len(said.splitlines())) == (hinted, int(hinted))
