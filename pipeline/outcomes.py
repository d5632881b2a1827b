"""Why a clip could not be fetched: an error, or an HTTP status, to an outcome, a reason and a number of tries.

Types and statuses are looked at first, text second, in the order of the rules below. A message that no rule knows is
retryable: only a known message of YouTube's makes a video `gone`. The texts are those of yt-dlp 2026.08.19
(`yt_dlp/YoutubeDL.py`, `extractor/youtube/_video.py`, `downloader/`) and, passed through by it, of YouTube in English.
"""

import datetime
import email.utils
import errno
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mbt.schemas.clip import Outcome

RETRY_AFTER_CAP_S = 3600.0  # a server may ask for days; by then another run has been started
RATE_LIMITED_S = 3600.0  # "for up to an hour", says yt-dlp of YouTube's limit on a session
MAX_DETAIL = 300
_MAX_READ = 2000  # of a text that may be as long as a page

ONCE, TWICE, THRICE = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How an attempt ended that did not bring media.

    Attributes:
      outcome: of the attempt.
      reason: one stable word.
      detail: a sentence for a person, in ASCII; it holds no URL, no cookie and no password.
      retry_after_s: how long we were asked to wait, in seconds; None where nobody said.
      tries: how many tries, the first one included, this kind of failure deserves within one run.
    """

    outcome: Outcome
    reason: str
    detail: str
    retry_after_s: float | None = None
    tries: int


class FetchError(Exception):
    """One source could not be fetched; `failure` says why."""

    def __init__(self, failure: Failure):
        super().__init__(failure.detail)
        self.failure = failure


class StopError(Exception):
    """The machine or the settings are at fault, not a source: the whole run must stop. The message says what to do."""


class _Rule:
    """What a text says where the pattern is found in it."""

    def __init__(self, pattern: str, outcome: Outcome, reason: str, tries: int = ONCE, wait_s: float | None = None):
        self.pattern = re.compile(pattern, re.IGNORECASE)
        self._outcome, self._reason, self._tries, self._wait_s = outcome, reason, tries, wait_s

    @property
    def final(self) -> bool:
        """Whether nobody will ask again."""
        return self._outcome == Outcome.GONE

    def failure(self, text: str) -> Failure:
        """The failure, with the text as its detail."""
        return _failure(self._outcome, self._reason, text, self._tries, self._wait_s)


# YouTube refuses us, not the video; said as an error, or as a warning of one of its clients.
_REFUSALS = (
    # "Video unavailable. This content isn't available, try again later": before everything that is final.
    _Rule(r"try again later|rate-limit", Outcome.BLOCKED, "rate_limited", ONCE, RATE_LIMITED_S),
    _Rule(r"content isn't available", Outcome.BLOCKED, "refused", TWICE),
    _Rule(r"not a bot", Outcome.BLOCKED, "bot_check", TWICE),
    _Rule(r"captcha", Outcome.BLOCKED, "captcha", TWICE),
    _Rule(r"IP is likely being blocked", Outcome.BLOCKED, "ip_blocked", TWICE),
    _Rule(r"page needs to be reloaded", Outcome.BLOCKED, "client_refused", TWICE),
)

# Connections, in the words of yt-dlp, urllib3 and Python.
_NETWORK = (
    _Rule(r"407 Proxy Authentication", Outcome.BLOCKED, "proxy_refused", TWICE),
    _Rule(r"redirect loop", Outcome.TRANSIENT, "redirect_loop", TWICE),
    _Rule(
        r"content too short|downloaded \d+ bytes, expected|\d bytes read|IncompleteRead",
        Outcome.TRANSIENT,
        "cut_short",
        THRICE,
    ),
    _Rule(r"timed out", Outcome.TRANSIENT, "timeout", THRICE),
    _Rule(r"connect to proxy|tunnel connection failed", Outcome.TRANSIENT, "proxy", THRICE),
    _Rule(r"connection (?:aborted|reset|refused|broken)|unreachable|SSL", Outcome.TRANSIENT, "connection", THRICE),
)

# The first one found counts. Where one text holds the words of two rules, the comment says why this one stands first.
_RULES = (
    *_REFUSALS,
    # These three may say "sign in" too.
    _Rule(r"confirm your age|age-restricted|inappropriate for some users", Outcome.RESTRICTED, "age"),
    _Rule(r"private video|video is private", Outcome.RESTRICTED, "private"),
    _Rule(r"members-only|channel's members|join this channel", Outcome.RESTRICTED, "members_only"),
    # Before "copyright grounds" and "not available".
    _Rule(r"blocked it in your country|available in your country|from your location", Outcome.RESTRICTED, "geo"),
    _Rule(r"live event (?:will begin|has ended)|premieres in|premiere will begin", Outcome.RESTRICTED, "upcoming"),
    _Rule(r"account associated with this video has been terminated", Outcome.GONE, "account_terminated"),
    _Rule(r"closed their (?:youtube )?account", Outcome.GONE, "account_closed"),
    _Rule(r"removed by the uploader", Outcome.GONE, "removed_by_uploader"),
    _Rule(r"has been removed for violating", Outcome.GONE, "removed_for_violation"),
    _Rule(r"due to a copyright claim|blocked it on copyright grounds", Outcome.GONE, "copyright"),
    _Rule(r"due to a privacy claim", Outcome.GONE, "privacy_claim"),
    _Rule(r"video does not exist|video isn't available anymore", Outcome.GONE, "does_not_exist"),
    _Rule(r"live stream recording is not available", Outcome.GONE, "no_recording"),
    _Rule(r"DRM protected", Outcome.RESTRICTED, "drm"),
    _Rule(
        r"requires payment|must be rented|rental|(?:YouTube|Music) Premium|Premium members|premium-only",
        Outcome.RESTRICTED,
        "paid",
    ),
    _Rule(r"only available for registered users|sign in|LOGIN_REQUIRED", Outcome.RESTRICTED, "login"),
    _Rule(r"other websites has been disabled", Outcome.TRANSIENT, "format_unavailable", TWICE),
    # The transfer of the media. It never says that a video is gone: its URLs expire and are refused.
    _Rule(r"file is larger than max-filesize", Outcome.UNUSABLE, "too_large"),
    _Rule(r"did not get any data blocks|downloaded file is empty", Outcome.BLOCKED, "no_data", TWICE),
    _Rule(r"fragment \d+ not found|fragment retries", Outcome.TRANSIENT, "fragment", THRICE),
    _Rule(r"ffmpeg exited with code -25\b", Outcome.UNUSABLE, "too_large"),  # SIGXFSZ: past the limit on a file
    _Rule(r"ffmpeg exited with code", Outcome.TRANSIENT, "range_failed", TWICE),
    _Rule(r"incomplete data received", Outcome.TRANSIENT, "incomplete_data", THRICE),
    # The row itself.
    _Rule(r"incomplete youtube id", Outcome.INVALID, "bad_id"),
    _Rule(r"invalid URL:|is not a valid URL|unsupported URL|no suitable extractor", Outcome.INVALID, "bad_url"),
    # The extractor is older than the site.
    _Rule(r"cannot identify player|cannot extract signature timestamp", Outcome.BLOCKED, "extractor_broke", TWICE),
    *_NETWORK,
    _Rule(r"got error:|unable to download video data", Outcome.TRANSIENT, "download_failed", THRICE),
)

# Nothing but these words: the text may also mean a client, a region or an address that is refused.
_UNAVAILABLE = re.compile(
    r"(?:YouTube said: )?(?:(?:video unavailable|this video is (?:unavailable|not available))[. ]*)+", re.IGNORECASE
)
_FFMPEG_FAILED = re.compile(r"ffmpeg exited with code (?!-25\b)")
_NO_FORMAT = re.compile(r"Requested format is not available")
_NO_FORMATS = re.compile(r"No video formats found")
_NO_ANSWER = re.compile(r"Failed to extract any player response")
_STATUS = re.compile(r"HTTP Error (\d{3})")
_REPORT_THIS = re.compile(r";? *please report this issue on|confirm you are on the latest version", re.IGNORECASE)
_POSTPROCESSING = re.compile(r"Postprocessing: ", re.IGNORECASE)
_DAMAGED = re.compile(
    r"Invalid data found|moov atom not found|Conversion failed|Error opening input|could not find codec|End of file",
    re.IGNORECASE,
)

_NO_JAVASCRIPT = re.compile(r"No supported JavaScript runtime")
_TOKEN_TROUBLE = re.compile(
    r"n challenge solving failed|signature solving failed|only images are available|missing a URL|PO Token",
    re.IGNORECASE,
)
_STOPS = (
    (r"ffmpeg is not installed|ffmpeg (?:could )?not (?:be )?found|ffprobe and ffmpeg not found", "ffmpeg is missing"),
    (r"Unable to create directory|unable to open for writing|unable to write data", "a folder cannot be written to"),
    (r"cannot be partially downloaded", "yt-dlp cannot download a part of this: use --download=whole"),
    (r"Login with OAuth|No player clients have been requested", "yt-dlp refuses its settings"),
)
_STOP_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _STOPS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MACHINE = (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
_JAVASCRIPT_MISSING = "YouTube needs a JavaScript runtime, and none runs here: pip install deno"


def classify(error: BaseException, warnings: Sequence[str] = ()) -> Failure:
    """What an exception of yt-dlp's, or of the system, says of the source.

    Args:
      error: as `YoutubeDL.extract_info` raises it; what it wraps is looked at too.
      warnings: yt-dlp's in the same call. It reports as warnings what went wrong with each of YouTube's clients, and
        only then raises an error that says little.

    Raises:
      StopError: the machine or the settings are at fault.
    """
    if isinstance(error, FetchError):
        return error.failure
    if isinstance(error, StopError):
        raise error
    chain = list(_chain(error))
    text = _text(chain)
    for stage in (_of_the_machine, _of_its_type, _of_its_text):
        if (failure := stage(chain, text, warnings)) is not None:
            return failure
    return _failure(Outcome.TRANSIENT, "unknown", text or type(error).__name__, TWICE)


def classify_status(status: int, headers: Mapping[str, str]) -> Failure:
    """What the status of a direct http(s) download, other than 200 and 206, says of the file.

    Args:
      status: of the last answer.
      headers: its headers; `Retry-After` is read, in seconds or as a date (RFC 9110, section 10.2.3).
    """
    outcome, tries = _OF_STATUS.get(status, (Outcome.TRANSIENT, THRICE if status >= 500 else TWICE))
    retry_after_s = retry_after(headers)
    detail = f"the server answered with HTTP status {status}"
    return Failure(outcome=outcome, reason=f"http_{status}", detail=detail, retry_after_s=retry_after_s, tries=tries)


def internal_error(error: Exception) -> Failure:
    """What is left of an error that nobody foresaw: where it was raised, for its text may hold secrets."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    detail = f"{type(error).__name__} in {place.name}, line {place.lineno}"
    return Failure(outcome=Outcome.TRANSIENT, reason="internal_error", detail=detail, tries=ONCE)


_OF_STATUS = {
    404: (Outcome.GONE, ONCE),
    410: (Outcome.GONE, ONCE),
    401: (Outcome.RESTRICTED, ONCE),
    402: (Outcome.RESTRICTED, ONCE),
    451: (Outcome.RESTRICTED, ONCE),
    403: (Outcome.BLOCKED, TWICE),
    407: (Outcome.BLOCKED, TWICE),
    429: (Outcome.BLOCKED, THRICE),
    408: (Outcome.TRANSIENT, THRICE),
    425: (Outcome.TRANSIENT, THRICE),
}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, at most `RETRY_AFTER_CAP_S`; None where it is absent or makes no sense."""
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if value.isdecimal() and value.isascii():
        return min(float(value[:9]), RETRY_AFTER_CAP_S)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:  # "-0000": UTC, of unknown origin
        when = when.replace(tzinfo=datetime.UTC)
    wait_s = (when - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(wait_s, 0.0), RETRY_AFTER_CAP_S)


def plain(text: str) -> str:
    """A text of somebody else's as one line of ASCII, without anything that could be a secret or a signed URL."""
    text = text[:_MAX_READ].replace("\u2019", "'")
    text = re.sub(r"\x1b\[[0-9;]*m|^(?:ERROR|WARNING): ?", "", text)
    text = re.sub(r"^\s*\[[a-z:]+\] (?:[\w-]{11}: )?", "", text)
    text = re.sub(r" \(caused by .*|[;.]? *please report this issue on .*", "", text, flags=re.IGNORECASE | re.DOTALL)
    text = re.sub(r"\.? *(?:Use --cookies|It is recommended to use|You might want to use).*", "", text, flags=re.DOTALL)
    text = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]{2}\S*|\S*[^\s/]@\S+|\S*/\S*[?=]\S*", "<address>", text)
    text = re.sub(r"(?i)\b((?:set-)?cookies?|authorization|proxy-authorization)\s*[:=].*", r"\1 <hidden>", text)
    text = " ".join(text.encode("ascii", "replace").decode().split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 3] + "..."


def _failure(outcome: Outcome, reason: str, detail: str, tries: int, retry_after_s: float | None = None) -> Failure:
    return Failure(outcome=outcome, reason=reason, detail=plain(detail), retry_after_s=retry_after_s, tries=tries)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps, outermost first."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        wrapped = getattr(current, "exc_info", None)
        waiting.append(wrapped[1] if isinstance(wrapped, tuple) and len(wrapped) == 3 else None)
        waiting += [getattr(current, "cause", None), current.__cause__, current.__context__]


def _text(chain: Sequence[BaseException]) -> str:
    """The message; of an extractor's error without the video's id, which may be any eleven characters."""
    text = next((error.orig_msg for error in chain if hasattr(error, "orig_msg")), str(chain[0]))
    return text.replace("\u2019", "'").strip()


def _names(error: BaseException) -> set[str]:
    """Names of an exception's types, of Python's and yt-dlp's own (urllib3 has an HTTPError too, which means less).

    By name, so that nobody needs to import yt-dlp for it: that takes half a second.
    """
    return {
        kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in ("builtins", "yt_dlp")
    }


def _first(chain: Sequence[BaseException], *names: str) -> BaseException | None:
    return next((error for error in chain if _names(error) & set(names)), None)


def _of_the_machine(chain: Sequence[BaseException], text: str, warnings: Sequence[str]) -> Failure | None:
    for error in chain:
        if isinstance(error, OSError):
            _stop_for(error, chain)
            if error.errno == errno.EFBIG:
                return _failure(Outcome.UNUSABLE, "too_large", "the file is larger than allowed", ONCE)
    if _first(chain, "CookieLoadError"):
        raise StopError("the cookies file cannot be read: export it again, in Netscape's format")
    if _first(chain, "UnsupportedRequest", "NoSupportingHandlers"):
        raise StopError(f"yt-dlp cannot use this proxy or address: {plain(text)}")
    if _first(chain, "SameFileError"):
        raise StopError(f"yt-dlp refuses its settings: {plain(text)}")
    for pattern, advice in _STOP_PATTERNS:
        if pattern.search(text):
            raise StopError(f"{advice} ({plain(text)})")
    return _of_postprocessing(chain, text)


def _stop_for(error: OSError, chain: Sequence[BaseException]) -> None:
    if error.errno in _FULL:
        raise StopError("the disk is full: make room and run the same command again") from error
    # What a network call raises may carry the same numbers (EACCES for a firewall): only files count here.
    if error.errno in _MACHINE and not _first(chain, "RequestError"):
        raise StopError(f"a file cannot be written: {error.strerror}") from error


def _of_postprocessing(chain: Sequence[BaseException], text: str) -> Failure | None:
    if not (_first(chain, "PostProcessingError") or _POSTPROCESSING.search(text)):
        return None
    if _DAMAGED.search(text):
        return _failure(Outcome.TRANSIENT, "not_media", text, TWICE)
    raise StopError(f"ffmpeg failed on this machine: {plain(text)}")


def _of_its_type(chain: Sequence[BaseException], text: str, warnings: Sequence[str]) -> Failure | None:
    for names, judge in _JUDGES:
        if (error := _first(chain, *names)) is not None:
            return judge(error, text)
    return None


def _of_http(error: BaseException, text: str) -> Failure:
    status = int(getattr(error, "status", 0))
    if getattr(error, "redirect_loop", False):
        return _failure(Outcome.TRANSIENT, "redirect_loop", text, TWICE)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return _of_status(status, text, retry_after(dict(headers)))


def _of_status(status: int, text: str, retry_after_s: float | None = None) -> Failure:
    """Of any of YouTube's servers: 404 and 410 come and go there."""
    outcome, tries = _OF_STATUS.get(status, (Outcome.TRANSIENT, THRICE if status >= 500 else TWICE))
    if outcome == Outcome.GONE:
        outcome, tries = Outcome.TRANSIENT, TWICE
    if 300 <= status < 400:
        return _failure(Outcome.TRANSIENT, "redirect_loop", text, TWICE)
    return _failure(outcome, f"http_{status}", text, tries, retry_after_s)


def _of_transport(error: BaseException, text: str) -> Failure:
    names = _names(error)
    if "ProxyError" in names and "407" in text:
        return _failure(Outcome.BLOCKED, "proxy_refused", "the proxy wants another user or password", TWICE)
    if "timed out" in text:
        names.add("TimeoutError")
    reason, detail = next(why for name, *why in _TRANSPORT if name in names)
    return _failure(Outcome.TRANSIENT, reason, detail, THRICE)


_TRANSPORT = (
    (
        "CertificateVerifyError",
        "tls",
        "the server's certificate is not trusted; behind a proxy that inspects TLS set SSL_CERT_FILE",
    ),
    ("ProxyError", "proxy", "the connection through the proxy failed"),
    ("SSLError", "tls", "the TLS connection failed"),
    ("IncompleteRead", "cut_short", "the connection ended before the file did"),
    ("ContentTooShortError", "cut_short", "the connection ended before the file did"),
    ("TimeoutError", "timeout", "the server did not answer in time"),
    ("BaseException", "connection", "the connection failed"),
)


def _of_geography(error: BaseException, text: str) -> Failure:
    return _failure(Outcome.RESTRICTED, "geo", text, ONCE)


def _of_bad_url(error: BaseException, text: str) -> Failure:
    return _failure(Outcome.INVALID, "bad_url", "yt-dlp does not know this kind of URL", ONCE)


def _of_not_live(error: BaseException, text: str) -> Failure:
    return _failure(Outcome.RESTRICTED, "upcoming", text, ONCE)


_JUDGES: tuple[tuple[tuple[str, ...], Callable[[BaseException, str], Failure]], ...] = (
    (("HTTPError",), _of_http),
    (("TransportError", "ContentTooShortError", "TimeoutError", "ConnectionError"), _of_transport),
    (("GeoRestrictedError",), _of_geography),
    (("UnsupportedError",), _of_bad_url),
    (("UserNotLive",), _of_not_live),
)


def _of_its_text(chain: Sequence[BaseException], text: str, warnings: Sequence[str]) -> Failure | None:
    broken = _extractor_broke(chain, text)
    if status := _STATUS.search(text):
        return _of_status(int(status[1]), text)
    if _FFMPEG_FAILED.search(text) and (failure := _of_warnings(text, [plain(warning) for warning in warnings])):
        return failure
    for rule in _RULES:
        # What yt-dlp asks to have reported is its own confusion, and never final.
        if rule.pattern.search(text) and not (broken and rule.final):
            return rule.failure(text)
    if _NO_FORMAT.search(text) or _NO_FORMATS.search(text) or _NO_ANSWER.search(text):
        return _of_no_format(text, warnings)
    if _UNAVAILABLE.fullmatch(text):
        return _failure(Outcome.TRANSIENT, "unavailable", text, ONCE)
    return _failure(Outcome.BLOCKED, "extractor_broke", f"{text} (a newer yt-dlp may help)", TWICE) if broken else None


def _extractor_broke(chain: Sequence[BaseException], text: str) -> bool:
    unexpected = any(getattr(error, "expected", True) is False for error in chain if hasattr(error, "orig_msg"))
    return unexpected or bool(_REPORT_THIS.search(text))


def _of_no_format(text: str, warnings: Sequence[str]) -> Failure:
    """Nothing to download: what yt-dlp said before tells why."""
    said = [plain(warning) for warning in warnings]
    if any(_NO_JAVASCRIPT.search(warning) for warning in said):
        raise StopError(_JAVASCRIPT_MISSING)
    # Before the tokens: one of the clients never has them, so they say something only where the others answered.
    if (failure := _of_warnings(text, said)) is not None:
        return failure
    if trouble := next((warning for warning in said if _TOKEN_TROUBLE.search(warning)), None):
        return _failure(Outcome.BLOCKED, "token_missing", f"{text} after: {trouble}", TWICE)
    if _NO_ANSWER.search(text):
        return _failure(Outcome.BLOCKED, "no_player_response", f"{text} (a newer yt-dlp may help)", TWICE)
    reason = "format_unavailable" if _NO_FORMAT.search(text) else "no_formats"
    return _failure(Outcome.TRANSIENT, reason, text, TWICE)


def _of_warnings(text: str, said: Sequence[str]) -> Failure | None:
    """Refusals, and then what was the matter with the network, as far as the warnings tell."""
    said = [warning for warning in said if not _TOKEN_TROUBLE.search(warning)]  # some speak of a 403 that may come
    statuses = [int(found[1]) for warning in said if (found := _STATUS.search(warning))]
    if refused := next((status for status in statuses if status in (429, 403)), None):
        return _of_status(refused, f"{text} after HTTP Error {refused}")
    for rule in _REFUSALS:
        if any(rule.pattern.search(warning) for warning in said):
            return rule.failure(text)
    return _of_network(said, statuses)


def _of_network(said: Sequence[str], statuses: Sequence[int]) -> Failure | None:
    for warning in reversed(said):
        for rule in _NETWORK:
            if rule.pattern.search(warning):
                return rule.failure(warning)
    return _of_status(statuses[-1], f"nothing came but HTTP Error {statuses[-1]}") if statuses else None
