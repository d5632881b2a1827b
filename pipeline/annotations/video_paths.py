"""Where a video lies: paths below the media root, and URLs."""

import os
import posixpath
import re
from urllib.parse import quote

from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError, shown

SCHEMES = "http(s), gs or s3"
_URL = re.compile(r"(?:https?|gs|s3)://[^\s/]+", re.IGNORECASE)
# What buckets are called, and the names that Amazon gives to ways to them; then the object.
_OBJECT = re.compile(r"(?:gs|s3)://[A-Za-z0-9._:-]+/.", re.IGNORECASE | re.DOTALL)
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_STORE = re.compile(r"(?:gs|s3)://", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.IGNORECASE)


def is_url(path: str) -> bool:
    """Whether it is a URL that can be fetched."""
    return bool(_URL.match(path))


def source(path: str, media_root: str, column: str) -> str:
    """The local path, or URL, of a video that may be given relative to the media root.

    Raises:
      BadRowError: an unknown scheme, a URL of nothing, a password in it, or a path that leads out of the media root.
    """
    if _CREDENTIALS.match(path):
        raise BadRowError(
            "credentials_in_url", f"{shown(redacted(path))} had a name or password before the '@': take it out", column
        )
    if _HTTP.match(path) and not is_url(path):
        raise BadRowError("bad_url", f"{shown(path)} names no host", column)
    if _STORE.match(path) and not _OBJECT.match(path):
        raise BadRowError("bad_url", f"{shown(path)} does not name a bucket and an object in it", column)
    if is_url(path):
        return path
    if _SCHEME.match(path):
        raise BadRowError("unknown_scheme", f"{shown(path)} is neither a local path nor a {SCHEMES} URL", column)
    return path if os.path.isabs(path) else below(path, media_root, column)


def below(path: str, media_root: str, column: str) -> str:
    """A relative path joined to the media root.

    Raises:
      BadRowError: it is absolute, or leads out of the media root.
    """
    if os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir:
        raise BadRowError("outside_media_root", f"{shown(path)} leads out of {media_root}", column)
    if not is_url(media_root):
        return os.path.join(media_root, path)
    path = posixpath.normpath(path)
    return f"{media_root.rstrip('/')}/{quote(path) if _HTTP.match(media_root) else path}"


def check_media_root(media_root: str) -> None:
    """Refuses a media root whose password would end in every row."""
    if _CREDENTIALS.match(media_root):
        raise AnnotationsError(
            f"--media_root={redacted(media_root)} had a name or password before the '@': take it out"
        )
    if _SCHEME.match(media_root) and not is_url(media_root):
        raise AnnotationsError(f"--media_root={media_root} is neither a folder nor a {SCHEMES} URL")


def redacted(text: str) -> str:
    """The text without what stands before the '@' of its URLs."""
    return _CREDENTIALS.sub(r"\1***@", text)
