"""What kind of thing a clip's source is, and what a record says of it."""

import os
import posixpath
from urllib.parse import quote, unquote, urlsplit

from mbt.pipeline import youtube
from mbt.pipeline.storage import is_local


def is_url(source: str) -> bool:
    """Whether a source is fetched over http(s)."""
    return source.lower().startswith(("http://", "https://"))


def identity(source: str) -> str:
    """What is the same for all ways to write one source: a video's id, a URL in its plain form, a file's real path."""
    if video := youtube.video_id(source):
        return f"youtube:{video}"
    if is_url(source):
        try:
            parts = urlsplit(source)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return source
        place = host if port in (None, 80, 443) else f"{host}:{port}"
        path = posixpath.normpath(unquote(parts.path) or "/").replace("//", "/")
        return f"//{place}{quote(path)}{'?' if parts.query else ''}{parts.query}"
    return os.path.realpath(source) if is_local(source) else source


def stays_in_place(source: str) -> bool:
    """Whether a source is a file on this machine, which is read where it lies."""
    return not is_url(source) and is_local(source)


def data_path(source: str, media_root: str) -> str:
    """What a record says of its source: its path below the media root, its whole path elsewhere, or its URL."""
    if not stays_in_place(source):
        return source
    below = os.path.relpath(source, media_root)
    return source if below.split(os.sep)[0] == os.pardir else below


def media_id(source: str) -> str:
    """The YouTube id, or the stem of the file's name."""
    if video := youtube.video_id(source):
        return video
    return os.path.splitext(os.path.basename(source.partition("?")[0] if is_url(source) else source))[0]
