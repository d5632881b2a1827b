"""Naming clips that are in no dataset. What can be wrong with the command is found before JAX is loaded."""

import functools
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
from mbt.train.snapshot import Records, load_manifest

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
      best: the checkpoint with the best score, not the newest.

    Returns:
      Each clip, and what is said of it or why nothing can be.

    Raises:
      UsageError: something is wrong with the command or the run.
    """
    _check(clips, start_s, end_s, count, rollout)
    span_us = (round(start_s * MICROSECONDS), None if end_s is None else round(end_s * MICROSECONDS))
    asked = _Asked(workdir, *_run(workdir, root), span_us, count, rollout, best)
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
    config = workdir_lib.read_run(workdir)
    if not any((workdir / "checkpoints").glob("[0-9]*")):
        raise UsageError(f"--workdir={workdir}: no checkpoint there yet")
    labels = labels_lib.read(workdir)
    if labels is None:
        config.data.root = root or config.data.root
        labels = load_manifest(config.data.root, config.data.snapshot).labels
        labels_lib.freeze(workdir, labels)
    return config, labels_lib.of_classes(labels, config.model.num_classes)


class _Asked:
    """A run that is asked about clips; its model is loaded for the first one that can be read."""

    def __init__(  # noqa: PLR0917
        self,
        workdir: pathlib.Path,
        config: ConfigDict,
        labels: Sequence[str],
        span_us: tuple[int, int | None],
        count: int,
        rollout: pathlib.Path | None,
        best: bool,
    ):
        self._workdir = workdir
        self._config = config
        self._labels = labels
        self._span_us = span_us
        self._count = count
        self._rollout = rollout
        self._best = best

    def answer(self, clip: str) -> dict | MediaError:
        """What is said of a clip, or why nothing can be."""
        heads = tuple(self._config.model.head_sizes)
        with tempfile.TemporaryDirectory(prefix="mbt-predict-") as folder:
            try:
                split = media.write_clip(
                    clip, self._span_us, _any_labels(heads), pathlib.Path(folder), tuple(self._config.modalities)
                )
            except MediaError as error:
                return error
            records = Records(folder, split)
            logits = self._predictor.logits(records)
            if self._rollout:
                self._predictor.draw_rollout(records, self._rollout)
        start_s = self._span_us[0] / MICROSECONDS
        said = {"clip": clip, "start": start_s, "end": start_s + split.seconds, "step": int(self._predictor.state.step)}
        loss = self._config.loss.name
        return said | best_classes(logits, self._labels, loss=loss, heads=heads, count=self._count)

    @functools.cached_property
    def _predictor(self) -> "Predictor":
        from mbt.train.predictor import Predictor

        return Predictor(self._config, self._workdir, best=self._best)


def _any_labels(heads: Sequence[int]) -> list[int]:
    """The first class of each head: a loader wants one, and here nothing reads it."""
    return [sum(heads[:number]) for number in range(max(1, len(heads)))]
