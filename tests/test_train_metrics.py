"""Reports: what a resumed run takes back, and what they say of time and of batches."""

import pathlib
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mbt.train import events, pictures
from mbt.train.metrics import Metrics, NoMetrics, read_lines


def write(workdir: pathlib.Path, first: int, last: int, total: int = 20, log_every: int = 2, wait: float = 0.0) -> None:
    workdir.mkdir(exist_ok=True)
    metrics = Metrics(workdir, first, total, log_every)
    for step in range(first + 1, last + 1):
        time.sleep(0.002)
        metrics.waited(wait)
        metrics.train(step, {"loss": 1 / step})
        if step % 5 == 0:
            metrics.evaluation(step, {"map": step / 10})
            metrics.pictures(step, {"rgb": np.full((2, 4, 4, 3), step, np.uint8)})
    metrics.close()


def points(workdir: pathlib.Path) -> dict[str, list[int]]:
    """Steps by name in TensorBoard's files."""
    found: dict[str, list[int]] = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return {name: sorted(steps) for name, steps in found.items()}


def test_a_resumed_run_reports_every_step_once(tmp_path):
    write(tmp_path / "straight", 0, 20)
    write(tmp_path / "run", 0, 13)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "ki')  # killed while it wrote
    (cut,) = (tmp_path / "run" / "tensorboard").iterdir()
    cut.write_bytes(cut.read_bytes()[:-7])
    write(tmp_path / "run", 8, 20)
    straight, run = (tmp_path / name / "metrics.jsonl" for name in ("straight", "run"))
    assert run.read_bytes() == straight.read_bytes()
    assert [line["step"] for line in read_lines(tmp_path / "run" / "times.jsonl")] == [1, *range(2, 21, 2)]
    assert points(tmp_path / "run") == points(tmp_path / "straight")
    assert points(tmp_path / "run")["eval/map"] == [5, 10, 15, 20]


def test_a_file_of_later_steps_alone_is_deleted(tmp_path):
    write(tmp_path, 10, 15)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    events.truncate(tmp_path / "tensorboard", 10)
    assert list((tmp_path / "tensorboard").iterdir()) == []


def test_what_is_left_of_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, disk_calls):
    write(tmp_path, 0, 15)
    (path,) = (tmp_path / "tensorboard").iterdir()
    disk_calls.clear()
    events.truncate(tmp_path / "tensorboard", 10)
    assert disk_calls == [("flush", "kept.tmp"), ("rename", path.name), ("flush", "tensorboard")]


@pytest.mark.parametrize(("wait", "bound"), [(0.0, "compute"), (1.0, "input")])
def test_it_says_once_what_bounds_the_run(tmp_path, capsys, wait, bound):
    write(tmp_path, 0, 12, wait=wait)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "bounds the run" in line]
    assert f"step 2: {bound} bounds the run" in line
    shares = [line["data_wait_share"] for line in read_lines(tmp_path / "times.jsonl")]
    assert all(share == wait for share in shares)


def test_other_processes_report_nothing(tmp_path):
    metrics = NoMetrics()
    metrics.train(1, {"loss": 1.0})
    metrics.evaluation(1, {"map": 1.0})
    metrics.close()
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_of_what_the_model_gets():
    rgb = np.zeros((2, 3, 4, 5, 3), np.float32)
    rgb[1, 2] = 1.0
    mel = np.zeros((2, 6, 7, 1), np.float32)
    mel[0, 5, 0] = 3.0  # the last row in time, the lowest bin
    drawn = pictures.draw({"rgb": rgb, "spectrogram": mel})
    assert drawn["rgb"].shape == (2, 4, 15, 3)
    assert (drawn["rgb"][1, :, 10:] == 255).all() and (drawn["rgb"][1, :, :10] == 128).all()
    assert drawn["spectrogram"].shape == (2, 7, 6, 1)
    assert np.argwhere(drawn["spectrogram"] == 255).tolist() == [[0, 6, 5, 0]]
