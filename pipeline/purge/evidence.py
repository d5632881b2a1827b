"""What the search after a purge looks for, taken from what is there before anything is deleted."""

import re
import tempfile
from collections.abc import Iterator

from mbt.pipeline import extent, ffmpeg, leftovers, needles, probe, storage
from mbt.pipeline.purge import traces
from mbt.pipeline.purge.find import Finder, Found, opened
from mbt.pipeline.purge.holders import StoredFile
from mbt.pipeline.purge.traces import Look, Traces
from mbt.pipeline.tombstones import Span

_SMALLEST = 64  # bytes of a packet; smaller ones, such as those of silence, are anybody's
_BYTE_LIMIT = 1 << 30
_TIME_LIMIT_S = 3600.0
_LINE = re.compile(rb"^0, +(-?\d+|NOPTS), +(-?\d+|NOPTS), +(-?\d+), +(\d+), ", re.MULTILINE)
_TIME_BASE = re.compile(rb"^#tb 0: (\d+)/(\d+)$", re.MULTILINE)
_HEAD = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+error"]


class Evidence:
    """Gathers it, clip by clip."""

    def __init__(self, root: str, finder: Finder, found: Found):
        self._root = root
        self._finder = finder
        self._found = found
        self._program = finder.program

    def traces(self) -> Traces:
        """Of all clips that were named: of their media, or of their records where there are none any more."""
        gathered = Traces.none()
        for clip_id in sorted(self._finder.clip_ids):
            of_media = [one for span in self._spans(clip_id) if (one := self._of_span(span)) is not None]
            for one in of_media or self._of_records(clip_id):
                gathered += one
        return gathered

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """The packets of these spans, as any file that was cut or copied without decoding has them."""
        for clip_id in sorted(self._finder.clip_ids):
            for span in self._spans(clip_id):
                for file in self._files(span):
                    with storage.local_copy(storage.join(self._root, file.path)) as copy:
                        times = span.start_us - file.start_us, span.end_us - file.start_us
                        for kind in ("V", "a"):
                            yield from ((needles.PACKET, one) for one in packets(copy, kind, *times, self._program))

    def _spans(self, clip_id: str) -> list[Span]:
        there = set(self._finder.purged)
        return [span for span in self._finder.spans.get(clip_id, ()) if span in there]

    def _files(self, span: Span) -> list[StoredFile]:
        """Files that may hold a span: one that was fetched for it, or else others of its source."""
        return [
            self._finder.stored[path]
            for path in (*self._found.media, *self._found.released)
            if span in self._finder.purged.of(self._finder.stored[path].source)
        ]

    def _of_span(self, span: Span) -> Traces | None:
        for file in self._files(span):
            with storage.local_copy(storage.join(self._root, file.path)) as copy:
                held = extent.of(copy, self._program)
                start_us, end_us = span.start_us - file.start_us, span.end_us - file.start_us
                if held is None or not extent.overlaps(held, start_us, end_us):
                    continue
                if (own := traces.look_at(copy, start_us, end_us, self._program)) is not None:
                    around = traces.spans_around(start_us, end_us, held[1])
                    outside = (traces.look_at(copy, *times, self._program) for times in around)
                    return Traces.of(own, [one for one in outside if one is not None])
        return None

    def _of_records(self, clip_id: str) -> Iterator[Traces]:
        for stem, index in self._finder.indices.items():
            if clip_id not in index.ids or clip_id not in self._found.shards.get(stem, ()):
                continue
            with opened(self._root, stem, index) as old:
                pieces = index.frames(old.places[clip_id])
                frames = [old.read(int(piece["offset"]), int(piece["length"])) for piece in pieces]
            if (own := self._look_at(frames)) is not None:
                yield Traces.of(own, [])
                return

    def _look_at(self, frames: list[bytes]) -> Look | None:
        with tempfile.NamedTemporaryFile(prefix=leftovers.prefix("jpegs"), suffix=".mjpeg") as file:
            file.writelines(frames)
            file.flush()
            return traces.look_at_jpegs(file.name, self._program)


def packets(path: str, kind: str, start_us: int, end_us: int, program: str) -> Iterator[bytes]:
    """The packets of a stream of a local file that are of [start, end), counted from the file's zero."""
    source = ["-protocol_whitelist", "file,pipe", "-i", "file:" + path.replace("{", "{{").replace("}", "}}")]
    copy = ["-map", f"0:{kind}:0", "-c", "copy", "-copyts"]
    words = [*_HEAD, *source, *copy, "-f", "framecrc", "{0}", *copy, "-f", "data", "{1}"]
    try:
        result = ffmpeg.run(program, words, outputs=2, byte_limit=_BYTE_LIMIT, time_limit_s=_TIME_LIMIT_S)
        zero_us, at = probe.times(path, program).start_us, 0
    except (OverflowError, *ffmpeg.INPUT_FAULTS):
        return
    listed, data = (bytes(output) for output in result.outputs)
    if (base := _TIME_BASE.search(listed)) is None:
        return
    second = int(base[2]) / int(base[1])
    for _, shown, length, size in _LINE.findall(listed):
        packet = data[at : at + int(size)]
        at += int(size)
        if shown == b"NOPTS" or len(packet) < max(_SMALLEST, int(size)):
            continue
        first_us = int(shown) / second * 1e6 - zero_us
        if first_us < end_us and first_us + int(length) / second * 1e6 > start_us:
            yield packet
