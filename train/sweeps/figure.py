"""What came out of a sweep: mean and standard deviation over seeds, as a table and as the paper's figure."""

import csv
import itertools
import pathlib
import statistics
import sys

from mbt.train import cost
from mbt.train.errors import UsageError
from mbt.train.sweeps.ablations import Ablation
from mbt.train.sweeps.runs import Run

NAMES = {"map": "mAP", "top1": "top-1", "top5": "top-5", "top1_action": "top-1, action"}
MARKS = "os^Dv"
# The paper's main metric for the labels of a dataset (section 4.1): the first of these that a result has.
MAIN = ("top1_action", "top1", "map")


def summarise(runs: list[Run], score: str | None) -> list[dict]:
    """A row for each point that has a finished run: mean and standard deviation (of the sample; 0 for one run).

    Args:
      runs: of the sweep.
      score: of the results; None for the main one of each.

    Raises:
      UsageError: the results have no such score.
    """
    rows = []
    for point, group in itertools.groupby(runs, key=lambda run: run.point):
        found = [_score(run, result, score or _main(result)) for run in group if (result := run.result())]
        values = [value for value in found if value is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row = {"line": point.line, "x": point.x, "runs": len(values)}
            rows.append(row | {"mean": statistics.fmean(values), "stddev": spread})
    return rows


def main_scores(runs: list[Run]) -> str:
    """The main score of the results; several datasets may have several."""
    return ", ".join(dict.fromkeys(_main(result) for run in runs if (result := run.result())))


def _main(result: dict) -> str:
    return next((name for name in MAIN if name in result), MAIN[-1])


def to_table(rows: list[dict], score: str) -> str:
    """Rows as text."""
    lines = [["line", "x", "runs", NAMES.get(score, score), "+-"]]
    for row in rows:
        x = row["x"] if isinstance(row["x"], str) else f"{row['x']:g}"
        lines.append([row["line"], x, str(row["runs"]), f"{row['mean']:.4f}", f"{row['stddev']:.4f}"])
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    form = f"{{:<{first}}}" + "".join(f"  {{:>{width}}}" for width in others)
    return "\n".join(form.format(*line) for line in lines)


def write_runs(runs: list[Run], path: pathlib.Path) -> None:
    """A CSV with a row for each finished run: its place in the figure, and every number of its result."""
    rows = []
    for run in runs:
        if result := run.result():
            row: dict = {"line": run.point.line, "x": run.point.x, "seed": run.seed}
            rows.append(row | {key: value for key, value in result.items() if isinstance(value, int | float)})
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(ablation: Ablation, rows: list[dict], score: str, costs: list[dict], path: pathlib.Path) -> None:
    """The figure: a line for each strategy with error bars, or a bar for each word; beside it the cost, if any."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if costs else 5.5, 4), layout="constrained")
    axes = figure.subplots(1, 2 if costs else 1, squeeze=False)[0]
    figure.suptitle(ablation.title)
    if isinstance(rows[0]["x"], str):
        _bars(axes[0], rows)
    else:
        _lines(axes[0], ablation, rows)
    axes[0].set(xlabel=ablation.x_label, ylabel=NAMES.get(score, score))
    if costs:
        cost.draw_lines(axes[1], costs)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, axis="y")
    figure.savefig(path, dpi=150, format="png")


def _lines(axis, ablation: Ablation, rows: list[dict]) -> None:
    for mark, (line, group) in zip(MARKS, itertools.groupby(rows, key=lambda row: row["line"]), strict=False):
        x, mean, spread = zip(*((row["x"], row["mean"], row["stddev"]) for row in group), strict=True)
        axis.errorbar(x, mean, spread, label=line.replace("_", " "), marker=mark, capsize=3)
    if ablation.log_x:
        axis.set_xscale("log", base=ablation.log_x)
    ticks = sorted({row["x"] for row in rows})
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axis.minorticks_off()
    if len({row["line"] for row in rows}) > 1:
        axis.legend(frameon=False)


def _bars(axis, rows: list[dict]) -> None:
    """A group for each word, with a bar for each line."""
    words, lines = (list(dict.fromkeys(row[key] for row in rows)) for key in ("x", "line"))
    width = 0.8 / len(lines) if len(lines) > 1 else 0.5
    for number, line in enumerate(lines):
        of_line = [row for row in rows if row["line"] == line]
        places = [words.index(row["x"]) + (number - (len(lines) - 1) / 2) * width for row in of_line]
        heights, spreads = ([row[key] for row in of_line] for key in ("mean", "stddev"))
        axis.bar(places, heights, width, yerr=spreads, capsize=4, alpha=0.7, label=line)
    axis.set_xticks(range(len(words)), words)
    if len(lines) > 1:
        axis.legend(frameon=False)


def _score(run: Run, result: dict, score: str) -> float | None:
    if score in result and result[score] is None:  # no class has one
        print(f"{run.workdir}: has no {score}, and is left out", file=sys.stderr)
        return None
    if not isinstance(result.get(score), int | float):
        known = [key for key, value in result.items() if isinstance(value, float)]
        raise UsageError(f"--score={score}: the runs have {', '.join(known)}")
    return result[score]
