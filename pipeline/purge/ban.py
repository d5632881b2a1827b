"""What a purge bans beyond the clips' own times: media of whatever source that held a part of them, before they go."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from mbt.pipeline import ledger, media, storage, tombstones
from mbt.pipeline.purge.holders import StoredFile
from mbt.pipeline.tombstones import Span


def by_time(root: str, files: Iterable[StoredFile], purged: tombstones.Spans) -> None:
    """Bans the bytes of files of the clips' sources under every other name; their times are banned already."""
    held = []
    for file in files:
        digest, _ = media.digest_of(storage.join(root, file.path))
        held += [
            dataclasses.replace(span, source=file.source, digest=digest, media_start_us=file.start_us)
            for span in purged.of(file.source)
        ]
    tombstones.remember(root, held)


def by_content(
    root: str, paths: Iterable[str], moments: Mapping[str, Sequence[tuple[int, int]]], purged: tombstones.Spans
) -> None:
    """Bans what was found in stored files: the times at which they show or play it, or else the files and sources.

    Args:
      root: of the dataset.
      paths: of the files, relative to `root`.
      moments: when some of them do, counted from their zero.
      purged: the clips' times.
    """
    lengths_us = [span.end_us - span.start_us for span in purged]
    sources, held = _sources(root), []
    for path in paths:
        digest, _ = media.digest_of(storage.join(root, path))
        start_us = media.start_of(path)
        together = joined(moments.get(path, ()), max(lengths_us, default=0))
        # A jingle that other films have too is no clip; its media are not stored, and its film's clips stay.
        clips = [(first, last) for first, last in together if 2 * (last - first) >= min(lengths_us, default=0)]
        for source in sources.get(path, {""}):
            span = Span(source=source, start_us=0, end_us=0, digest=digest, media_start_us=start_us)
            held += [
                dataclasses.replace(span, start_us=start_us + first, end_us=start_us + last) for first, last in clips
            ]
            held += [span] if len(clips) < max(1, len(together)) else []
    tombstones.remember(root, held)


def joined(moments: Iterable[tuple[int, int]], apart_us: int) -> list[tuple[int, int]]:
    """Moments that are closer together than a clip is long, as one time: between them may be what is not looked for."""
    times: list[tuple[int, int]] = []
    for first, last in sorted(moments):
        if times and first - times[-1][1] < apart_us:
            times[-1] = times[-1][0], max(times[-1][1], last)
        else:
            times.append((first, last))
    return times


def _sources(root: str) -> dict[str, set[str]]:
    """Those of stored files, by their paths."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    attempts = ledger.read(root, ["source", "media"])
    for source, path in zip(attempts["source"].to_pylist(), attempts["media"].to_pylist(), strict=True):
        found[path].add(source)
    return found
