"""Evaluating a run. Everything that can be wrong is found before TensorFlow and JAX are loaded."""

import contextlib
import pathlib
import sys

from ml_collections import ConfigDict

from mbt.schemas.manifest import Manifest
from mbt.train import clips as clips_lib
from mbt.train import preflight
from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError
from mbt.train.snapshot import Records, load_manifest, open_records

EVALUATIONS_FOLDER = "evaluations"


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
    dataset = preflight.identify(config.data.root, manifest)
    preflight.check_dataset(config, dataset, config.data.root, same_snapshot=False)
    records = open_records(config, manifest, "--split", split)
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


def _evaluate(config: ConfigDict, workdir: pathlib.Path, records: Records, views: int) -> dict:
    from mbt.train import checkpoint, sharding, step
    from mbt.train.evaluate import Evaluator

    with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
        if checkpoints.latest() is None:
            raise UsageError(f"--workdir={workdir}: no checkpoint there yet")
        mesh = sharding.make_eval_mesh(config)
        state = checkpoints.restore(step.state_shapes(config, mesh))
    return {"step": int(state.step)} | Evaluator(config, records, views, mesh)(state)
