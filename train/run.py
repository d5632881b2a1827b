"""Training a run. Everything that can be wrong is found before TensorFlow and JAX are loaded."""

import pathlib
import sys

from ml_collections import ConfigDict

from mbt.schemas.manifest import Manifest
from mbt.train import config as config_lib
from mbt.train import labels
from mbt.train import workdir as workdir_lib
from mbt.train.snapshot import Records, find_split, load_manifest, open_records


def train(config_name: str, overrides: list[str], workdir: pathlib.Path) -> dict:
    """Trains, or goes on with a run that was stopped; a finished run is only reported.

    Returns:
      The result, which is also in `result.json`.
    """
    given = config_lib.load_config(config_name, overrides)
    config_lib.check(given)
    old = workdir_lib.read_config(workdir)
    manifest = _manifest_for(given, old)
    find_split(manifest, "config.data.train_split", given.data.train_split)
    config = config_lib.resolve(given, manifest)
    config_lib.model_config(config)  # refuses a model that cannot be
    if old is not None:
        workdir_lib.check_same_run(workdir, old, config)
    if old is not None and (result := workdir_lib.read_result(workdir)):
        print(f"{workdir}: already trained; delete it or give another --workdir to train again", file=sys.stderr)
        return result
    train_records = open_records(config, manifest, "config.data.train_split", config.data.train_split)
    eval_records = None
    if config.data.eval_split:
        eval_records = open_records(config, manifest, "config.data.eval_split", config.data.eval_split)
    if old is None and config.init.vit:
        _refuse_unfit_weights(config)
    with workdir_lib.locked(workdir):
        workdir_lib.write_config(workdir, config)
        labels.freeze(workdir, manifest.labels)
        result = _run(config, workdir, train_records, eval_records)
        workdir_lib.write_json(workdir / workdir_lib.RESULT_FILE, result)
    return result


def _refuse_unfit_weights(config: ConfigDict) -> None:
    """Before the workdir has a config that a corrected one would not agree with."""
    from mbt.train.sharding import make_mesh
    from mbt.train.step import init_state

    init_state(config, make_mesh(config))


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


def _run(config: ConfigDict, workdir: pathlib.Path, train_records: Records, eval_records: Records | None) -> dict:
    import jax

    from mbt.train import loop, metrics

    state = loop.run(config, workdir, train_records, eval_records)
    lines = metrics.read_lines(workdir / metrics.METRICS_FILE)
    seconds = sum(line["seconds"] for line in metrics.read_lines(workdir / metrics.TIMES_FILE))
    result = {
        "workdir": str(workdir),
        "snapshot": config.data.snapshot,
        "modalities": list(config.modalities),
        "parameters": sum(value.size for value in jax.tree.leaves(state.params)),
        "steps": config.train.steps,
        "seconds": seconds,
        "loss": _last(lines, "train")["loss"],
    }
    if eval_records:
        result |= {"split": config.data.eval_split, "views": config.data.views} | _last(lines, "eval")
    return result


def _last(lines: list[dict], kind: str) -> dict:
    """The last line of a kind, without its kind and step."""
    line = [line for line in lines if line["kind"] == kind][-1]
    return {name: value for name, value in line.items() if name not in ("kind", "step")}
