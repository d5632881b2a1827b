"""The forecast as lines, each a number and the formula that gives it. Nothing here looks at anything but its arguments."""

import dataclasses
import math

from mbt.pipeline.forecast.counts import Counts
from mbt.pipeline.forecast.losses import Losses
from mbt.pipeline.forecast.rates import PROBE_SHARE, ROW_CPU_S, Rates
from mbt.pipeline.terminal import size
from mbt.schemas.clip import FRAME_RATE_HZ, Outcome
from mbt.schemas.index import PIECE, RECORD

HOUR_S = 3600
DAY_S = 86_400
# What yt-dlp's makers found of guests: github.com/yt-dlp/yt-dlp-wiki/pull/52.
YOUTUBE_PER_HOUR = 300
# Of a YouTube video, measured against a server that plays it: docs/fetching.md, videos of 5 minutes.
REQUESTS = {"auto": 10, "range": 10, "whole": 5}
DOWNLOAD_S = {"auto": 3.0, "range": 3.0, "whole": 8.2}
DOWNLOAD_BYTES = {"auto": 2_700_000, "range": 2_700_000, "whole": 20_000_000}
DOWNLOAD_CPU_S = 1.0  # of yt-dlp and ffmpeg: benchmarks/youtube_cut.py
LAUNCHER_BYTES = 270 << 20  # docs/performance.md
LAUNCHER_BYTES_PER_ROW = 830
LEDGER_BYTES_PER_ATTEMPT = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says of how it is to be done.

    Attributes:
      machines: that fetch at a time.
      addresses: on the network, proxies' included.
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
    """A number: its name, its value, its unit (s, days, B, or "" of counts) and the formula that gives it."""

    name: str
    value: float
    unit: str
    formula: str

    def to_text(self) -> str:
        """The value for a person."""
        if self.unit == "B":
            return size(round(self.value))
        if not self.unit:
            return f"{round(self.value):,}"
        value, unit = (self.value / HOUR_S, "h") if self.unit == "s" and self.value >= HOUR_S else (self.value, self.unit)
        return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


@dataclasses.dataclass(frozen=True)
class Section:
    """Lines under a title."""

    title: str
    lines: tuple[Line, ...]


def sections(counts: Counts, losses: Losses, rates: Rates, wishes: Wishes) -> tuple[Section, ...]:
    """All of them; those of fetching only where something is to be fetched."""
    lost = _losses(counts, losses, rates)
    records = Line("records", counts.clips - sum(line.value for line in lost), "", _sum("clips", lost))
    come = counts.left * (1 - sum(losses.shares.values()))
    found = [Section("clips", _clips(counts)), Section("losses", (*lost, records))]
    if counts.left:
        found.append(Section("fetching", _fetching(counts, rates, wishes, come)))
    found.append(Section("building", _building(counts, rates, wishes, records.value)))
    return (*found, Section("launcher", _launcher(counts)))


def _clips(counts: Counts) -> tuple[Line, ...]:
    splits = " + ".join(f"{split or 'no split'} {count:,}" for split, count in counts.splits.items())
    lines = [
        Line("clips", counts.clips, "", splits),
        Line("length", counts.seconds, "s", f"clips x {_mean_s(counts):.3g} s"),
        Line("invalid rows", counts.invalid, "", "of the annotations"),
        Line("on this machine", counts.local, "", "clips whose source is a local path"),
        Line("fetched", counts.there, "", "by the ledger, media in the store or in shards"),
        Line("left to fetch", counts.left, "", f"clips of {counts.videos:,} videos"),
    ]
    return tuple(line for line in lines if line.value)


def _losses(counts: Counts, losses: Losses, rates: Rates) -> tuple[Line, ...]:
    """By outcome: what is settled, and what is to be expected of the rest."""
    lines = []
    for outcome in (Outcome.GONE, Outcome.RESTRICTED, Outcome.UNUSABLE):
        settled, share = counts.lost.get(outcome, 0), losses.shares.get(outcome, 0.0)
        value, terms = settled + counts.left * share, [f"{settled:,} settled"] if settled else []
        if counts.left and share:
            terms.append(f"{counts.left:,} left x {100 * share:.3g} % ({losses.source})")
        local = counts.local - counts.missing
        if outcome == Outcome.UNUSABLE and local and rates.unusable:
            value += local * rates.unusable
            terms.append(f"{local:,} local x {100 * rates.unusable:.3g} % (sample)")
        lines.append(Line(outcome.value, value, "", " + ".join(terms)))
    lines.append(Line("missing", counts.missing, "", "local files that are not there"))
    return tuple(line for line in lines if line.value)


def _fetching(counts: Counts, rates: Rates, wishes: Wishes, come: float) -> tuple[Line, ...]:
    other = counts.videos - counts.youtube
    requests = counts.youtube * REQUESTS[wishes.download] + other
    per_second, bound = pace(counts, rates, wishes)
    days = counts.videos / (per_second * wishes.machines) / DAY_S
    probed_s = counts.left * _mean_s(counts)
    cpu_s = counts.youtube * DOWNLOAD_CPU_S + probed_s * PROBE_SHARE * rates.cpu_s
    arriving = _arriving(counts, rates, wishes)
    lines = [
        Line(
            "requests",
            requests,
            "",
            f"{counts.youtube:,} YouTube videos x {REQUESTS[wishes.download]} (docs/fetching.md) + {other:,} others x 1",
        ),
        Line("fetch days", days, "days", f"{counts.videos:,} videos / ({wishes.machines:,} machines x {bound}) / 86,400"),
        Line(
            "fetch machines",
            math.ceil(days * wishes.machines * DAY_S / wishes.within_s),
            "",
            f"fetch days x {wishes.machines:,} machines / {wishes.within_s / HOUR_S:g} h wanted, rounded up",
        ),
        Line(
            "fetch CPU",
            cpu_s,
            "s",
            f"{counts.youtube:,} x {DOWNLOAD_CPU_S:g} s of yt-dlp + {probed_s:,.0f} s probed x {PROBE_SHARE:g} x "
            f"{rates.cpu_s:.4f}",
        ),
        Line("network", counts.videos * arriving, "B", f"{counts.videos:,} videos x {size(round(arriving))}"),
        Line(
            "media",
            come * _mean_s(counts) * rates.media_bytes,
            "B",
            f"{come:,.0f} clips that come x {_mean_s(counts):.3g} s x {rates.media_bytes / 1000:.0f} kB/s "
            f"({rates.media_source})",
        ),
    ]
    if counts.youtube:
        guests = counts.youtube / YOUTUBE_PER_HOUR / 24 / wishes.addresses
        formula = f"{counts.youtube:,} videos / {YOUTUBE_PER_HOUR} an hour / 24 / {wishes.addresses:,} addresses"
        lines.insert(2, Line("days for a guest", guests, "days", f"{formula} (yt-dlp-wiki/pull/52)"))
    return tuple(lines)


def pace(counts: Counts, rates: Rates, wishes: Wishes) -> tuple[float, str]:
    """Videos a second of one machine, by the narrowest limit, and that limit in words."""
    seconds = DOWNLOAD_S[wishes.download]
    limits = [(wishes.downloads / seconds, f"{wishes.downloads} downloads / {seconds:g} s each (docs/fetching.md)")]
    if rates.clips_per_second:
        limits = [(rates.clips_per_second, f"{rates.clips_per_second:.3g}/s of the last run")]
    if wishes.interval_s and counts.youtube:
        limits.append((1 / wishes.interval_s, f"1 / {wishes.interval_s:g} s --sleep"))
    if wishes.bytes_per_second:
        arriving = _arriving(counts, rates, wishes)
        words = f"{size(wishes.bytes_per_second)}/s --bandwidth / {size(round(arriving))}"
        limits.append((wishes.bytes_per_second / arriving, words))
    return min(limits)


def _arriving(counts: Counts, rates: Rates, wishes: Wishes) -> float:
    """Bytes of a download: those of a YouTube video as measured, of another source those of its clips."""
    other = rates.media_bytes * _mean_s(counts) * counts.left / counts.videos
    share = counts.youtube / counts.videos
    return share * DOWNLOAD_BYTES[wishes.download] + (1 - share) * other


def _building(counts: Counts, rates: Rates, wishes: Wishes, records: float) -> tuple[Line, ...]:
    new = max(0.0, records - counts.built)
    new_s, all_s = new * _mean_s(counts), records * _mean_s(counts)
    cpu_s = new_s * rates.cpu_s + counts.clips * ROW_CPU_S + rates.start_cpu_s
    index = RECORD.itemsize + (FRAME_RATE_HZ + 1) * PIECE.itemsize * _mean_s(counts)
    shards = sum(counts.shards.values())
    error = f" (±{100 * rates.record_error:.2g} %)" if rates.record_error is not None else ""
    return (
        Line("records to make", new, "", f"records - {counts.built:,} in the newest snapshot"),
        Line(
            "CPU",
            cpu_s,
            "s",
            f"{new_s:,.0f} s x {rates.cpu_s:.4f} ({rates.cpu_source}) + {counts.clips:,} clips x {ROW_CPU_S:g} + "
            f"{rates.start_cpu_s:.3g} of start ({rates.start_source})",
        ),
        Line("time here", cpu_s / wishes.cores, "s", f"CPU / {wishes.cores} cores"),
        Line(
            "workers",
            math.ceil(cpu_s / wishes.within_s),
            "",
            f"CPU / {wishes.within_s / HOUR_S:g} h wanted, rounded up; of one core each",
        ),
        Line(
            "shard bytes",
            all_s * rates.record_bytes,
            "B",
            f"{all_s:,.0f} s x {rates.record_bytes / 1000:.1f} kB{error}; {rates.bytes_source}",
        ),
        Line(
            "index bytes",
            records * index,
            "B",
            f"records x ({RECORD.itemsize} + {FRAME_RATE_HZ + 1} x {PIECE.itemsize} x {_mean_s(counts):.3g} s)",
        ),
        Line("shards", shards, "", " + ".join(f"{split} {count:,}" for split, count in counts.shards.items())),
        Line("a shard", all_s * rates.record_bytes / max(1, shards), "B", "shard bytes / shards"),
    )


def _launcher(counts: Counts) -> tuple[Line, ...]:
    rows = counts.clips + counts.invalid
    attempts = sum(counts.tried.values()) + counts.left
    lines = (
        Line(
            "memory",
            LAUNCHER_BYTES + rows * LAUNCHER_BYTES_PER_ROW,
            "B",
            f"{size(LAUNCHER_BYTES)} + {rows:,} rows x {LAUNCHER_BYTES_PER_ROW} B (docs/performance.md)",
        ),
        Line(
            "ledger",
            attempts * LEDGER_BYTES_PER_ATTEMPT,
            "B",
            f"{attempts:,} attempts x {LEDGER_BYTES_PER_ATTEMPT} B, one attempt a clip",
        ),
    )
    return tuple(line for line in lines if line.value)


def _mean_s(counts: Counts) -> float:
    return counts.seconds / counts.clips


def _sum(first: str, lines: tuple[Line, ...]) -> str:
    return " - ".join([first, *(line.name for line in lines)])
