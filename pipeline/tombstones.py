"""Tombstones: clips that were purged, and why. No build brings one of them back, under its id or under another.

Another clip is the purged one when it shares at least half of either's time. What a tombstone of an older version does
not say of its clip's times, the ledger does.
"""

import collections
import dataclasses
import datetime
import functools
import json
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import ledger, storage
from mbt.pipeline.sources import identity
from mbt.schemas import own_json
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import FormatError

FILE = "tombstones.json"
PURGED = "purged"  # reason of an invalid row
_COLUMNS = ["clip_id", "source", "start_us", "end_us", "digest", "media_start_us"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A purged clip's time of a source.

    Attributes:
      source: as it was written.
      start_us: of the source.
      end_us: likewise.
      digest: SHA-256 of the media that were fetched for it; or "".
      media_start_us: which time of the source is these media's zero.
    """

    source: str
    start_us: int
    end_us: int
    digest: str = ""
    media_start_us: int = 0

    @property
    def identity(self) -> str:
        """Of the source, however it is written."""
        return identity(self.source)

    def shares(self, start_us: int, end_us: int) -> bool:
        """Whether it has any time in common with [start, end) of its source."""
        return start_us < self.end_us and self.start_us < end_us

    def shares_half(self, start_us: int, end_us: int) -> bool:
        """Whether what it has in common with [start, end) is half of either."""
        shared_us = min(end_us, self.end_us) - max(start_us, self.start_us)
        return shared_us > 0 and 2 * shared_us >= min(end_us - start_us, self.end_us - self.start_us)


class Spans:
    """All times of all sources that were purged."""

    def __init__(self, spans: Iterable[Span] = (), somewhere: Iterable[Span] = ()):
        """Takes them.

        Args:
          spans: of known time.
          somewhere: media that hold a part of what was purged, and nobody knows at what time.
        """
        self._somewhere = list(somewhere)
        self._by_source: dict[str, list[Span]] = collections.defaultdict(list)
        self._by_digest: dict[str, list[Span]] = collections.defaultdict(list)
        for span in spans:
            if span.source:
                self._by_source[span.identity].append(span)
            if span.digest:
                self._by_digest[span.digest].append(span)

    def __bool__(self) -> bool:
        return bool(self._by_source or self._by_digest or self._somewhere)

    def __iter__(self):
        return (span for spans in self._by_source.values() for span in spans)

    def of(self, source: str) -> list[Span]:
        """Those of a source, however it is written."""
        return self._by_source.get(identity(source), []) if self._by_source else []

    def of_media(self, source: str, digest: str, media_start_us: int) -> list[Span]:
        """Those of a source, and of the same media under another name, in the times of this source."""
        return [*self.of(source), *self.of_digest(digest, media_start_us)]

    def of_digest(self, digest: str, media_start_us: int) -> list[Span]:
        """Those of which the media are the very same, in the times of a source of which these begin at that time."""
        return [_moved(span, media_start_us) for span in self._by_digest.get(digest, ())]

    def may_hold(self, source: str, digest: str) -> bool:
        """Whether media may hold a part of what was purged, at a time that nobody knows."""
        there = self._somewhere
        if any(span.digest == digest for span in there):
            return True
        return any(span.source and span.identity == identity(source) for span in there) and not self.of(source)


def _moved(span: Span, media_start_us: int) -> Span:
    """The span in the times of another source of which the same media begin at that time."""
    by_us = media_start_us - span.media_start_us
    return dataclasses.replace(
        span, start_us=span.start_us + by_us, end_us=span.end_us + by_us, media_start_us=media_start_us
    )


def read(root: str) -> dict[str, dict]:
    """Clip id to `time`, `reason` and, of newer ones, `spans` of its purge; empty where nothing was ever purged.

    `overlaps` says that a clip went only because it shared the time of one that was named.
    """
    return _said(root)["clips"]


def add(root: str, spans: Mapping[str, Iterable[Span]], reason: str, overlaps: frozenset[str] = frozenset()) -> None:
    """Adds tombstones; what those that are there say stays, and the spans that they lack are added.

    Args:
      root: of the dataset.
      spans: of each clip.
      reason: why.
      overlaps: the clips that were never named; one that is named now gets this reason.
    """
    now, there = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), read(root)
    clips: dict[str, dict] = dict(there)
    for clip_id, times in spans.items():
        extra = {"overlaps": True} if clip_id in overlaps else {}
        said = clips.get(clip_id)
        if said is None or (said.get("overlaps") and clip_id not in overlaps):
            spans_before = {name: value for name, value in (said or {}).items() if name == "spans"}
            said = {"time": now, "reason": reason} | extra | spans_before
        known = {Span(**span) for span in said.get("spans", ())} | set(times)
        ordered = sorted(known, key=dataclasses.astuple)
        clips[clip_id] = said | {"spans": [dataclasses.asdict(span) for span in ordered]}
    _write(root, clips, found(root))


def remember(root: str, held: Iterable[Span]) -> None:
    """Adds the times of media that held a part of a purged clip; without a length where nobody knows the time."""
    there = found(root)
    if new := set(held) - there:
        _write(root, read(root), there | new)


def found(root: str) -> set[Span]:
    """What `remember` added; nothing where an older version wrote the file."""
    return {Span(**span) for span in _said(root).get("found", ())}


def _write(root: str, clips: Mapping[str, dict], held: Iterable[Span]) -> None:
    said: dict = {"clips": dict(sorted(clips.items()))}
    if ordered := sorted(held, key=dataclasses.astuple):
        said["found"] = [dataclasses.asdict(span) for span in ordered]
    text = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
    storage.write(storage.join(root, FILE), text.encode())


def _said(root: str) -> dict:
    """What the file says.

    Raises:
      FormatError: it is damaged. No command goes on then: it would bring back what was purged.
    """
    path = storage.join(root, FILE)
    try:
        said = own_json.parse(storage.read(path))
    except FileNotFoundError:
        return {"clips": {}}
    except ValueError as error:
        raise FormatError(f"{path} cannot be read: {error}; put a copy of it back") from error
    if not _is_sound(said):
        raise FormatError(f"{path} is not as it was written; put a copy of it back")
    return said


def _is_sound(said: object) -> bool:
    """Whether the values are what they must be; any program may have written the file."""
    if not isinstance(said, dict) or not isinstance(clips := said.get("clips"), dict):
        return False
    if not all(isinstance(clip, dict) and isinstance(clip.get("spans", []), list) for clip in clips.values()):
        return False
    times = [span for clip in clips.values() for span in clip.get("spans", ())]
    return isinstance(found := said.get("found", []), list) and all(map(_is_span, [*times, *found]))


def _is_span(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        span = Span(**value)
    except TypeError:  # other names than ours
        return False
    times = (span.start_us, span.end_us, span.media_start_us)
    return isinstance(span.source, str) and isinstance(span.digest, str) and all(type(time) is int for time in times)


def spans(root: str) -> Spans:
    """The times that all tombstones ban: not those of clips that nobody named, of which only the ids are banned."""
    clips = {clip_id: clip for clip_id, clip in read(root).items() if not clip.get("overlaps")}
    banned = [Span(**span) for clip in clips.values() for span in clip.get("spans", ())]
    if old := [clip_id for clip_id, clip in clips.items() if "spans" not in clip]:
        attempts = ledger.read(root, _COLUMNS)
        rows = attempts.filter(pc.is_in(attempts["clip_id"], pa.array(old, pa.string()))).to_pylist()
        banned += {span_of(row) for row in rows}
    held = found(root)
    timed = {span for span in held if span.end_us > span.start_us}
    return Spans([*banned, *timed], held - timed)


def span_of(row: Mapping) -> Span:
    """The span of a row of the ledger, or of a clip table, which has no digest."""
    return Span(
        source=row["source"],
        start_us=row["start_us"],
        end_us=row["end_us"],
        digest=row.get("digest") or "",
        media_start_us=row.get("media_start_us") or 0,
    )


def marked(table: pa.Table, root: str) -> pa.Table:
    """The rows of annotations, those of purged clips made invalid, and those that share half of their time."""
    clips = read(root)
    if not clips:
        return table
    by_id = pc.is_in(table["id"], pa.array(list(clips), pa.string()))
    table = _made_invalid(table, by_id, f"purged: {FILE} says why")
    return _made_invalid(table, _shares_half(table, spans(root)), f"shows half of a purged clip: {FILE} says why")


def _shares_half(table: pa.Table, purged: Spans) -> pa.Array:
    """Which rows that are valid share half of a purged clip's time."""
    by_source = functools.cache(purged.of)
    sources = pa.array([source for source in pc.unique(table["source"]).to_pylist() if by_source(source)], pa.string())
    valid = pc.equal(table["outcome"], Outcome.NOT_TRIED.value)
    places = pc.indices_nonzero(pc.and_(valid, pc.is_in(table["source"], sources)))
    some = table.select(["source", "start_us", "end_us"]).take(places).to_pylist()
    shared = [
        place
        for place, row in zip(places.to_pylist(), some, strict=True)
        if any(span.shares_half(row["start_us"], row["end_us"]) for span in by_source(row["source"]))
    ]
    return pc.is_in(pa.array(range(len(table)), pa.int64()), pa.array(shared, pa.int64()))


def _made_invalid(table: pa.Table, mask: pa.Array, detail: str) -> pa.Table:
    for name, value in (("outcome", Outcome.INVALID.value), ("reason", PURGED), ("detail", detail)):
        table = table.set_column(table.column_names.index(name), name, pc.if_else(mask, value, table[name]))
    return table
