"""The forecast as lines, each a number and the formula that gives it. Nothing here looks at anything but its arguments.

A formula is arithmetic over numbers and the names of other lines; words after a number say what it counts.
"""

import dataclasses
import math
from collections.abc import Iterator

from mbt.pipeline.forecast import rates as defaults
from mbt.pipeline.forecast.counts import Counts
from mbt.pipeline.forecast.losses import Losses
from mbt.pipeline.forecast.rates import Rates
from mbt.pipeline.terminal import size
from mbt.schemas.clip import FRAME_RATE_HZ, Outcome
from mbt.schemas.index import PIECE, RECORD

HOUR_S = 3600
DAY_S = 86_400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says of how it is to be done.

    Attributes:
      machines: that fetch at a time.
      addresses: on the network, those of proxies included.
      downloads: at a time, on each machine.
      interval_s: between two downloads from YouTube, on each machine.
      bytes_per_second: of each machine, or None.
      download: of a YouTube video: "whole", "range" or "auto".
      cores: of this machine.
      within_s: wanted duration of fetching, and of building.
    """

    machines: int = 1
    addresses: int = 1
    downloads: int = 8
    interval_s: float = 0.0
    bytes_per_second: int | None = None
    download: str = "auto"
    cores: int = 1
    within_s: float = DAY_S


@dataclasses.dataclass(frozen=True)
class Line:
    """A number.

    Attributes:
      name: of it.
      value: in its unit.
      unit: s, days, B, or "" of counts.
      formula: that gives it; "" where it is counted or assumed.
      source: where the numbers in the formula are from.
    """

    name: str
    value: float
    unit: str = ""
    formula: str = ""
    source: str = ""

    def to_text(self) -> str:
        """The value for a person."""
        if self.unit == "B":
            return size(round(self.value))
        if not self.unit:
            return f"{round(self.value):,}"
        value, unit = self.value, self.unit
        if unit == "s" and value >= HOUR_S:
            value, unit = value / HOUR_S, "h"
        if unit == "days" and value < 10:
            return f"{value:.2f} days"
        return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


@dataclasses.dataclass(frozen=True)
class Section:
    """Lines under a title."""

    title: str
    lines: tuple[Line, ...]


def sections(counts: Counts, losses: Losses, rates: Rates, wishes: Wishes) -> tuple[Section, ...]:
    """All of them; those of fetching only where something is to be fetched."""
    lost = tuple(_losses(counts, losses, rates))
    records = counts.clips - sum(line.value for line in lost)
    lost += (Line("records", records, "", " - ".join(["clips", *(line.name for line in lost)])),)
    found = [Section("clips", tuple(_clips(counts))), Section("losses", lost)]
    if counts.left:
        come = counts.left * (1 - sum(losses.shares.values()))
        found.append(Section("fetching", tuple(_fetching(counts, rates, wishes, come))))
    found.append(Section("building", tuple(_building(counts, rates, wishes, records))))
    return (*found, Section("launcher", tuple(_launcher(counts))))


def _clips(counts: Counts) -> Iterator[Line]:
    splits = " + ".join(f"{split} {count:,}" for split, count in counts.splits.items())
    yield Line("clips", counts.clips, "", splits)
    yield Line("length", counts.seconds, "s", f"clips * {_number(_mean_s(counts))} s")
    for name, count, source in (
        ("invalid rows", counts.invalid, "they are no clips"),
        ("on this machine", counts.local, "clips whose source is a local path"),
        ("fetched", counts.there, "by the ledger"),
        ("left to fetch", counts.left, f"clips of {counts.videos:,} videos"),
    ):
        if count:
            yield Line(name, count, source=source)


def _losses(counts: Counts, losses: Losses, rates: Rates) -> Iterator[Line]:
    """By outcome: what is settled, and what is to be expected of the rest."""
    for outcome in (Outcome.GONE, Outcome.RESTRICTED, Outcome.UNUSABLE):
        parts = [
            (counts.lost.get(outcome, 0), 1.0, "settled", "the ledger"),
            (counts.left, losses.shares.get(outcome, 0.0), "left", losses.source),
        ]
        if outcome == Outcome.UNUSABLE:  # what is fetched has been looked at
            parts.append((counts.local - counts.missing, rates.unusable, "local", rates.cpu_source))
        parts = [part for part in parts if part[0] and part[1]]
        if parts:
            terms = (f"{count:,} {name} * {_number(share)}" for count, share, name, _ in parts)
            sources = dict.fromkeys(source for *_, source in parts)
            value = sum(count * share for count, share, *_ in parts)
            yield Line(outcome.value, value, "", " + ".join(terms), "; ".join(sources))
    if counts.missing:
        yield Line("missing", counts.missing, source="local files that are not there")


def _fetching(counts: Counts, rates: Rates, wishes: Wishes, come: float) -> Iterator[Line]:
    video = defaults.YOUTUBE[wishes.download]
    other = counts.videos - counts.youtube
    limit = pace(counts, rates, wishes)
    probed_s = come * _mean_s(counts)
    requests = counts.youtube * video.requests + other
    formula = f"{counts.youtube:,} YouTube videos * {video.requests} + {other:,} others"
    yield Line("requests", requests, "", formula, defaults.YOUTUBE_SOURCE)
    days = counts.videos / limit.per_second / wishes.machines / DAY_S
    formula = f"{counts.videos:,} videos / ({limit.formula}) / {wishes.machines:,} machines / {DAY_S:,} s"
    yield Line("fetch days", days, "days", formula, limit.source)
    if counts.youtube:
        granted, addresses = defaults.GUEST_VIDEOS_PER_HOUR, wishes.addresses
        formula = f"{counts.youtube:,} videos / {granted} an hour / {addresses:,} addresses / 24"
        days_of_guest = counts.youtube / granted / addresses / 24
        yield Line("days of a guest", days_of_guest, "days", formula, defaults.GUEST_SOURCE)
    machines = math.ceil(days * wishes.machines * DAY_S / wishes.within_s)
    formula = f"ceil(fetch days * {wishes.machines:,} machines * {DAY_S:,} s / {wishes.within_s:,.0f} s wanted)"
    yield Line("fetch machines", machines, "", formula, "--within")
    cpu_s = counts.youtube * video.cpu_s + probed_s * defaults.PROBE_SHARE * rates.cpu_s
    formula = (
        f"{counts.youtube:,} videos * {video.cpu_s} + {_number(probed_s)} s probed * {defaults.PROBE_SHARE} * "
        f"{_number(rates.cpu_s)}"
    )
    yield Line("fetch CPU", cpu_s, "s", formula, f"{defaults.YOUTUBE_SOURCE}; {rates.cpu_source}")
    arriving = _arriving(counts, rates, wishes)
    source = defaults.YOUTUBE_SOURCE if counts.youtube else rates.media_source
    yield Line("network", counts.videos * arriving, "B", f"{counts.videos:,} videos * {_number(arriving)} B", source)
    formula = f"{_number(come)} clips that come * {_number(_mean_s(counts))} s * {_number(rates.media_bytes)} B"
    yield Line("media", come * _mean_s(counts) * rates.media_bytes, "B", formula, rates.media_source)


@dataclasses.dataclass(frozen=True, order=True)
class Pace:
    """Videos a second of one machine, the formula that gives them, and where its numbers are from."""

    per_second: float
    formula: str
    source: str


def pace(counts: Counts, rates: Rates, wishes: Wishes) -> Pace:
    """The narrowest of the limits of fetching."""
    seconds = defaults.YOUTUBE[wishes.download].seconds
    formula = f"{wishes.downloads} downloads / {seconds} s"
    limits = [Pace(wishes.downloads / seconds, formula, f"--downloads; {defaults.YOUTUBE_SOURCE}")]
    if rates.clips_per_second:
        limits = [Pace(rates.clips_per_second, f"{_number(rates.clips_per_second)} a second", "the ledger's last run")]
    if wishes.interval_s and counts.youtube:
        limits.append(Pace(1 / wishes.interval_s, f"1 / {wishes.interval_s:g} s", "--sleep"))
    if wishes.bytes_per_second:
        arriving = _arriving(counts, rates, wishes)
        formula = f"{wishes.bytes_per_second:,} B / {_number(arriving)} B"
        limits.append(Pace(wishes.bytes_per_second / arriving, formula, f"--bandwidth; {defaults.YOUTUBE_SOURCE}"))
    return min(limits)


def _arriving(counts: Counts, rates: Rates, wishes: Wishes) -> float:
    """Bytes of a download: those of a YouTube video as measured, of another source those of its clips."""
    other = rates.media_bytes * _mean_s(counts) * counts.left / counts.videos
    share = counts.youtube / counts.videos
    return share * defaults.YOUTUBE[wishes.download].bytes + (1 - share) * other


def _building(counts: Counts, rates: Rates, wishes: Wishes, records: float) -> Iterator[Line]:
    mean_s, shards = _mean_s(counts), sum(counts.shards.values())
    new = max(0.0, records - counts.built)
    if counts.reencoded:
        yield Line("re-encoded", counts.reencoded, source="another encoder made the newest snapshot")
    yield Line("records to make", new, "", f"records - {counts.built:,} built", "the newest snapshot")
    cpu_s = new * mean_s * rates.cpu_s + counts.clips * defaults.ROW_CPU_S + rates.start_cpu_s
    formula = (
        f"records to make * {_number(mean_s)} s * {_number(rates.cpu_s)} + clips * {defaults.ROW_CPU_S} + "
        f"{_number(rates.start_cpu_s)} start"
    )
    yield Line("CPU", cpu_s, "s", formula, "; ".join(dict.fromkeys([rates.cpu_source, rates.start_source])))
    yield Line("time here", cpu_s / wishes.cores, "s", f"CPU / {wishes.cores} cores")
    workers = math.ceil(cpu_s / wishes.within_s)
    yield Line(
        "workers", workers, "", f"ceil(CPU / {wishes.within_s:,.0f} s wanted)", "--within; a worker has one core"
    )
    total = records * mean_s * rates.record_bytes
    formula = f"records * {_number(mean_s)} s * {_number(rates.record_bytes)} B"
    error = f", give or take {100 * rates.record_error:.2g} %" if rates.record_error is not None else ""
    yield Line("shard bytes", total, "B", formula, rates.bytes_source + error)
    index = RECORD.itemsize + (FRAME_RATE_HZ + 1) * PIECE.itemsize * mean_s
    formula = f"records * ({RECORD.itemsize} B + {FRAME_RATE_HZ + 1} * {PIECE.itemsize} B * {_number(mean_s)} s)"
    yield Line("index bytes", records * index, "B", formula, "schemas/index.py")
    formula = " + ".join(f"{split} {count:,}" for split, count in counts.shards.items())
    yield Line("shards", shards, "", formula, "--num_shards, or a power of two")
    yield Line("bytes a shard", total / shards, "B", "shard bytes / shards")


def _launcher(counts: Counts) -> Iterator[Line]:
    rows = counts.clips + counts.invalid
    formula = f"{defaults.LAUNCHER_BYTES:,} B + {rows:,} rows * {defaults.LAUNCHER_BYTES_PER_ROW} B"
    value = defaults.LAUNCHER_BYTES + rows * defaults.LAUNCHER_BYTES_PER_ROW
    yield Line("memory", value, "B", formula, defaults.DOCUMENTED)
    if attempts := counts.attempts + counts.left:
        formula = f"({counts.attempts:,} made + {counts.left:,} to come) * {defaults.LEDGER_BYTES_PER_ATTEMPT} B"
        yield Line("ledger", attempts * defaults.LEDGER_BYTES_PER_ATTEMPT, "B", formula, defaults.DOCUMENTED)


def _mean_s(counts: Counts) -> float:
    return counts.seconds / counts.clips


def _number(value: float) -> str:
    """With four digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
