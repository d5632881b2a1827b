"""What is refused: what YouTube offers in a video's place, and a file that is not all of it."""

import os
from collections.abc import Sequence

from mbt.pipeline.outcomes import ONCE, TWICE, Failure, FetchError
from mbt.schemas.clip import MICROSECONDS, Outcome

_HEADS = (b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"free", b"mdat")


def check(info: dict, job: dict) -> None:
    """Refuses what yt-dlp would download, but is not the video."""
    if info.get("_type", "video") != "video" or info.get("id") != job["video"]:
        # Of a film that must be bought, YouTube offers the trailer.
        raise refused(Outcome.RESTRICTED, "paid", "YouTube offers another video in its place")
    if info.get("live_status") in ("is_live", "post_live", "is_upcoming"):
        raise refused(Outcome.RESTRICTED, "upcoming", "a live stream, which has no final recording yet")
    duration_s, span_us = info.get("duration"), job["span_us"]
    if duration_s and span_us and span_us[0] >= (duration_s + 1) * MICROSECONDS:
        raise refused(Outcome.UNUSABLE, "start_past_end", f"the video is {duration_s} s long")


def received(download: dict, job: dict, said: Sequence[str]) -> str:
    """The name of a finished file, which is there, is media, and is all of it."""
    path = download.get("filepath") or ""
    if not os.path.isfile(path):
        if any("larger than max-filesize" in message for message in said):
            raise too_large(job["max_bytes"])
        raise refused(Outcome.TRANSIENT, "no_file", "yt-dlp left no file", TWICE)
    size, promised = os.path.getsize(path), download.get("filesize")
    if not _is_media(path):
        raise refused(Outcome.TRANSIENT, "not_media", "what came is neither MP4 nor WebM", TWICE)
    if promised and "section_start" not in download and size < promised:
        raise refused(Outcome.TRANSIENT, "cut_short", f"{size} of {promised} bytes came", TWICE)
    return os.path.basename(path)


def _is_media(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] in _HEADS or head[:4] == b"\x1a\x45\xdf\xa3" or head[:1] == b"\x47"


def too_large(max_bytes: int) -> FetchError:
    """The error for a file over the limit."""
    return refused(Outcome.UNUSABLE, "too_large", f"over {max_bytes / (1 << 20):g} MiB")


def refused(outcome: Outcome, reason: str, detail: str, tries: int = ONCE) -> FetchError:
    """The error for what is refused."""
    return FetchError(Failure(outcome=outcome, reason=reason, detail=detail, tries=tries))
