"""`mbt-data plan`: what a dataset will take, before it is made; it only reads."""

import dataclasses
import tempfile

from mbt.pipeline import dataset as datasets
from mbt.pipeline import ffmpeg, proxies, reencoding, runner
from mbt.pipeline.forecast import advice, counts, losses, measure, past, sheet
from mbt.pipeline.forecast.rates import Measured
from mbt.pipeline.options import Options
from mbt.pipeline.terminal import columns
from mbt.pipeline.work import Clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a dataset will take.

    Attributes:
      sections: of lines.
      measured: the sample, by the size of pictures.
      notes: about the annotations, and advice.
    """

    sections: tuple[sheet.Section, ...]
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict:
        """For machines: each number by its section and name."""
        numbers = {section.title: dict(map(_line_json, section.lines)) for section in self.sections}
        return numbers | {"sample": [dataclasses.asdict(each) for each in self.measured], "notes": list(self.notes)}

    def to_text(self) -> str:
        """For a person: each number with its formula, and where that has its numbers from."""
        lines = list(self.notes)
        rows = iter(columns([[line.name, line.to_text()] for section in self.sections for line in section.lines]))
        for section in self.sections:
            lines.append(section.title)
            lines += [f"  {next(rows)}{_formula(line)}" for line in section.lines]
        if self.measured:
            lines.append("sample, by the shorter side of its pictures in pixels")
            lines += [f"  {row}" for row in columns([_SAMPLE_HEAD, *map(_sample_row, self.measured)])]
        return "\n".join(lines)


def _line_json(line: sheet.Line) -> tuple[str, dict]:
    return line.name.replace(" ", "_"), {
        "value": line.value,
        "unit": line.unit,
        "formula": line.formula,
        "source": line.source,
    }


def _formula(line: sheet.Line) -> str:
    return (f" = {line.formula}" if line.formula else "") + (f"  [{line.source}]" if line.source else "")


_SAMPLE_HEAD = ["pixels", "clips", "seconds", "CPU s/s", "kB/s"]


def _sample_row(each: Measured) -> list[str]:
    per_second = [f"{each.cpu_s / each.seconds:.4f}", f"{each.bytes / each.seconds / 1000:.1f}"]
    return [each.pixels, f"{each.clips}", f"{each.seconds:.1f}", *per_second]


def of(clips: Clips, options: Options, *, within_s: float, sample: int) -> Forecast:
    """What these clips will take, with what is there already.

    Args:
      clips: the annotations.
      options: of the build that is planned.
      within_s: wanted duration of fetching, and of building.
      sample: clips to measure at most.

    Raises:
      WorkerTroubleError: this machine failed on a clip of the sample.
    """
    found = counts.of(clips.valid, clips.invalid, options.root, options.num_shards)
    expected = losses.of(options.selection.dataset, found.tried)
    program = ffmpeg.executable(options.ffmpeg)
    if again := _reencoded(clips, options, program):
        found = dataclasses.replace(found, built=0, reencoded=again.num_clips)
    with tempfile.TemporaryDirectory(prefix="mbt-plan-") as folder:
        rates = measure.rates(clips.valid, options.root, program, sample=sample, threads=runner.cores(), folder=folder)
    rates = past.rates(rates, options.root)
    wishes = _wishes(options, within_s)
    return Forecast(
        sections=sheet.sections(found, expected, rates, wishes),
        measured=rates.measured,
        notes=(*clips.notes, *([str(again)] if again else []), *advice.of(found, expected, rates, wishes)),
    )


def _reencoded(clips: Clips, options: Options, program: str) -> reencoding.Survey | None:
    """What a build would make again, for another encoder made it."""
    existing = datasets.read(options.root)
    if existing is None:
        return None
    now = datasets.encoding(options.ffmpeg, program)
    if now.encoder == existing.encoder:  # on this machine or another, which has its own canary
        now = dataclasses.replace(now, canary=existing.canary)
    return reencoding.survey(options.root, clips.valid, existing, existing.made_by(now))


def _wishes(options: Options, within_s: float) -> sheet.Wishes:
    fetch = options.fetch
    machines = fetch.workers or 1
    return sheet.Wishes(
        machines=machines,
        addresses=max(machines, len(proxies.read(fetch.proxies))),
        downloads=fetch.downloads,
        interval_s=fetch.interval_s,
        bytes_per_second=fetch.bytes_per_second,
        download=fetch.download,
        cores=runner.cores(),
        within_s=within_s,
    )
