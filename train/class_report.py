"""Scores of each class as CSV: a row a class, in the order of the labels."""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from mbt.train.errors import UsageError
from mbt.train.scores import ClassScores
from mbt.train.workdir import write_text

COLUMNS = ("index", "label", "positives", "ap", "auc")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassReport:
    """What the file holds.

    Attributes:
      labels: names of the K classes.
      scores: of each class.
    """

    labels: tuple[str, ...]
    scores: ClassScores

    @property
    def left_out(self) -> list[str]:
        """Names of the classes without positives."""
        return [label for label, count in zip(self.labels, self.scores.positives, strict=True) if not count]


def write(path: pathlib.Path, report: ClassReport) -> None:
    """Writes the file; a score that a class does not have is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    scores = report.scores
    for index, label in enumerate(report.labels):
        cells = (_cell(scores.average_precision[index]), _cell(scores.auc[index]))
        writer.writerow((index, label, int(scores.positives[index]), *cells))
    write_text(path, text.getvalue())


def read(path: pathlib.Path) -> ClassReport:
    """Reads the file.

    Raises:
      UsageError: it cannot be read, or is another.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != COLUMNS or not rows:
            raise ValueError(f"its first line is not {','.join(COLUMNS)}, or it has no other")
        _, labels, positives, precisions, aucs = zip(*rows, strict=True)
        scores = ClassScores(
            positives=np.array(positives, np.int64), average_precision=_numbers(precisions), auc=_numbers(aucs)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: not the scores by class that `mbt-train evaluate` writes: {error}") from error
    return ClassReport(labels=labels, scores=scores)


def _cell(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.6f}"


def _numbers(cells: Sequence[str]) -> np.ndarray:
    return np.array([float(cell) if cell else math.nan for cell in cells])
