"""Naming clips that are in no dataset. What can be wrong with the command is found before JAX is loaded."""

import functools
import itertools
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from mbt.schemas.clip import MICROSECONDS
from mbt.train import labels as labels_lib
from mbt.train import media
from mbt.train import workdir as workdir_lib
from mbt.train.answers import best_classes
from mbt.train.errors import UsageError
from mbt.train.media import MediaError
from mbt.train.modalities import RGB, SPECTROGRAM
from mbt.train.rules import value_of
from mbt.train.snapshot import Records, load_manifest

# What two runs that are drawn side by side must share: where the windows of a clip lie, and how many labels it has.
IN_COMMON = (
    *(f"data.{key}" for key in ("seconds", "frames", "stride", "alignment", "short", "views")),
    "model.head_sizes",
)

if TYPE_CHECKING:
    from mbt.train.predictor import Predictor


def predict(
    workdir: pathlib.Path,
    clips: Sequence[str],
    *,
    start_s: float,
    end_s: float | None,
    count: int,
    root: str | None,
    rollout: pathlib.Path | None,
    beside: pathlib.Path | None = None,
    best: bool = False,
) -> Iterator[tuple[str, dict | MediaError]]:
    """Asks a checkpoint of a run about clips, one after the other.

    A clip goes the way of a clip of a dataset: the pipeline's decoder makes a record of it, and the loader of
    evaluation reads that.

    Args:
      workdir: of the run.
      clips: paths or http(s) URLs.
      start_s: where they begin, in seconds.
      end_s: where they end; None for the end of the media.
      count: how many classes of each to name.
      root: folder of the dataset, where it is no longer where the run found it; used only for the names of classes.
      rollout: picture to draw of the one clip.
      beside: workdir of another run, which is drawn beside it.
      best: the checkpoint with the best score, not the newest.

    Returns:
      Each clip, and what is said of it or why nothing can be.

    Raises:
      UsageError: something is wrong with the command or the run.
    """
    _check(clips, start_s, end_s, count, rollout)
    if beside and not rollout:
        raise UsageError(f"--beside={beside}: is for a picture; add --rollout=PNG")
    span_us = (round(start_s * MICROSECONDS), None if end_s is None else round(end_s * MICROSECONDS))
    config, labels = _run(workdir, root)
    runs = {workdir: config}
    if beside:
        runs[beside] = _other(beside, workdir, config, best=best)
    asked = _Asked(runs, labels, span_us=span_us, count=count, rollout=rollout, best=best)
    media.program()
    return ((clip, asked.answer(clip)) for clip in clips)


def _check(clips: Sequence[str], start_s: float, end_s: float | None, count: int, rollout: pathlib.Path | None) -> None:
    if not 0 <= start_s < math.inf:
        raise UsageError(f"--start={start_s:g}: must be 0 or more")
    if end_s is not None and not 0 < end_s - start_s <= media.LONGEST_S:
        raise UsageError(f"--end={end_s:g}: must be after --start, by {media.LONGEST_S:.0f} s at most")
    if count < 1:
        raise UsageError(f"--top={count}: must be positive")
    if rollout and len(clips) > 1:
        raise UsageError(f"--rollout={rollout}: is of one clip, and {len(clips)} are given")
    if rollout and not rollout.absolute().parent.is_dir():
        raise UsageError(f"--rollout={rollout}: its folder does not exist")
    if rollout and (rollout.is_dir() or not os.access(rollout if rollout.exists() else rollout.parent, os.W_OK)):
        raise UsageError(f"--rollout={rollout}: cannot be written")


def _run(workdir: pathlib.Path, root: str | None) -> tuple[ConfigDict, tuple[str, ...]]:
    """A run's config and the names of its classes."""
    config = _config(workdir, "--workdir")
    labels = labels_lib.read(workdir)
    if labels is None:
        config.data.root = root or config.data.root
        labels = load_manifest(config.data.root, config.data.snapshot).labels
        labels_lib.freeze(workdir, labels)
    return config, labels_lib.of_classes(labels, config.model.num_classes)


def _config(workdir: pathlib.Path, flag: str) -> ConfigDict:
    """The config of a run that has a checkpoint."""
    config = workdir_lib.read_run(workdir, flag)
    if not workdir_lib.checkpoint_steps(workdir):
        raise UsageError(f"{flag}={workdir}: no checkpoint there yet")
    return config


def _other(beside: pathlib.Path, workdir: pathlib.Path, config: ConfigDict, *, best: bool) -> ConfigDict:
    """The config of a run that is drawn beside the one in `workdir`, which has another config.

    Raises:
      UsageError: there is none, or both cannot be drawn beside each other.
    """
    if beside.resolve() == workdir.resolve():
        raise UsageError(f"--beside={beside}: is the run of --workdir; give another")
    other = _config(beside, "--beside")
    if best and not other.train.best:
        raise UsageError(f"--best: the run in {beside} kept none; config.train.best names the score to keep it by")
    if differing := [key for key in IN_COMMON if value_of(config, key) != value_of(other, key)]:
        values = ", ".join(f"{key} is {value_of(other, key)}, not {value_of(config, key)}" for key in differing)
        raise UsageError(f"--beside={beside}: must look at the same windows and have the same heads: {values}")
    return other


class _Asked:
    """Runs that are asked about clips; their models are loaded for the first one that can be read."""

    def __init__(
        self,
        runs: dict[pathlib.Path, ConfigDict],
        labels: Sequence[str],
        *,
        span_us: tuple[int, int | None],
        count: int,
        rollout: pathlib.Path | None,
        best: bool,
    ):
        self._runs = runs
        self._config = next(iter(runs.values()))
        self._labels = labels
        self._span_us = span_us
        self._count = count
        self._rollout = rollout
        self._best = best

    def answer(self, clip: str) -> dict | MediaError:
        """What is said of a clip, or why nothing can be."""
        heads = tuple(self._config.model.head_sizes)
        used = {name for config in self._runs.values() for name in config.modalities}
        modalities = tuple(name for name in (RGB, SPECTROGRAM) if name in used)
        with tempfile.TemporaryDirectory(prefix="mbt-predict-") as folder:
            try:
                split = media.write_clip(clip, self._span_us, _any_labels(heads), pathlib.Path(folder), modalities)
            except MediaError as error:
                return error
            records = Records(folder, split)
            logits = self._predictors[0].logits(records)
            if self._rollout:
                self._draw(records, self._rollout)
        start_s = self._span_us[0] / MICROSECONDS
        step = int(self._predictors[0].state.step)
        said = {"clip": clip, "start": start_s, "end": start_s + split.seconds, "step": step}
        loss = self._config.loss.name
        return said | best_classes(logits, self._labels, loss=loss, heads=heads, count=self._count)

    def _draw(self, records: Records, path: pathlib.Path) -> None:
        """Of the views, the one that the first run is the surest of."""
        from mbt.train import overlay

        view, looks = None, []
        for predictor, name in zip(self._predictors, _names(list(self._runs)), strict=True):
            view, look = predictor.look(name, records, view)
            looks.append(look)
        overlay.draw(looks, path)

    @functools.cached_property
    def _predictors(self) -> "list[Predictor]":
        from mbt.train.predictor import Predictor

        return [Predictor(config, workdir, best=self._best) for workdir, config in self._runs.items()]


def _names(workdirs: Sequence[pathlib.Path]) -> list[str]:
    """The ends of paths, as short as they differ."""
    parts = [workdir.resolve().parts for workdir in workdirs]
    count = next(count for count in itertools.count(1) if len({each[-count:] for each in parts}) == len(parts))
    return ["/".join(each[-count:]) for each in parts]


def _any_labels(heads: Sequence[int]) -> list[int]:
    """The first class of each head: a loader wants one, and here nothing reads it."""
    return [sum(heads[:number]) for number in range(max(1, len(heads)))]
