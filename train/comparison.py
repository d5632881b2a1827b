"""Several models class by class: which one knows which class, as the paper's Fig. 9 and 10 show it."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from mbt.schemas import paths
from mbt.train import class_report
from mbt.train.class_report import ClassReport
from mbt.train.errors import UsageError

EVALUATIONS_FOLDER = "evaluations"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Average precision of the classes that have positives.

    Attributes:
      names: of the models, two or more.
      labels: of the C classes.
      precisions: (models, C).
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    precisions: np.ndarray

    def best(self, count: int) -> np.ndarray:
        """Classes that the first model knows best."""
        return np.argsort(-self.precisions[0], kind="stable")[:count]

    def gained(self, other: int, count: int) -> np.ndarray:
        """Classes by how far the first model is ahead of another, the greatest lead first."""
        return np.argsort(self.precisions[other] - self.precisions[0], kind="stable")[:count]

    def rows(self) -> list[dict]:
        """A model each: its mean over the classes, and in how many of them the first is ahead of it."""
        ahead = (self.precisions[:1] > self.precisions).sum(axis=1)
        means = self.precisions.mean(axis=1)
        return [
            {"name": name, "map": float(mean), "first_ahead": int(count)}
            for name, mean, count in zip(self.names, means, ahead, strict=True)
        ]


def read(sources: Sequence[str]) -> Comparison:
    """Reads the reports of models that were evaluated on the same clips.

    Args:
      sources: each `NAME=PATH` or a path: of a run's folder with one report, or of a report.

    Raises:
      UsageError: a report is not there, or they are of other classes or clips.
    """
    found = [_find(source) for source in sources]
    names = tuple(name for name, _ in found)
    if len(set(names)) < len(names):
        raise UsageError(f"two of {', '.join(names)} have the same name; give NAME=PATH")
    (first, *others) = [(path, class_report.read(path)) for _, path in found]
    for other in others:
        _check_same(first, other)
    known = first[1].scores.positives > 0
    if not known.any():
        raise UsageError(f"{first[0]}: no class has a positive")
    return Comparison(
        names=names,
        labels=tuple(label for label, there in zip(first[1].labels, known, strict=True) if there),
        precisions=np.array([report.scores.average_precision[known] for _, report in (first, *others)]),
    )


def _find(source: str) -> tuple[str, pathlib.Path]:
    name, equals, given = source.partition("=")
    try:
        path = paths.local(given if equals else source)
    except paths.PathError as error:
        raise UsageError(str(error)) from error
    if path.is_file():
        return name if equals else path.stem, path
    reports = sorted((path / EVALUATIONS_FOLDER).glob("*.csv"))
    if len(reports) != 1:
        hint = f"give one of {', '.join(map(str, reports))}" if reports else "run `mbt-train evaluate` on it first"
        raise UsageError(f"{path}: has {len(reports)} scores by class; {hint}")
    return name if equals else path.absolute().name, reports[0]


def _check_same(first: tuple[pathlib.Path, ClassReport], other: tuple[pathlib.Path, ClassReport]) -> None:
    if first[1].labels != other[1].labels:
        raise UsageError(f"{other[0]}: its classes are not those of {first[0]}")
    if not np.array_equal(first[1].scores.positives, other[1].scores.positives):
        hint = "evaluate both with one --clips=FILE"
        raise UsageError(f"{other[0]}: was evaluated on other clips than {first[0]}; {hint}")


def draw(comparison: Comparison, path: pathlib.Path, count: int) -> None:
    """Writes a PNG: the classes that the first model knows best, and those in which it is furthest ahead of each other.

    Args:
      comparison: of the models.
      path: of the picture.
      count: of classes in each panel.
    """
    from matplotlib.figure import Figure

    names = comparison.names
    panels = [(comparison.best(count), f"highest AP of {names[0]}")]
    for other in range(1, len(names)):
        panels.append((comparison.gained(other, count), f"{names[0]} furthest ahead of {names[other]}"))
    height = 1.2 + 0.22 * min(count, len(comparison.labels))
    figure = Figure(figsize=(5.5 * len(panels), height), layout="constrained")
    for axes, (classes, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, comparison, classes, title)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=110, format="png")


def _draw_panel(axes, comparison: Comparison, classes: np.ndarray, title: str) -> None:
    """Bars of all models, a class a line; long names are cut."""
    thickness = 0.84 / len(comparison.names)
    places = np.arange(len(classes))
    for number, name in enumerate(comparison.names):
        offset = (number - (len(comparison.names) - 1) / 2) * thickness
        axes.barh(places + offset, comparison.precisions[number, classes], thickness, label=name)
    axes.set_yticks(places, [_short(comparison.labels[index]) for index in classes], fontsize=8)
    axes.set(title=title, xlabel="average precision", xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _short(label: str, most: int = 36) -> str:
    """Text that matplotlib takes for no formula."""
    return (label if len(label) <= most else label[: most - 1] + "…").replace("$", r"\$")
