"""The commands of `mbt-train`. Everything that can be wrong is found before TensorFlow and JAX are loaded."""

import contextlib
import pathlib
import sys

from ml_collections import ConfigDict

from mbt.schemas.manifest import Manifest
from mbt.train import clips as clips_lib
from mbt.train import config as config_lib
from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError
from mbt.train.snapshot import Records, find_split, load_manifest

EVALUATIONS_FOLDER = "evaluations"


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
    train_records = _records(config, manifest, "config.data.train_split", config.data.train_split)
    eval_records = None
    if config.data.eval_split:
        eval_records = _records(config, manifest, "config.data.eval_split", config.data.eval_split)
    if old is None and config.init.vit:
        _refuse_unfit_weights(config)
    with workdir_lib.locked(workdir):
        workdir_lib.write_config(workdir, config)
        result = _run(config, workdir, train_records, eval_records)
        workdir_lib.write_json(workdir / workdir_lib.RESULT_FILE, result)
    return result


def evaluate(
    workdir: pathlib.Path,
    *,
    split: str | None,
    views: int | None,
    root: str | None,
    clips: pathlib.Path | None = None,
    allow_missing: bool = False,
) -> dict:
    """Evaluates the newest checkpoint of a run on a split, or on some clips of it.

    Args:
      workdir: of the run.
      split: its `config.data.eval_split` by default.
      views: its `config.data.views` by default.
      root: folder of the dataset, where it is no longer where the run found it.
      clips: a list of the clips to evaluate on; all of the split by default.
      allow_missing: whether clips of the list may be missing from the snapshot.

    Returns:
      The scores, which are also in the folder `evaluations`.
    """
    config = workdir_lib.read_config(workdir)
    if config is None:
        raise UsageError(f"--workdir={workdir}: no run there; `mbt-train train --workdir={workdir}` makes one")
    if views is not None and views < 1:
        raise UsageError(f"--views={views}: must be positive")
    config.data.root = root or config.data.root
    split, views = split or config.data.eval_split, views or config.data.views
    manifest = load_manifest(config.data.root, config.data.snapshot)
    records = _records(config, manifest, "--split", split)
    result = {"workdir": str(workdir), "snapshot": manifest.snapshot, "split": split, "views": views}
    file_name = f"{split}-{views}views"
    if clips is not None:
        clip_list = clips_lib.read_list(clips, split)
        records = _chosen(config, manifest, clip_list, allow_missing)
        result |= {"clips_sha256": clip_list.sha256, "missing": len(records.missing)}
        file_name += f"-{clip_list.sha256[:12]}"
    result |= _evaluate(config, workdir, records, views)
    folder = workdir / EVALUATIONS_FOLDER
    folder.mkdir(exist_ok=True)
    workdir_lib.write_json(folder / f"{file_name}.json", result)
    return result


def _refuse_unfit_weights(config: ConfigDict) -> None:
    """Before the workdir has a config that a corrected one would not agree with."""
    from mbt.train.step import init_state

    init_state(config)


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


def _records(config: ConfigDict, manifest: Manifest, key: str, name: str) -> Records:
    records = Records(config.data.root, find_split(manifest, key, name))
    records.check_files()
    if len(manifest.labels) > config.model.num_classes:
        raise UsageError(
            f"snapshot {manifest.snapshot} has {len(manifest.labels)} labels, "
            f"config.model.num_classes is {config.model.num_classes}"
        )
    return records


def _chosen(
    config: ConfigDict, manifest: Manifest, clips: clips_lib.ClipList, allow_missing: bool
) -> clips_lib.ChosenRecords:
    records = clips_lib.ChosenRecords(config.data.root, manifest.splits[clips.split], clips.ids)
    found = f"{len(records)} of the {len(clips.ids)} clips of split {clips.split} are in snapshot {manifest.snapshot}"
    print(f"--clips={clips.path}: {found}", file=sys.stderr)
    if not len(records) or (records.missing and not allow_missing):
        hint = "" if not len(records) else "; --allow_missing evaluates on the others"
        raise UsageError(f"--clips={clips.path}: {found}; {records.missing[0]!r} is not{hint}")
    return records


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


def _evaluate(config: ConfigDict, workdir: pathlib.Path, records: Records, views: int) -> dict:
    from mbt.train import checkpoint, step
    from mbt.train.evaluate import Evaluator

    with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
        if checkpoints.latest() is None:
            raise UsageError(f"--workdir={workdir}: no checkpoint there yet")
        state = checkpoints.restore(step.state_shapes(config))
    return {"step": int(state.step)} | Evaluator(config, records, views)(state)
