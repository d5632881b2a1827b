"""Where the lines, bars and ticks of a chart lie, in the units of its view box. The template draws them.

All charts are as wide as a phone, so that their text is as large there as the text around them.
"""

import bisect
import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 332, 10, 164
_TICKS = 4
_LEAST_BINS = 7


@dataclasses.dataclass(frozen=True)
class Tick:
    """A mark on an axis; `anchor` is SVG's text-anchor."""

    at: float
    text: str
    anchor: str = "middle"


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point of a line, or the top left corner of a bar; `title` says its value."""

    x: float
    y: float
    title: str
    width: float = 0
    height: float = 0


@dataclasses.dataclass(frozen=True)
class Series:
    """The marks of one colour."""

    name: str
    colour: int
    marks: tuple[Mark, ...]

    @property
    def path(self) -> str:
        """Through all marks, for an SVG path."""
        return "M" + "L".join(f"{mark.x},{mark.y}" for mark in self.marks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart; `label` says in words what it shows."""

    kind: str
    label: str
    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_title: str = ""


def over_time(label: str, times: Sequence[datetime.datetime], shares: Mapping[str, Sequence[float | None]]) -> Chart:
    """A line for each split.

    Args:
      label: what the chart shows, in words.
      times: of the snapshots, ascending.
      shares: in percent, by split; None where a snapshot has no such split.
    """
    values = [value for line in shares.values() for value in line if value is not None]
    low = max(0.0, math.floor((min(values, default=0) - 1) / 5) * 5)
    low = 0.0 if low < 50 else low
    xs = _spread([time.timestamp() for time in times])
    series = tuple(
        Series(name, colour, _time_marks(name, xs, times, line, low))
        for colour, (name, line) in enumerate(shares.items())
    )
    step = _nice((100 - low) / _TICKS)
    ticks = tuple(Tick(_y(value, low, 100), f"{value:g} %") for value in np.arange(low, 100.01, step))
    return Chart(kind="line", label=label, series=series, x_ticks=_time_ticks(xs, times), y_ticks=ticks)


def histogram(label: str, counts: dict[str, np.ndarray], edges: Sequence[str], x_title: str) -> Chart:
    """Bars, the splits on top of each other; empty bins at both ends are left out.

    Args:
      label: what the chart shows, in words.
      counts: (bins,) by split.
      edges: (bins + 1,) texts.
      x_title: unit of the edges.
    """
    total = np.sum(list(counts.values()), axis=0)
    first, last = _bins_shown(total)
    top = max(1, int(total.max(initial=1)))
    width = (RIGHT - LEFT) / (last - first)
    below = np.zeros(len(total))
    series = []
    for colour, (name, bins) in enumerate(counts.items()):
        marks = []
        for place in range(first, last):
            if bins[place]:
                y, base = _y(below[place] + bins[place], 0, top), _y(below[place], 0, top)
                title = f"{name}: {int(bins[place])} from {edges[place]} to {edges[place + 1]} {x_title}"
                x = LEFT + (place - first) * width
                marks.append(Mark(round(x + 1, 1), y, title, round(width - 2, 1), round(base - y, 1)))
        series.append(Series(name, colour, tuple(marks)))
        below += bins
    every = max(1, -(-(last - first) // 5))
    x_ticks = tuple(
        Tick(round(LEFT + (place - first) * width, 1), edges[place], "end" if place == last else "middle")
        for place in range(first, last + 1, every)
    )
    return Chart(
        kind="bar", label=label, series=tuple(series), x_ticks=x_ticks, y_ticks=_count_ticks(top), x_title=x_title
    )


def ranking(label: str, sizes: np.ndarray) -> Chart:
    """Records per class, the largest class first, on a logarithmic scale; classes without records lie at the bottom.

    Args:
      label: what the chart shows, in words.
      sizes: (classes,) records of each.
    """
    ordered = np.sort(sizes)[::-1]
    places = np.unique(np.linspace(0, max(0, len(ordered) - 1), min(200, len(ordered))).round().astype(int))
    decades = math.ceil(math.log10(max(10, int(ordered.max(initial=1)))))
    xs = _spread([float(place) for place in places])
    marks = tuple(
        Mark(x, _y(math.log10(max(ordered[place], 0.7)), math.log10(0.7), decades), f"{ordered[place]}")
        for x, place in zip(xs, places, strict=True)
    )
    y_ticks = tuple(Tick(_y(power, math.log10(0.7), decades), compact(10**power)) for power in range(decades + 1))
    x_ticks = (Tick(LEFT, "1", "start"), Tick(RIGHT, f"{len(ordered)}", "end"))
    return Chart(
        kind="area",
        label=label,
        series=(Series("records", 0, marks),),
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        x_title="classes, by their records",
    )


def seconds_axis(seconds: float, width: float) -> tuple[Tick, ...]:
    """Ticks of a time axis from 0 to `width`; the last text says the unit."""
    step = _nice(seconds / 5)
    values = np.arange(0, seconds + step / 100, step)
    last = len(values) - 1
    ticks = []
    for place, value in enumerate(values):
        anchor = "start" if place == 0 else "end" if value > 0.95 * seconds else "middle"
        ticks.append(Tick(round(value / seconds * width, 1), f"{value:.6g}{' s' if place == last else ''}", anchor))
    return tuple(ticks)


def compact(number: float) -> str:
    """A count in at most four characters: 12k, 3.4M."""
    units = ((1, ""), (1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G"))
    factor, unit = units[max(0, bisect.bisect_right([size for size, _ in units], number) - 1)]
    return f"{number / factor:.3g}{unit}"


def _bins_shown(counts: np.ndarray) -> tuple[int, int]:
    """First and last edge shown: what is filled, and enough around it that a single bar is seen as one of many."""
    filled = np.flatnonzero(counts)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 1)
    missing = max(2, _LEAST_BINS - (last - first))
    first = max(0, first - missing // 2)
    return first, min(len(counts), max(last + 1, first + _LEAST_BINS))


def _time_marks(name: str, xs, times, line, low: float) -> tuple[Mark, ...]:
    return tuple(
        Mark(x, _y(value, low, 100), f"{name}, {time:%Y-%m-%d %H:%M}: {value:.1f} %")
        for x, time, value in zip(xs, times, line, strict=True)
        if value is not None
    )


def _time_ticks(xs: Sequence[float], times: Sequence[datetime.datetime]) -> tuple[Tick, ...]:
    """The first and the last, and between them what has room."""
    between = times[-1] - times[0]
    form = "%Y-%m-%d" if between > datetime.timedelta(days=2) else "%m-%d %H:%M"
    form = "%H:%M:%S" if between < datetime.timedelta(minutes=10) else form
    if xs[-1] == xs[0]:
        return (Tick(xs[0], times[0].strftime(form)),)
    middle = times[0] + (times[-1] - times[0]) / 2
    return (
        Tick(LEFT, times[0].strftime(form), "start"),
        Tick((LEFT + RIGHT) / 2, middle.strftime(form)),
        Tick(RIGHT, times[-1].strftime(form), "end"),
    )


def _count_ticks(top: int) -> tuple[Tick, ...]:
    step = max(1.0, _nice(top / _TICKS))
    return tuple(Tick(_y(value, 0, top), compact(value)) for value in np.arange(0, top + 0.01, step))


def _nice(step: float) -> float:
    """The next larger of 1, 2, 5, 10, 20, ..."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _spread(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0), max(values, default=0)
    if high == low:
        return [(LEFT + RIGHT) / 2 for _ in values]
    return [round(LEFT + (value - low) / (high - low) * (RIGHT - LEFT), 1) for value in values]


def _y(value: float, low: float, high: float) -> float:
    return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)
