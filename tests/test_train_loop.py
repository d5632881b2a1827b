"""Parts of the loop: results that are looked at late, signals, traces, the list of damaged records."""

import json
import os
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_runs import write_dataset

from mbt.train.damage_log import DamageLog
from mbt.train.errors import RunError
from mbt.train.pending import UNDER_WAY, Pending, Started
from mbt.train.profile import Profiler, Steps
from mbt.train.signals import until_sigterm
from mbt.train.snapshot import Records, load_manifest


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Records:
    root = write_dataset(tmp_path_factory.mktemp("dataset"))
    return Records(str(root), load_manifest(str(root), "latest").splits["train"])


def started(step: int, **values: float) -> Started:
    values = {"loss": 1.0, "learning_rate": 0.1, "grad_norm": 1.0} | values
    return Started(step, {name: jnp.float32(value) for name, value in values.items()}, np.array([step % 7, 0]))


def test_results_come_in_order_and_late(tmp_path, records):
    pending, seen = Pending(tmp_path, records), []
    for step in range(1, 6):
        pending.add(started(step, loss=step))
        seen += [(done, values["loss"]) for done, values in pending.take()]
        assert len(seen) == max(0, step - UNDER_WAY)
    seen += [(done, values["loss"]) for done, values in pending.take(left=0)]
    assert seen == [(step, step) for step in range(1, 6)]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"loss": float("nan")}, "step 3: the loss is nan"),
        ({"grad_norm": float("inf")}, "step 3: the gradient's norm is inf"),
    ],
    ids=["loss", "gradient"],
)
def test_the_first_bad_step_is_named_with_its_clips(tmp_path, records, values, told):
    pending, seen = Pending(tmp_path, records), []
    for step in (1, 2):
        pending.add(started(step))
    pending.add(started(3, **values))
    pending.add(started(4, loss=float("nan")))
    with pytest.raises(RunError) as failure:
        seen.extend(pending.take(left=0))
    clips = [records.ids()[3], records.ids()[0]]
    assert told in str(failure.value) and ", ".join(clips) in str(failure.value)
    bad = json.loads((tmp_path / "not_finite.json").read_text())
    assert (bad["step"], bad["clips"]) == (3, clips)


def test_sigterm_is_noted_inside_the_block_alone():
    before = signal.getsignal(signal.SIGTERM)
    with until_sigterm() as stop:
        assert not stop(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop(2) and stop(3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_chosen_steps_are_traced(tmp_path):
    profiler, double = Profiler(tmp_path, Steps(2, 3)), jax.jit(lambda x: 2 * x)
    for step in range(1, 5):
        profiler.before(step)
        profiler.after(step, {"loss": double(jnp.ones(()))})
        assert list(tmp_path.rglob("*.xplane.pb")) == [] or step >= 3
    profiler.close()
    assert len(list(tmp_path.glob("profile/**/*.xplane.pb"))) == 1


class FakeReader:
    """Has a list of damaged records."""

    def __init__(self, *clips: str):
        self.bad = [{"record": 1, "shard": "s", "clip": clip, "reason": "r"} for clip in clips]


def test_damaged_records_are_listed_once_even_by_a_run_that_goes_on(tmp_path: pathlib.Path):
    path = tmp_path / "bad_records.jsonl"
    log = DamageLog(path, reader := FakeReader())
    log.write()
    assert not path.exists()
    reader.bad += FakeReader("a").bad
    log.write()
    log.write()
    DamageLog(path, FakeReader("b", "a")).write()
    assert [json.loads(line)["clip"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_line_that_was_cut_short_is_written_again(tmp_path: pathlib.Path):
    path = tmp_path / "bad_records.jsonl"
    DamageLog(path, FakeReader("a", "b")).write()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    DamageLog(path, FakeReader("a", "b")).write()
    assert path.read_bytes() == whole
