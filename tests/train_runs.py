"""Small runs of `mbt-train` for the tests: a dataset, a command, a process that is watched."""

import io
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
from command_server import Running
from PIL import Image

from mbt.schemas.fakes import FakeClip, write_snapshot

SMALL = [
    "--config.data.seconds=0.4",
    "--config.data.frames=2",
    "--config.data.crop=16",
    "--config.model.width=16",
    "--config.model.depth=2",
    "--config.model.heads=2",
    "--config.model.mlp_dim=16",
    "--config.model.fusion_layer=1",
    "--config.model.stochastic_depth=0.5",
    "--config.train.batch_size=4",
    "--config.train.eval_batch_size=3",
    "--config.train.steps=12",
    "--config.train.log_every=1",
    "--config.train.eval_every=4",
    "--config.train.checkpoint_every=5",
]


def fake_clip(number: int) -> FakeClip:
    random = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (20, 24, 3), np.uint8)).save(file, "JPEG")
    mel = random.normal(-5, 2, (80, 128)).astype(np.float32)
    return FakeClip(id=f"clip-{number}", jpegs=[file.getvalue()] * 20, size=(20, 24), mel=mel, labels=(number % 3,))


def write_dataset(root: pathlib.Path, **options) -> pathlib.Path:
    """7 clips to train on, 4 to test on, of 3 classes."""
    clips = [fake_clip(number) for number in range(11)]
    write_snapshot(root, {"train": clips[:7], "test": clips[7:]}, ("a", "b", "c"), **options)
    return root


def train_command(root, workdir, *flags: str) -> list[str]:
    return ["train", "--config=demo", f"--workdir={workdir}", f"--config.data.root={root}", *SMALL, *flags]


def lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def start(command: list[str], env: dict[str, str]) -> subprocess.Popen:
    words = [sys.executable, "-m", "mbt.train.main", *command]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen | Running, workdir: pathlib.Path, step: int) -> None:
    """Returns once a process has logged a step of its own; fails where it ends before."""
    path, begun = workdir / "metrics.jsonl", time.time()
    while process.poll() is None:
        # Before the process truncates it, the file is its predecessor's.
        if path.exists() and path.stat().st_mtime >= begun and last_step(path) >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"ended before step {step}: {finish(process)}")


def finish(process: subprocess.Popen | Running) -> tuple[int, str]:
    """Waits; the exit status, and what was said on stderr."""
    _, errors = process.communicate(timeout=900)
    return process.returncode, errors


def last_step(path: pathlib.Path) -> int:
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return json.loads(whole[-1])["step"] if whole else 0
