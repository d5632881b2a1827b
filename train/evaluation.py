"""Evaluating a run. Everything that can be wrong is found before TensorFlow and JAX are loaded."""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from mbt.schemas import durable
from mbt.schemas.manifest import Manifest
from mbt.train import class_order, class_report, preflight, scores, storage
from mbt.train import clips as clips_lib
from mbt.train import labels as labels_lib
from mbt.train import workdir as workdir_lib
from mbt.train.comparison import EVALUATIONS_FOLDER
from mbt.train.errors import RunError, UsageError
from mbt.train.rendezvous import Processes
from mbt.train.snapshot import Records, load_manifest, open_records

if TYPE_CHECKING:
    from mbt.train.evaluate import Predictions

NAMED = 5
# Of a checkpoint that was imported: nothing was trained here that could have gone wrong.
OTHER_ORDER = (
    "the clips of most classes are known, but each under the number of another class: the classes of the checkpoint "
    "stand in another order than the dataset's"
)


def evaluate(
    workdir: pathlib.Path,
    *,
    split: str | None,
    views: int | None,
    root: str | None,
    clips: pathlib.Path | None = None,
    allow_missing: bool = False,
    best: bool = False,
    processes: Processes | None = None,
    tell: Callable[[dict], None] = lambda scores: None,
) -> dict:
    """Evaluates a checkpoint of a run on a split, or on some clips of it.

    Args:
      workdir: of the run.
      split: its `config.data.eval_split` by default.
      views: its `config.data.views` by default.
      root: folder of the dataset, where it is no longer where the run found it.
      clips: a list of the clips to evaluate on; all of the split by default.
      allow_missing: whether clips of the list may be missing from the snapshot.
      best: the checkpoint with the best score, not the newest.
      processes: how this one finds the others that evaluate with it; None where there are no others.
      tell: takes the scores before anything is written: a full disk must not keep them back.

    Returns:
      The scores, which are also in the folder `evaluations`, and beside them those of each class; only of the first
      process.
    """
    config = workdir_lib.read_run(workdir)
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
    if best:
        file_name += "-best"
    workdir_lib.check_writable(workdir / EVALUATIONS_FOLDER)
    with _joined(processes, f"{manifest.snapshot}/{file_name}"):
        step, predictions = _predictions(config, workdir, records, views, best)
        heads = tuple(config.model.head_sizes)
        result |= {"step": step, "damaged": len(records) - len(predictions.records)}
        result |= scores.summarize(predictions.logits, predictions.labels, loss=config.loss.name, heads=heads)
        report = _by_class(config, manifest, predictions)
        if not _is_first():
            return {}
        try:
            tell(result)
        finally:  # a pipe that is closed must not keep the files back, as a full disk must not keep back the scores
            _write(workdir / EVALUATIONS_FOLDER, file_name, result, report)
        for line in _remarks(config, manifest, split, report):
            print(line, file=sys.stderr)
        if step == 0 and class_order.is_another(predictions.logits, predictions.labels):
            print(OTHER_ORDER, file=sys.stderr)
        return result


def _joined(processes: Processes | None, asked: str) -> contextlib.AbstractContextManager:
    """With the processes that evaluate, which must all have been asked the same."""
    if processes is None:
        return contextlib.nullcontext()
    import jax

    from mbt.train import distributed

    jax.config.update("jax_enable_preemption_service", False)  # nothing is saved: SIGTERM ends the process
    return distributed.joined(processes, run=asked)


def _is_first() -> bool:
    """Of several processes the first reports."""
    import jax

    return jax.process_index() == 0


def _write(folder: pathlib.Path, file_name: str, result: dict, report: class_report.ClassReport) -> None:
    try:
        durable.make_folder(folder)
        class_report.write(folder / f"{file_name}.csv", report)
        workdir_lib.write_json(folder / f"{file_name}.json", result)
    except OSError as error:
        raise RunError(f"{folder}: the scores, which are told, cannot be written: {error.strerror}") from error


def _by_class(config: ConfigDict, manifest: Manifest, predictions: "Predictions") -> class_report.ClassReport:
    ranked = scores.ranked(predictions.logits, config.loss.name, tuple(config.model.head_sizes))
    labels = labels_lib.of_classes(manifest.labels, config.model.num_classes)
    return class_report.ClassReport(labels=labels, scores=scores.score_classes(ranked, predictions.labels))


def _remarks(config: ConfigDict, manifest: Manifest, split: str, report: class_report.ClassReport) -> Iterator[str]:
    """What the scores do not say of themselves."""
    if report.left_out:
        yield _left_out(report, split)
    if untrained := _untrained(config, manifest, report):
        yield (
            f"{len(untrained)} of the classes that split {split} has clips of have no clip in split "
            f"{config.data.train_split}: {_some(untrained)}"
        )


def _untrained(config: ConfigDict, manifest: Manifest, report: class_report.ClassReport) -> list[str]:
    """Classes that are asked of the model and that it was never shown.

    None where that cannot be told, or not cheaply: of a dataset in an object store, or without the split's indices.
    """
    split = manifest.splits.get(config.data.train_split)
    if split is None or not split.num_records or storage.is_remote(config.data.root):
        return []
    try:
        _, labels = Records(config.data.root, split).label_pairs()
    except (RunError, OSError):
        return []
    shown = np.bincount(labels, minlength=len(report.labels)) > 0
    return [
        label
        for label, is_shown, count in zip(report.labels, shown, report.scores.positives, strict=False)
        if count and not is_shown
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _left_out(report: class_report.ClassReport, split: str) -> str:
    of_all = f"{len(report.left_out)} of the {len(report.labels)} classes"
    return f"{of_all} have no clip among those of split {split} and are in no mean: {_some(report.left_out)}"


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


def _predictions(
    config: ConfigDict, workdir: pathlib.Path, records: Records, views: int, best: bool
) -> tuple[int, "Predictions"]:
    """The step of a checkpoint, and what it says of the clips."""
    from mbt.train import sharding
    from mbt.train.checkpoint import restored
    from mbt.train.evaluate import Evaluator

    mesh = sharding.make_eval_mesh()
    state = restored(workdir, config, mesh, best=best)
    return int(state.step), Evaluator(config, records, views, mesh).predict(state)
