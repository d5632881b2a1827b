"""Beam: `Fetch` gets the media of a plan's clips, and writes what became of each attempt to the ledger.

What flows through Beam are row ranges and counts; media go from the network to the media store.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam

from mbt.pipeline import (
    availability,
    disk,
    download,
    fetch,
    ffmpeg,
    ledger,
    parquet,
    plan,
    proxies,
    reasons,
    runner,
    secret,
    storage,
    tombstones,
    youtube,
)
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.budget import Budget
from mbt.pipeline.exchange import PRIVATE_HOST
from mbt.pipeline.job import Job, Worker
from mbt.pipeline.outcomes import internal_error
from mbt.pipeline.settings import FetchSettings
from mbt.pipeline.sources import stays_in_place
from mbt.schemas.clip import Outcome

ROWS_PER_RANGE = 512
# For each download another thread, that probes what came before.
_THREADS_PER_DOWNLOAD = 2
_PASSING = (Outcome.BLOCKED, Outcome.TRANSIENT)  # these say nothing of a clip's source


class Fetch(beam.PTransform):
    """Gets the media of all clips of a plan; writes attempts to the ledger.

    Input: paths of plans whose rows are sorted by source. Output: `(outcome, attempts)` counts.
    """

    def __init__(self, job: Job):
        super().__init__()
        self._job = job

    def expand(self, plans):
        """Adds the steps."""
        ranges = plans | "Cut" >> beam.FlatMap(fetch_ranges)  # (path, first_row, num_rows)
        if self._job.fetch.workers is None:
            spread = ranges | "Spread" >> beam.Reshuffle()
        else:
            # A key is worked on by one worker at a time, on every runner.
            spread = (
                ranges
                | "Key" >> beam.Map(_lane, self._job.fetch.workers)  # (lane, (path, first_row, num_rows))
                | "Lanes" >> beam.GroupByKey()  # (lane, [(path, first_row, num_rows)])
                | "Take" >> beam.FlatMap(_spans)  # (path, first_row, num_rows)
            )
        return spread | "Fetch" >> beam.ParDo(FetchClips(self._job))


class FetchClips(Worker):
    """Fetches a range of rows, the clips of one source at once."""

    def setup(self) -> None:
        """Makes what all threads of this process share."""
        super().setup()
        settings = self._job.fetch
        program = ffmpeg.executable(self._job.ffmpeg_path)
        shared: dict[str, Any] = {
            "youtube": _youtube_settings(settings, program),
            "budget": Budget(settings.downloads, settings.interval_s),
            "proxies": proxies.read(settings.proxies),
            "breaker": Breaker(ledger.storms_of(self._job.root, self._job.run), settings.lost_share),
            "hosts": settings.hosts,
        }
        self._breaker: Breaker = shared["breaker"]
        self._asker = availability.Asker(
            api_key=availability.read_key(settings.youtube_api_key),
            time_limit_s=min(download.ASK_TIME_LIMIT_S, settings.time_limit_s),
            **shared,
        )
        self._fetcher = fetch.Fetcher(
            root=self._job.root,
            work=self._job.work,
            program=program,
            limits=download.Limits(
                max_bytes=settings.max_bytes, time_limit_s=settings.time_limit_s, bytes_per_second=_share(settings)
            ),
            probes=threading.Semaphore(runner.cores()),
            purged=tombstones.spans(self._job.root),
            time_limit_s=self._job.time_limit_s,
            on_bytes=self._reporter.add_bytes,
            **shared,
        )

    def process(self, span: tuple[str, int, int]) -> Iterator[tuple[str, int]]:
        """Yields how many attempts had which outcome."""
        rows = plan.read_rows(*span)
        wanted = [row for row in rows if not row["ask"]]
        asked = [row for row in rows if row["ask"]]
        groups = [list(group) for _, group in itertools.groupby(wanted, key=lambda row: row["source"])]
        batches = [asked[first : first + availability.BATCH] for first in range(0, len(asked), availability.BATCH)]
        threads = _THREADS_PER_DOWNLOAD * self._job.fetch.downloads
        counts: collections.Counter = collections.Counter()
        with (
            ledger.Writer(self._job.root, self._job.run) as writer,
            concurrent.futures.ThreadPoolExecutor(threads) as pool,
        ):
            fetched = pool.map(lambda group: self._stopping(self._fetch, group, writer), groups)
            answered = pool.map(lambda batch: self._stopping(self._ask, batch, writer), batches)
            for outcomes in itertools.chain(fetched, answered):
                counts.update(outcomes)
        self._breaker.settle()
        yield from counts.items()

    def _stopping(self, work: Callable[..., list[str]], rows: list[dict], writer: ledger.Writer) -> list[str]:
        """Stops the run where the ledger cannot be written: what the other threads have in hand would be lost too."""
        try:
            return work(rows, writer)
        except OSError as error:
            if disk.is_trouble(error):
                self._breaker.trip(disk.said(error, self._job.root))
            raise

    def _ask(self, rows: list[dict], writer: ledger.Writer) -> list[str]:
        """Asks whether sources are still online; what was fetched of them is carried on."""
        of_source = collections.defaultdict(list)
        for row in rows:
            of_source[row["source"]].append(row)
        outcomes = []
        failing = {row["source"]: row["known_outcome"] for row in rows if row["failing"]}
        for answer in self._asker.ask(list(of_source), failing):
            failure = answer.failure
            for row in of_source.pop(answer.source):
                fetched = fetch.Fetched(
                    outcome=failure.outcome if failure else Outcome.OK,
                    reason=failure.reason if failure else "",
                    detail=failure.detail if failure else "",
                    digest=row["known_digest"],
                    media=row["known_media"],
                    media_start_us=row["known_media_start_us"],
                    signature=row["known_signature"],
                    tools=answer.by,
                )
                append(writer, row, row["attempts"] + 1, fetched)
                self._reporter.report(fetched.outcome)
                outcomes.append(fetched.outcome.value)
        for row in itertools.chain.from_iterable(of_source.values()):
            self._reporter.report(row["known_outcome"])
        return outcomes

    def _fetch(self, group: list[dict], writer: ledger.Writer) -> list[str]:
        """Fetches one source; the outcomes of all attempts."""
        if stays_in_place(group[0]["source"]) and all(_still_there(row) for row in group):
            for _ in group:
                self._reporter.report(Outcome.OK)
            return []
        outcomes = []
        last: dict[str, str] = {}
        for row, attempt, fetched in self._attempts(group, last):
            append(writer, row, row["attempts"] + attempt, _carried(row, fetched))
            outcomes.append(fetched.outcome.value)
            last[row["id"]] = fetched.outcome.value
        for row in group:
            self._reporter.report(last.get(row["id"], Outcome.NOT_TRIED))
        return outcomes

    def _attempts(self, group: list[dict], last: dict[str, str]) -> fetch.Attempts:
        try:
            yield from self._fetcher.fetch(group)
        except Exception as error:  # one clip's trouble must not end the others; it is in the ledger
            failure = internal_error(error)
            failed = fetch.Fetched(outcome=failure.outcome, reason=failure.reason, detail=failure.detail)
            self._breaker.record(group[0]["source"], failed.outcome, failed.reason, failed.detail)
            yield from ((row, 1, failed) for row in group if row["id"] not in last)


def fetch_ranges(path: str) -> Iterator[tuple[str, int, int]]:
    """Cuts a plan into ranges of rows, never between two clips of one source."""
    with storage.open_file(path) as file:
        sources = parquet.table(file.read(), ["source"])["source"]
    first = 0
    while first < len(sources):
        last = min(first + ROWS_PER_RANGE, len(sources))
        while last < len(sources) and sources[last] == sources[last - 1]:
            last += 1
        yield path, first, last - first
        first = last


def _lane(span: tuple[str, int, int], lanes: int) -> tuple[int, tuple[str, int, int]]:
    return span[1] // ROWS_PER_RANGE % lanes, span


def _spans(lane: tuple[int, Iterable[tuple[str, int, int]]]) -> Iterable[tuple[str, int, int]]:
    return lane[1]  # no lambda: one is pickled with the path of this file


def _youtube_settings(settings: FetchSettings, program: str) -> youtube.Settings:
    return youtube.Settings(
        cookies=settings.cookies,
        cookies_text=_cookies_text(settings.cookies),
        download=settings.download,
        bytes_per_second=_share(settings),
        time_limit_s=settings.time_limit_s,
        max_bytes=settings.max_bytes,
        ffmpeg=program,
    )


def _cookies_text(place: str | None) -> str | None:
    """The cookies that are in no file of this machine."""
    return secret.read(place) if place and secret.is_elsewhere(place) else None


def _share(settings: FetchSettings) -> int | None:
    """Of the machine's bandwidth, for one of its downloads."""
    return settings.bytes_per_second and max(1, settings.bytes_per_second // settings.downloads)


def _still_there(row: dict) -> bool:
    """Whether a local file is the one that was noted."""
    return row["known_outcome"] == Outcome.OK and fetch.signature(row["source"]) == row["known_signature"]


def _carried(row: dict, fetched: fetch.Fetched) -> fetch.Fetched:
    """What was fetched once stays fetched when its media are lost and do not come again, for shards may hold the clip.

    Where they do not hold it, only a failure that may pass leaves that open.
    """
    if fetched.outcome == Outcome.OK or not row["known_digest"] or stays_in_place(row["source"]):
        return fetched
    if fetched.reason == PRIVATE_HOST:  # it was fetched before there was this rule, or with its flag
        fetched = dataclasses.replace(fetched, outcome=Outcome.TRANSIENT)
    if row["anew"] and fetched.outcome not in _PASSING:
        return fetched
    return dataclasses.replace(
        fetched,
        digest=row["known_digest"],
        media=row["known_media"],
        media_start_us=row["known_media_start_us"],
        signature=row["known_signature"],
    )


def append(writer: ledger.Writer, row: dict, attempt: int, fetched: fetch.Fetched) -> None:
    """Writes an attempt for a clip to the ledger."""
    writer.append(
        clip_id=row["id"],
        attempt=attempt,
        source=row["source"],
        start_us=row["start_us"],
        end_us=row["end_us"],
        outcome=fetched.outcome.value,
        reason=fetched.reason,
        detail=fetched.detail,
        bytes=fetched.bytes,
        digest=fetched.digest,
        media=fetched.media,
        media_start_us=fetched.media_start_us,
        signature=fetched.signature,
        tools=fetched.tools,
        rule=reasons.RULES if fetched.outcome == Outcome.UNUSABLE else None,
    )
