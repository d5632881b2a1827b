"""2,000 random spans of composed films: how many records are right, half of them after a fetch? Prints a table.

Each film gives four spans that are decoded in place and four that are fetched from a server into a media store, which
cuts them. The end is status 1 where more than 0.2 % are off, or one is silently wrong.
"""

import argparse
import collections
import itertools
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from films import make, plan, truth, ways, whole
from films.verdict import Kind, judge
from media_server import serving

from mbt.pipeline import ffmpeg

SPANS = 2_000
SPANS_OF_A_FILM = 8
MOST_OFF = 0.002
OFF = (Kind.WRONG, Kind.LOST)


class Row(NamedTuple):
    """What came of one span."""

    film: plan.Film
    span: ways.Span
    way: str
    kind: Kind
    detail: str


def run(seed: int) -> list[Row]:
    """The spans of one film; none where ffmpeg does not put such a film together."""
    film, program = plan.draw(seed), ffmpeg.executable()
    with tempfile.TemporaryDirectory(prefix="film-") as folder, serving() as server:
        at = Path(folder)
        try:
            path = make.make(film, at, program)
            told = truth.read(path, program)
        except (subprocess.CalledProcessError, whole.NothingToReadError):
            return []
        spans = plan.spans(film, told.end_s, SPANS_OF_A_FILM)
        in_place, away = spans[: SPANS_OF_A_FILM // 2], spans[SPANS_OF_A_FILM // 2 :]
        came = [(span, "in place", ways.local(path, span, program)) for span in in_place]
        server.files[path.name] = path.read_bytes()
        fetched = ways.fetched(f"{server.url}/{path.name}", away, at / "out", program)
        came += [(span, "fetched", clip) for span, clip in zip(away, fetched, strict=True)]
        verdicts = [(span, way, judge(told, span, clip)) for span, way, clip in came]
    return [Row(film, span, way, verdict.kind, verdict.detail) for span, way, verdict in verdicts]


def rows(count: int, processes: int, first_seed: int) -> Iterator[Row]:
    """As many spans, of films of one seed after the other."""
    # Not a fork: this process may have threads.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        films = pool.imap(run, range(first_seed, first_seed + 2 * count))
        yield from itertools.islice(itertools.chain.from_iterable(films), count)


def table(found: list[Row]) -> str:
    """Markdown: a line for each container, for each thing that was done with a film, for both ways, and for all."""
    groups: dict[str, list[Row]] = collections.defaultdict(list)
    for row in found:
        film = row.film
        then = {"": "as made", "remux": "remuxed", "cut": "cut by copy", "join": "joined with itself"}[film.then]
        traits = [film.into, then, row.way]
        traits += ["hole"] if film.hole else []
        traits += ["variable rate"] if film.keep else []
        traits += ["a stream late"] if film.video_late_s or film.audio_late_s else []
        traits += ["several tracks"] if film.more_tracks else []
        for trait in (*traits, "all"):
            groups[trait].append(row)
    lines = ["| films | spans | " + " | ".join(Kind) + " |", "|---|" + "---:|" * (1 + len(Kind))]
    for trait in sorted(groups, key=lambda name: (name == "all", name)):
        counts = collections.Counter(row.kind for row in groups[trait])
        lines.append(f"| {trait} | {len(groups[trait])} | " + " | ".join(str(counts[kind]) for kind in Kind) + " |")
    return "\n".join(lines)


def main() -> int:
    """Runs, prints, judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the 2,000 spans")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first film")
    flags = parser.parse_args()
    found = []
    for row in rows(round(SPANS * flags.share), flags.processes, flags.seed):
        found.append(row)
        if row.kind in OFF:
            start_s, end_s = (time_us / 1e6 for time_us in row.span)
            print(f"{row.film.name} [{start_s}, {end_s}) {row.way}: {row.kind}: {row.detail}; {row.film}", flush=True)
    print(f"\n{table(found)}")
    off = sum(row.kind in OFF for row in found)
    silent = sum(row.kind == Kind.WRONG for row in found)
    print(f"\n{off} of {len(found)} off ({off / len(found):.2%}), {silent} silently")
    return int(silent > 0 or off > MOST_OFF * len(found))


if __name__ == "__main__":
    sys.exit(main())
