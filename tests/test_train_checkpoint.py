"""Checkpoints: written while the next steps already have the buffers, whole or not at all, the best one kept."""

import contextlib
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbt.train.checkpoint import Checkpoints
from mbt.train.errors import UsageError
from mbt.train.step import State

# Long enough to write that steps go on meanwhile.
SIZE = 4_000_000


def make_state(step: int = 0, size: int = 8) -> State:
    params = {"kernel": jnp.arange(size, dtype=jnp.float32) + step, "bias": jnp.full(3, step, jnp.float32)}
    opt_state = ({"momentum": jnp.zeros(size, jnp.bfloat16)}, ())
    return State(jnp.int32(step), params, opt_state, {}, jnp.float32(-5), jnp.float32(2))


def shapes(state: State) -> State:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def steps(workdir: pathlib.Path) -> set[int]:
    return {int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()}


@contextlib.contextmanager
def opened(workdir: pathlib.Path, **options):
    with contextlib.closing(Checkpoints(workdir, **options)) as checkpoints:
        yield checkpoints


def test_steps_that_take_the_buffers_do_not_change_what_is_saved(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + x.dtype.type(1), state), donate_argnums=0)
    state = advance(make_state(size=SIZE))
    expected = jax.tree.map(lambda x: np.array(x, copy=True), state)
    form = shapes(state)
    with opened(tmp_path, writes=True) as checkpoints:
        checkpoints.save(state)
        for _ in range(5):
            state = advance(state)
        assert int(state.step) == 6
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
        restored = checkpoints.restore(form)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), restored, expected))


def test_the_last_two_and_the_best_are_kept(tmp_path):
    scores = {3: 0.2, 6: 0.9, 9: float("nan"), 12: 0.4}
    with opened(tmp_path, writes=True, best="map") as checkpoints:
        for step in range(1, 14):
            checkpoints.save(make_state(step), {"map": scores[step], "clips": 4} if step in scores else None)
    assert steps(tmp_path) == {6, 12, 13}
    with opened(tmp_path, best="map") as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (13, 6)
        assert int(checkpoints.restore(shapes(make_state()), checkpoints.best()).step) == 6
    with opened(tmp_path, writes=True, best="map") as checkpoints:  # the score is known to the next process too
        checkpoints.save(make_state(14), {"map": 0.5})
    assert steps(tmp_path) == {6, 13, 14}


def test_a_checkpoint_is_on_the_disk_and_so_are_the_folders_above(tmp_path, disk_calls):
    with opened(tmp_path / "run", writes=True) as checkpoints:
        checkpoints.save(make_state(1))
    assert [name for call, name in disk_calls if call == "flush"][-3:] == ["1", "checkpoints", "run"]


def test_without_a_score_the_last_two_are_kept(tmp_path):
    with opened(tmp_path, writes=True) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(make_state(step), {"map": 1 / step})
        checkpoints.save(make_state(4))  # is there already
    assert steps(tmp_path) == {3, 4}


KILLED_WHILE_WRITING = f"""
import os, signal, sys, pathlib
import test_train_checkpoint as t
with t.opened(pathlib.Path(sys.argv[1]), writes=True) as checkpoints:
    checkpoints.save(t.make_state(1, {SIZE}))
    checkpoints.save(t.make_state(2, {SIZE}))
    assert checkpoints._manager.is_saving_in_progress()
    while len(os.listdir(os.path.join(sys.argv[1], "checkpoints"))) < 2:  # a thread makes its folder
        assert checkpoints._manager.is_saving_in_progress()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_python(program: str, *words: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent)}
    command = [*before, sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_one_that_was_being_written_does_not_count(tmp_path):
    assert run_python(KILLED_WHILE_WRITING, tmp_path).returncode == -signal.SIGKILL
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert len(left) == 2  # the first, and what there is of the second
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == left, "a reader deletes nothing"
    with opened(tmp_path, writes=True) as checkpoints:
        assert int(checkpoints.restore(shapes(make_state(size=SIZE))).step) == 1
        checkpoints.save(make_state(2, SIZE))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


def cut_arrays(folder: pathlib.Path) -> None:
    for path in (folder / "default").rglob("d/*"):
        os.truncate(path, 10)


# Orbax leaves a read that failed to the garbage collector, unawaited.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        cut_arrays,
        lambda folder: shutil.rmtree(folder / "default"),
        lambda folder: (folder / "default" / "_METADATA").write_text("{"),
    ],
    ids=["arrays", "folder", "names"],
)
def test_a_damaged_one_is_named_with_what_to_do(tmp_path, damage):
    with opened(tmp_path, writes=True) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.save(make_state(2))
    newest = tmp_path / "checkpoints" / "2"
    damage(newest)
    with opened(tmp_path, writes=True) as checkpoints, pytest.raises(UsageError) as refused:
        checkpoints.restore(shapes(make_state()))
    told = str(refused.value)
    del refused
    gc.collect()
    assert f"checkpoint {newest} is damaged" in told and "\n" not in told
    assert told.endswith("delete that folder, and the run goes on from step 1")
    shutil.rmtree(newest)
    with opened(tmp_path, writes=True) as checkpoints:
        assert int(checkpoints.restore(shapes(make_state())).step) == 1


@pytest.mark.parametrize(
    ("like", "told"),
    [
        (make_state(size=9), "of params/kernel it has float32[8], the config asks for float32[9]"),
        (make_state()._replace(ema={"bias": jnp.zeros(3)}), "of ema/bias it has nothing, the config asks for"),
        (make_state()._replace(opt_state=()), "the config asks for nothing"),
    ],
    ids=["shape", "missing", "surplus"],
)
def test_one_of_another_model_is_refused(tmp_path, like, told):
    with opened(tmp_path, writes=True) as checkpoints:
        checkpoints.save(make_state(1))
    with opened(tmp_path) as checkpoints, pytest.raises(UsageError, match="of another model") as refused:
        checkpoints.restore(shapes(like))
    assert told in str(refused.value)


FILLS_THE_DISK = """
import sys, pathlib
import test_train_checkpoint as t
from mbt.train.errors import RunError
workdir = pathlib.Path(sys.argv[1])
try:
    with t.opened(workdir, writes=True) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(t.random_state(step))
except RunError as error:
    print(error)
with t.opened(workdir) as checkpoints:
    latest = checkpoints.latest()
    t.jax.block_until_ready(checkpoints.restore(t.shapes(t.random_state(1))))
    print(latest)
"""


def random_state(step: int) -> State:
    """Of 2 MiB, which do not compress."""
    kernel = np.random.default_rng(step).integers(0, 2**16, 2**20, np.uint16)
    return make_state(step)._replace(params={"kernel": jnp.asarray(kernel)})


@pytest.fixture(scope="module")
def small_disk() -> tuple[str, ...]:
    """What puts a program's arguments before an own file system of 5 MiB at the folder that is named last."""
    mount = 'for last; do :; done; mount -t tmpfs -o size=5m tmpfs "$last" && exec "$@"'
    words = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    probe = 'for last; do :; done; mount -t tmpfs -o size=5m tmpfs "$last"'
    if not shutil.which("unshare") or subprocess.run([*words[:6], probe, "sh", "/mnt"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return words


def test_a_full_disk_is_told_in_one_line_and_what_is_whole_stays(tmp_path, small_disk):
    ended = run_python(FILLS_THE_DISK, tmp_path, before=small_disk)
    assert ended.returncode == 0, ended.stderr
    told, latest = ended.stdout.splitlines()
    assert told == f"a checkpoint in {tmp_path}/checkpoints cannot be written: No space left on device"
    assert latest in ("1", "2")
