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

from mbt.train import digests
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
            checkpoints.save(make_state(step))
            if step in scores:
                checkpoints.note(step, {"map": scores[step], "clips": 4})
    assert steps(tmp_path) == {6, 12, 13}
    with opened(tmp_path, best="map") as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (13, 6)
        assert int(checkpoints.restore(shapes(make_state()), checkpoints.best()).step) == 6
    with opened(tmp_path, writes=True, best="map") as checkpoints:  # the score is known to the next process too
        checkpoints.save(make_state(14))
        checkpoints.note(14, {"map": 0.5})
    assert steps(tmp_path) == {6, 13, 14}


def test_a_checkpoint_is_on_the_disk_and_so_are_the_folders_above(tmp_path, disk_calls):
    with opened(tmp_path / "run", writes=True) as checkpoints:
        checkpoints.save(make_state(1))
    assert [name for call, name in disk_calls if call == "flush"][-3:] == ["1", "checkpoints", "run"]


def test_without_a_score_the_last_two_are_kept(tmp_path):
    with opened(tmp_path, writes=True) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(make_state(step))
            checkpoints.note(step, {"map": 1 / step})
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


def test_a_flipped_bit_is_never_restored(tmp_path):
    with opened(tmp_path, writes=True) as checkpoints:
        checkpoints.save(random_state(1))
    draw = np.random.default_rng(0)
    files = sorted(path for path in (tmp_path / "checkpoints" / "1" / "default").rglob("*") if path.is_file())
    files = [path for path in files if path.name != "commit_success.txt"]  # nothing is read from it
    sizes = np.array([path.stat().st_size for path in files])
    # Each file once, and others by their sizes: nearly all of the bytes are the arrays'.
    chosen = [*range(len(files)), *draw.choice(len(files), 40 - len(files), p=sizes / sizes.sum())]
    for number in chosen:
        data = bytearray(files[number].read_bytes())
        place = int(draw.integers(8 * len(data)))
        data[place // 8] ^= 1 << place % 8
        whole = files[number].read_bytes()
        files[number].write_bytes(data)
        with opened(tmp_path) as checkpoints, pytest.raises(UsageError, match="is damaged"):
            checkpoints.restore(shapes(random_state(1)))
        files[number].write_bytes(whole)
    with opened(tmp_path) as checkpoints:
        assert int(checkpoints.restore(shapes(random_state(1))).step) == 1


def test_one_of_a_version_that_noted_no_digests_is_restored(tmp_path):
    with opened(tmp_path, writes=True) as checkpoints:
        checkpoints.save(make_state(3))
    (tmp_path / "checkpoints" / "3" / "default" / digests.FILE).unlink()
    with opened(tmp_path) as checkpoints:
        assert int(checkpoints.restore(shapes(make_state())).step) == 3


NOT_READ = (digests.FILE, "_CHECKPOINT_METADATA", "commit_success.txt")


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


AGAIN = ("the run begins again", "no checkpoint there yet")


def told_of(workdir: pathlib.Path) -> str:
    """Why a checkpoint is not restored; "" where it is, to the right numbers."""
    try:
        with opened(workdir) as checkpoints:
            found = checkpoints.restore(shapes(make_state()))
    except UsageError as error:
        return str(error)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), found, make_state(1)))
    return ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("spoil", [pathlib.Path.unlink, empty, lambda path: path.write_bytes(b"null")])
def test_any_file_that_is_missing_empty_or_another_is_told_in_one_line(tmp_path, spoil):
    with opened(tmp_path / "whole", writes=True) as checkpoints:
        checkpoints.save(make_state(1))
    names = sorted(path.relative_to(tmp_path) for path in (tmp_path / "whole").rglob("*") if path.is_file())
    for without_digests in (False, True):
        for name in (name for name in names if name.name not in NOT_READ):
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            shutil.copytree(tmp_path / "whole", tmp_path / "copy")
            folder = tmp_path / "copy" / "checkpoints" / "1"
            if without_digests:
                (folder / "default" / digests.FILE).unlink()
            spoil(tmp_path / "copy" / name.relative_to("whole"))
            told = told_of(tmp_path / "copy")
            # A file that nothing is read from counts for nothing, where nobody noted what it was.
            assert "\n" not in told and (told.endswith(AGAIN) or (without_digests and not told))
            gc.collect()
