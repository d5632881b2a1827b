"""What the ledger and the media store know of the clips of the annotations, and what is left to fetch."""

import dataclasses
import datetime
import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import media
from mbt.pipeline.fetch import settled
from mbt.pipeline.ledger import RELEASED, ROUND
from mbt.pipeline.reasons import RULES
from mbt.pipeline.sources import media_id
from mbt.pipeline.writer import WHOLE, Part
from mbt.schemas.clip import Outcome
from mbt.schemas.index import FIRST_RULES

# What becomes of a row in the fetch plan, beside the row itself.
_ASKED = ["id", "source", "start_us", "end_us"]
_ROWS_AT_A_TIME = 1024
_NO_RULE = pa.scalar(None, pa.int32())
_REMOVED = [Outcome.GONE.value, Outcome.RESTRICTED.value]
_PASSING = [Outcome.BLOCKED.value, Outcome.TRANSIENT.value]  # these say nothing of a source
_CARRIED = ["outcome", "signature", "digest", "media", "media_start_us"]
_TEXTS = ["outcome", "reason", "detail", "media", "digest", "signature"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recheck:
    """What a refresh asks again.

    Attributes:
      outcomes: the newest word on a clip is one of these,
      before: and older than this time, in UTC.
    """

    outcomes: frozenset[str]
    before: datetime.datetime


def of(table: pa.Table, state: pa.Table) -> pa.Table:
    """The ledger's newest word on each clip of `table`; empty strings where there is none about the same media.

    A file on this machine is the same media whatever the span; what was fetched was fetched for a span.
    """
    places = pc.index_in(table["id"], value_set=state["clip_id"].combine_chunks())
    found = state.take(places)
    same_span = pc.and_(pc.equal(found["start_us"], table["start_us"]), pc.equal(found["end_us"], table["end_us"]))
    same = pc.and_(pc.equal(found["source"], table["source"]), pc.or_(same_span, pc.invert(is_remote(table))))
    same = pc.fill_null(same, False)
    columns = {name: pc.if_else(same, pc.fill_null(found[name], ""), "") for name in _TEXTS}
    columns["media_start_us"] = pc.if_else(same, pc.fill_null(found["media_start_us"], 0), 0)
    columns["rule"] = pc.fill_null(found["rule"], FIRST_RULES)
    columns |= {name: found[name] for name in ("time", "run", "attempt")}
    for name in ("in_storm", "mostly_gone"):
        columns[name] = pc.and_(same, pc.fill_null(found[name], False))
    return pa.table(columns)


def is_remote(table: pa.Table) -> pa.ChunkedArray:
    """Which clips' sources are not files on this machine."""
    return pc.match_substring_regex(table["source"], "^[A-Za-z][A-Za-z0-9+.-]*://")


def is_there(known: pa.Table, *, drop_removed: bool = False) -> pa.ChunkedArray:
    """Which clips were fetched, whatever became of their sources since; of these the removed ones may be left out."""
    fetched = pc.not_equal(known["digest"], "")
    if not drop_removed:
        return fetched
    return pc.and_(fetched, pc.invert(pc.is_in(known["outcome"], value_set=pa.array(_REMOVED))))


def is_removed(known: pa.Table) -> pa.ChunkedArray:
    """Which clips were fetched, and were not online when they were last asked for."""
    return pc.and_(is_there(known), pc.is_in(known["outcome"], value_set=pa.array(_REMOVED)))


def is_unanswered(known: pa.Table) -> pa.ChunkedArray:
    """Which clips were fetched, and nobody could be reached when they were last asked for."""
    return pc.and_(is_there(known), pc.is_in(known["outcome"], value_set=pa.array(_PASSING)))


def is_outdated(known: pa.Table) -> pa.ChunkedArray:
    """Which clips older rules refused, that are to be tried once more."""
    refused = pc.and_(pc.equal(known["outcome"], Outcome.UNUSABLE.value), pc.less(known["rule"], RULES))
    return pc.and_(refused, pc.invert(is_there(known)))


def with_outcomes(table: pa.Table, state: pa.Table, *, drop_removed: bool = False) -> dict[str, pa.ChunkedArray]:
    """The columns of `table`, with what the ledger says of each clip; one that was fetched is ok."""
    known = of(table, state)
    there = is_there(known, drop_removed=drop_removed)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name in ("reason", "detail"):
        columns[name] = pc.if_else(there, "", known[name])
    columns["mostly_gone"] = pc.and_(pc.invert(there), known["mostly_gone"])
    tried = pc.if_else(pc.equal(known["outcome"], ""), Outcome.NOT_TRIED.value, known["outcome"])
    columns["outcome"] = pc.if_else(there, Outcome.OK.value, tried)
    columns["rule"] = pc.if_else(pc.equal(columns["outcome"], Outcome.UNUSABLE.value), known["rule"], _NO_RULE)
    # Local media lie where the source says; half of the digest is as good, and both are millions of long strings.
    columns["media"] = pc.if_else(pc.equal(known["media"], table["source"]), "", known["media"])
    columns["media_start_us"] = known["media_start_us"]
    columns["released"] = pc.equal(known["signature"], RELEASED)
    columns["digest"] = pc.utf8_slice_codeunits(known["digest"], 0, 32)
    return columns


def to_fetch(
    table: pa.Table,
    state: pa.Table,
    store: dict[str, str],
    *,
    run: int,
    part: Part = WHOLE,
    copies: dict[str, tuple[str, bool]] | None = None,
    most: int | None = None,
    recheck: Recheck | None = None,
    anew: bool = False,
) -> pa.Table:
    """The rows of the fetch plan: what is not settled, sorted by source.

    Args:
      table: the clips.
      state: of the ledger.
      store: what the media store holds, by key.
      run: this one; attempts are numbered on from those that it made already.
      part: of the sources, to fetch in this run.
      copies: a lab's own copies: clip id to the path and whether that is cut to the clip; then nothing else is asked.
      most: how many rows at most; those never tried come first.
      recheck: ask again only what this says, and of what was fetched whether it is still online.
      anew: all of them, for records must be made of their media, and those that were there are not any more.
    """
    known = of(table, state)
    if anew:
        is_left, is_asked = pc.invert(_nowhere(known)), _nowhere(known)
    else:
        is_left, is_asked = _left(known, is_remote(table), store, recheck, every=copies is not None)
    carried = {f"known_{name}": known[name] for name in _CARRIED}
    carried["failing"] = _failing(known)
    next_round = pc.multiply(pc.add(pc.divide(known["attempt"], ROUND), 1), ROUND)
    made = pc.if_else(pc.fill_null(pc.equal(known["run"], run), False), next_round, 0)
    ways = {"ask": is_asked, "anew": pa.repeat(anew, len(table))}
    rows = pa.table({name: table[name] for name in _ASKED} | carried | ways | {"attempts": made})
    rows = _with_copies(rows.filter(pc.or_(is_left, is_asked)), store, copies)
    if copies is not None:
        rows = rows.filter(pc.not_equal(rows["copy"], ""))
    if part.of > 1:
        rows = rows.filter(pa.array([part_of(source, part.of) == part.number for source in rows["source"].to_pylist()]))
    if most is not None and most < len(rows):
        tried = pc.cast(pc.not_equal(rows["known_outcome"], ""), pa.int8()).to_numpy()
        rows = rows.take(pa.array(np.sort(np.argsort(tried, kind="stable")[:most])))
    return rows.take(pc.sort_indices(rows, [("source", "ascending"), ("start_us", "ascending"), ("id", "ascending")]))


def identities(table: pa.Table) -> Iterator[dict]:
    """What a file's name can say of each clip: its id, its source's id, its times."""
    for batch in table.select(_ASKED).to_batches(_ROWS_AT_A_TIME):
        for row in batch.to_pylist():
            yield row | {"media_id": media_id(row["source"])}


def part_of(source: str, parts: int) -> int:
    """Which part, from 1, a source belongs to: the clips of one video are fetched together."""
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") % parts + 1


def is_held(known: pa.Table, store: dict[str, str]) -> pa.ChunkedArray:
    """Of which clips the media are in the store, or were deleted because they are in a shard."""
    stored = pc.is_in(known["media"], value_set=pa.array(list(store.values()), pa.string()))
    return pc.or_(stored, pc.equal(known["signature"], RELEASED))


def is_old_cut(known: pa.Table, store: dict[str, str]) -> pa.ChunkedArray:
    """Of which clips the store has media that an older rule cut."""
    old = [path for path in store.values() if media.is_old_cut(path)]
    return pc.is_in(known["media"], value_set=pa.array(old, pa.string()))


def _left(
    known: pa.Table, remote: pa.ChunkedArray, store: dict[str, str], recheck: Recheck | None, *, every: bool
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Which clips to fetch, and which to ask for only. Files on this machine are looked at every time, by workers."""
    fetched = is_there(known)
    there = pc.and_(fetched, is_held(known, store))
    lost = pc.and_(fetched, pc.invert(there))
    if every:
        return pc.invert(there), _nowhere(known)
    if recheck is None:
        settled_ = pc.and_(_is_settled(known, fetched), pc.invert(is_outdated(known)))
        return pc.invert(pc.and_(remote, pc.or_(there, settled_))), _nowhere(known)
    old = pc.fill_null(pc.less(known["time"], pa.scalar(recheck.before, known["time"].type)), False)
    named = pc.and_(old, pc.is_in(known["outcome"], value_set=pa.array(sorted(recheck.outcomes), pa.string())))
    new = pc.equal(known["outcome"], "")
    named = pc.or_(named, _is_in_doubt(known))  # nothing of that was ever settled
    again = pc.or_(pc.and_(named, pc.invert(fetched)), is_outdated(known))
    return (
        pc.or_(pc.or_(new, lost), pc.or_(again, pc.invert(remote))),
        pc.and_(pc.and_(named, there), remote),
    )


def _failing(known: pa.Table) -> pa.ChunkedArray:
    """Which clips' sources failed when they were last asked for, beyond doubt: it is expected again."""
    answered = pc.is_in(known["outcome"], value_set=pa.array(["", Outcome.OK.value]))
    return pc.and_(pc.invert(answered), pc.invert(_is_in_doubt(known)))


def _is_in_doubt(known: pa.Table) -> pa.ChunkedArray:
    """Of which clips the newest word was heard of a host that said the like of most."""
    return pc.or_(known["in_storm"], known["mostly_gone"])


def _is_settled(known: pa.Table, fetched: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which clips without media need no attempt."""
    words = pa.table({"outcome": known["outcome"], "reason": known["reason"]}).group_by(["outcome", "reason"])
    mask = _nowhere(known)
    for word in words.aggregate([]).to_pylist():
        if word["outcome"] != Outcome.OK and settled(word["outcome"], word["reason"]):
            same = pc.and_(pc.equal(known["outcome"], word["outcome"]), pc.equal(known["reason"], word["reason"]))
            mask = pc.or_(mask, same)
    return pc.and_(mask, pc.invert(pc.or_(fetched, _is_in_doubt(known))))


def _nowhere(table: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(False, len(table))])


def _with_copies(rows: pa.Table, store: dict[str, str], copies: dict[str, tuple[str, bool]] | None) -> pa.Table:
    """Adds, of each row, the media that are there already: in the store, or in a lab's folder."""
    paths, are_clips = [], []
    for batch in rows.select(_ASKED).to_batches(_ROWS_AT_A_TIME) if store or copies else ():
        for row in batch.to_pylist():
            stored = store.get(media.key(row["source"], row["start_us"], row["end_us"]), "")
            path, is_clip = (copies or {}).get(row["id"], (stored, False))
            paths.append(path)
            are_clips.append(is_clip)
    if not (store or copies):
        paths, are_clips = [""] * len(rows), [False] * len(rows)
    return rows.append_column("copy", pa.array(paths, pa.string())).append_column(
        "copy_is_clip", pa.array(are_clips, pa.bool_())
    )
