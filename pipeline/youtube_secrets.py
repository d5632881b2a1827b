"""What a job may use and nobody may be told: cookies, and the passwords of proxies."""

import os
import urllib.parse
from collections.abc import Sequence

from mbt.pipeline.outcomes import StopError

_SECRET_CHARACTERS = 6  # a shorter cookie value hides nothing, and would be found in every text
_TABS = 6  # before the value, in a line of a cookies file


def read_cookies(path: str | None, text: str | None) -> str | None:
    """The cookies, in memory: yt-dlp would write the file back.

    Raises:
      StopError: the file cannot be read, or holds none.
    """
    if path is None:
        return None
    try:
        if text is None:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StopError(f"the cookies file {path} cannot be read: {why}") from error
    if not any(line.count("\t") >= _TABS for line in text.splitlines()):
        raise StopError(f"the cookies file {path} holds no cookies: export it again, in Netscape's format")
    return text


def secrets_of(cookies: str | None, proxy: str | None) -> list[str]:
    """What must not be told: cookie values, and what stands before the @ of a proxy."""
    values = [line.split("\t")[_TABS].strip() for line in (cookies or "").splitlines() if line.count("\t") >= _TABS]
    environment = [value for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    for url in filter(None, (proxy, *environment)):
        before = urllib.parse.urlsplit(url if "//" in url else f"//{url}").netloc.rpartition("@")[0]
        values += [part for part in (before, *before.split(":", 1)) if part]
        values += [urllib.parse.unquote(part) for part in before.split(":", 1)]
    return sorted({value for value in values if len(value) >= _SECRET_CHARACTERS}, key=len, reverse=True)


def hidden(secrets: Sequence[str], text: str) -> str:
    """A text with the secrets hidden."""
    for secret in secrets:
        text = text.replace(secret, "<hidden>")
    return text
