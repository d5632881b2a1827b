"""Training a run. Everything that can be wrong is found before anything is compiled."""

import contextlib
import copy
import hashlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

from ml_collections import ConfigDict

from mbt.schemas.clip import MEL_BINS
from mbt.schemas.manifest import Manifest
from mbt.train import config as config_lib
from mbt.train import labels as labels_lib
from mbt.train import preflight, source_run
from mbt.train import workdir as workdir_lib
from mbt.train.clips import open_share
from mbt.train.modalities import SPECTROGRAM
from mbt.train.profile import Steps
from mbt.train.rendezvous import Processes
from mbt.train.resuming import resumed
from mbt.train.snapshot import Records, find_split, load_manifest, open_records

FEW_CLIPS = 10_000


def train(
    config_name: str,
    overrides: list[str],
    workdir: pathlib.Path,
    *,
    profile: Steps | None = None,
    processes: Processes | None = None,
    tell: Callable[[dict], None] = lambda result: None,
) -> dict:
    """Trains, or goes on with a run that was stopped; a finished run is only reported.

    Args:
      config_name: path or name of a config.
      overrides: `--config.KEY=VALUE` flags.
      workdir: of the run.
      profile: steps to trace.
      processes: how this one finds the others that train with it; None where there are no others.
      tell: takes the result before it is written: a full disk must not keep it back.

    Returns:
      The result, which is also in `result.json`; only of the first process.
    """
    given = config_lib.load_config(config_name, overrides)
    config_lib.check_types(given)
    old = workdir_lib.read_config(workdir)
    if old is not None:
        given = resumed(config_name, given, old)
    config_lib.check(given)
    preflight.check_best(given)
    manifest = _manifest_for(given, old)
    find_split(manifest, "config.data.train_split", given.data.train_split)
    if old is None:
        config_lib.check_effects(given)
    config = config_lib.resolve(given, manifest)
    config_lib.model_config(config)  # refuses a model that cannot be
    if old is None and config.init.source:
        config.init.source = source_run.frozen(config.init.source)
    preflight.freeze_dataset(config, manifest)
    if old is not None:
        preflight.check_dataset(old, config.dataset, config.data.root, same_snapshot=True)
        _tell_purged(old, config, manifest)
        workdir_lib.check_same_run(workdir, old, config)
    if old is not None and (result := workdir_lib.read_result(workdir)):
        print(f"{workdir}: already trained; delete it or give another --workdir to train again", file=sys.stderr)
        tell(result)
        return result
    if old is not None:
        _tell_mended(workdir, old)
    train_records = _training_records(config, manifest)
    eval_records = None
    if config.data.eval_split:
        eval_records = open_records(config, manifest, "config.data.eval_split", config.data.eval_split)
    import mbt.train.loop  # noqa: F401  it takes long, and who has joined must show signs of life

    with _joined(processes, config, workdir):
        _check_machine(config, workdir, fresh=old is None)
        with _held(workdir, config, manifest.labels):
            if old is None:
                _hint(config, overrides, len(train_records))
            result = _run(config, workdir, train_records, eval_records, profile)
            if result:
                try:
                    tell(result)
                finally:  # nor must a pipe that is closed
                    workdir_lib.write_json(workdir / workdir_lib.RESULT_FILE, result)
            return result


def _tell_mended(workdir: pathlib.Path, old: ConfigDict) -> None:
    """Says once what this version computes otherwise than the one that began the run; nobody wants a fault back."""
    if not workdir_lib.began_without(workdir, "optim.clip"):
        return
    mended = {
        "weight decay spares the biases of queries, keys and values": old.optim.name == "adamw"
        and old.optim.weight_decay > 0,
        "the moving average gives the parameters at the start no part": old.optim.ema > 0,
        "one view of a clip is its middle, not its beginning": old.data.views == 1,
    }
    for what in (what for what, concerns in mended.items() if concerns):
        print(f"this run was begun with an older version; from here on {what}", file=sys.stderr)


def _tell_purged(old: ConfigDict, config: ConfigDict, manifest: Manifest) -> None:
    """Says that the dataset has lost records since the run began, where it has."""
    if "dataset" in old and old.dataset.amendments != config.dataset.amendments:
        left = manifest.splits[config.data.train_split].num_records
        print(
            f"clips were purged from the dataset since this run last wrote; it goes on with the {left} training clips "
            "that are left, in another order",
            file=sys.stderr,
        )


def _training_records(config: ConfigDict, manifest: Manifest) -> Records:
    records = open_records(config, manifest, "config.data.train_split", config.data.train_split)
    if config.data.share < 1:
        return open_share(config.data.root, manifest.splits[config.data.train_split], config.data.share)
    return records


def _hint(config: ConfigDict, overrides: Sequence[str], clips: int) -> None:
    """What a new run from nothing on few clips should know, unless its command names the patches itself."""
    import jax

    square = SPECTROGRAM in config.modalities and config.model.spectrogram_patch[-1] < MEL_BINS
    chosen = any(word.startswith("--config.model.spectrogram_patch") for word in overrides)
    starts = config.init.vit or config.init.source
    if square and not chosen and not starts and clips < FEW_CLIPS and jax.process_index() == 0:
        print(
            f"{clips} training clips and no weights to start from: from so few, real sounds are learned far faster "
            f"with patches over the whole band, --config.model.spectrogram_patch='(8, {MEL_BINS})'",
            file=sys.stderr,
        )


def _joined(
    processes: Processes | None, config: ConfigDict, workdir: pathlib.Path
) -> contextlib.AbstractContextManager:
    """With the processes of the run, which must all have been started with the same command and dataset."""
    if processes is None:
        return contextlib.nullcontext()
    from mbt.train import distributed

    same = copy.deepcopy(config)  # ConfigDict() would share what is nested
    same.data.root = ""  # may be mounted elsewhere
    digest = hashlib.sha256(config_lib.to_json(same).encode()).hexdigest()
    return distributed.joined(processes, run=digest, advice=lambda: _to_go_on(workdir))


def _to_go_on(workdir: pathlib.Path) -> str:
    """What to do after a process was lost."""
    steps = workdir_lib.checkpoint_steps(workdir)
    if not steps:
        return "there is no checkpoint yet, and the same command begins again"
    return f"the same command goes on from the checkpoint of step {steps[-1]}"


def _check_machine(config: ConfigDict, workdir: pathlib.Path, *, fresh: bool) -> None:
    """Before the workdir has a config that a corrected one would not agree with."""
    import jax

    from mbt.train.checkpoint import KEPT
    from mbt.train.init_source import first_state
    from mbt.train.sharding import make_mesh
    from mbt.train.step import state_shapes

    preflight.check_attention(config)
    mesh = make_mesh(config)
    shapes = state_shapes(config, mesh)
    if jax.process_index() == 0:
        workdir_lib.check_writable(workdir)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        preflight.check_space(workdir / workdir_lib.CHECKPOINTS_FOLDER, size, kept=KEPT + 1 + bool(config.train.best))
    if fresh and (config.init.vit or config.init.source):
        first_state(config, mesh)  # refuses weights that do not fit


@contextlib.contextmanager
def _held(workdir: pathlib.Path, config: ConfigDict, labels: Sequence[str]) -> Iterator[None]:
    """The workdir with its config and the names of its classes, held by the first process for all."""
    import jax

    if jax.process_index() > 0:
        yield
        return
    with workdir_lib.locked(workdir):
        workdir_lib.write_config(workdir, config)
        labels_lib.freeze(workdir, labels)
        yield


def _manifest_for(given: ConfigDict, old: ConfigDict | None) -> Manifest:
    """The snapshot asked for; for a run that goes on, "latest" is the one that it began with."""
    name = given.data.snapshot
    if old is None or name != "latest":
        return load_manifest(given.data.root, name)
    latest = load_manifest(given.data.root, "latest").snapshot
    if latest != old.data.snapshot:
        print(
            f"this run goes on with snapshot {old.data.snapshot}; to train on {latest}, give another --workdir",
            file=sys.stderr,
        )
    return load_manifest(given.data.root, old.data.snapshot)


def _run(
    config: ConfigDict,
    workdir: pathlib.Path,
    train_records: Records,
    eval_records: Records | None,
    profile: Steps | None,
) -> dict:
    import jax

    from mbt.train import loop

    state = loop.run(config, workdir, train_records, eval_records, profile)
    if jax.process_index() > 0:
        return {}
    return _result(config, workdir, sum(value.size for value in jax.tree.leaves(state.params)))


def _result(config: ConfigDict, workdir: pathlib.Path, parameters: int) -> dict:
    from mbt.train import metrics

    lines = metrics.read_lines(workdir / metrics.METRICS_FILE)
    seconds = sum(line["seconds"] for line in metrics.read_lines(workdir / metrics.TIMES_FILE))
    result = {
        "workdir": str(workdir),
        "snapshot": config.data.snapshot,
        "modalities": list(config.modalities),
        "parameters": parameters,
        "steps": config.train.steps,
        "seconds": seconds,
    }
    if values := _last(lines, "train"):
        result["loss"] = values["loss"]
    if config.data.eval_split:
        result |= {"split": config.data.eval_split, "views": config.data.views} | _last(lines, "eval")
    return result


def _last(lines: list[dict], kind: str) -> dict:
    """The last line of a kind, without its kind and step; nothing where somebody took it away."""
    found = [line for line in lines if line.get("kind") == kind]
    if not found:
        print(f"metrics.jsonl has no line of kind {kind} any more, and the result none of its numbers", file=sys.stderr)
        return {}
    return {name: value for name, value in found[-1].items() if name not in ("kind", "step")}
