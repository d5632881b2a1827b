"""Every message of yt-dlp's and YouTube's, raised as yt-dlp does, has the outcome that `youtube_messages.tsv` says."""

import datetime
import email.utils
import errno
import gc
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yt_dlp
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.postprocessor.common import PostProcessor
from yt_dlp.utils import ExtractorError, PostProcessingError, UnsupportedError, UserNotLive

from mbt.pipeline.outcomes import (
    MAX_DETAIL,
    RETRY_AFTER_CAP_S,
    Failure,
    FetchError,
    StopError,
    classify,
    classify_status,
    plain,
)
from mbt.schemas.clip import Outcome

TABLE = Path(__file__).parent / "data" / "youtube_messages.tsv"
LINES = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
ROWS = [tuple(line.split("\t")) for line in LINES]
# yt-dlp leaves the answers in its HTTPErrors, and the files in its OSErrors, to the garbage collector.
pytestmark = [
    pytest.mark.quick,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# Classes of the document on yt-dlp's errors, as outcomes; "stop" is a StopError.
CLASSES = {
    "GONE": {"gone"},
    "RESTRICTED": {"restricted"},
    "BLOCKED": {"blocked"},
    "TRANSIENT": {"transient"},
    "FORMAT": {"transient", "blocked"},
    "OURS": {"invalid", "stop"},
    "AMBIGUOUS": {"transient"},
}


class Server(http.server.BaseHTTPRequestHandler):
    """`/403` answers with that status, `/cut` with less than promised, `/empty` with nothing, `/stall` with a part."""

    protocol_version = "HTTP/1.1"
    ended = threading.Event()

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.strip("/").partition("?")[0]
        status = int(name) if name.isdigit() else 301 if name == "loop" else 200
        body = b"" if name == "empty" else b"x" * 2000
        self.close_connection = True
        self.send_response(status)
        self.send_header("Connection", "close")
        self.send_header("Retry-After", "11")
        self.send_header("Location", self.path)
        self.send_header("Content-Length", str(len(body) + 1000 * (name in ("cut", "stall"))))
        self.end_headers()
        self.wfile.write(body)
        if name == "stall":
            self.wfile.flush()
            self.ended.wait(30)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """So that what is collected is collected here, and not in a test that minds."""
    yield
    gc.collect(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    serving.daemon_threads = True
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    Server.ended.set()
    serving.shutdown()
    serving.server_close()
    thread.join()


class Listener:
    def __init__(self):
        self.said = []

    def debug(self, message):
        pass

    def warning(self, message):
        self.said.append(str(message))

    error = debug


class Raising(InfoExtractor):
    """Does, with whatever URL, what it is told."""

    IE_NAME = "raising"
    _VALID_URL = r"raising:.*"

    def __init__(self, act):
        super().__init__()
        self._act = act

    def _real_extract(self, url):
        return self._act(self)


class Failing(PostProcessor):
    def __init__(self, message):
        super().__init__()
        self._message = message

    def run(self, information):
        raise PostProcessingError(self._message)


def extract(act, folder, *, download=False, failing=None, url="raising:", **parameters) -> tuple[BaseException, list]:
    """What `extract_info` raises where the extractor does `act`, and what yt-dlp warned of before."""
    listener = Listener()
    settings = {"logger": listener, "paths": {"home": str(folder)}, "retries": 1, "noprogress": True, "proxy": ""}
    try:
        with yt_dlp.YoutubeDL(settings | {"extractor_retries": 0} | parameters, auto_init=False) as downloader:
            downloader.add_info_extractor(Raising(act))
            if failing:
                downloader.add_post_processor(Failing(failing))
            downloader.extract_info(url, download=download)
    except yt_dlp.utils.YoutubeDLError as error:
        return error, listener.said
    raise AssertionError("nothing was raised")


def media(url: str) -> dict:
    return {"id": "aaaaaaaaaaa", "title": "film", "url": url, "ext": "mp4"}


def provoke(how: str, message: str, server: str, folder: Path) -> tuple[BaseException, list]:
    """Makes yt-dlp raise the message, by the path that it takes there."""
    if how.startswith("http "):
        note = message.partition(":")[0]
        return extract(lambda it: it._download_webpage(f"{server}/{how[5:]}", "aaaaaaaaaaa", errnote=note), folder)
    if how == "postprocessing":
        text = message.removeprefix("Postprocessing: ")
        return extract(lambda it: media(f"{server}/200"), folder, download=True, failing=text)
    if how in ("format", "warned"):
        asked = {"format": "bestvideo[height=77]", "check_formats": False}
        warned = [message] if how == "warned" else []

        def warn_and_return(it):
            for warning in warned:
                it.report_warning(warning)
            return media(f"{server}/200")

        return extract(warn_and_return, folder, **asked)
    if how == "no_extractor":
        return extract(None, folder, url="https://example.com/")
    return extract(lambda it: ACTS[how](it, message), folder)


def _raise(error):
    raise error


ACTS = {
    "expected": lambda it, message: _raise(ExtractorError(message, expected=True, video_id="aaaaaaaaaaa")),
    "bug": lambda it, message: _raise(ExtractorError(message)),
    "geo": lambda it, message: it.raise_geo_restricted(message, countries=["US", "DE"]),
    "geo_default": lambda it, message: it.raise_geo_restricted(),
    "drm": lambda it, message: it.report_drm("aaaaaaaaaaa"),
    "login": lambda it, message: it.raise_login_required(),
    "no_formats": lambda it, message: {"id": "aaaaaaaaaaa", "title": "film", "formats": []},
    "unsupported": lambda it, message: _raise(UnsupportedError("https://example.com/")),
    "reported": lambda it, message: it._downloader.report_error(message.replace("\\r", "\r")),
}


def verdict(error: BaseException, warnings=()) -> tuple[str, str]:
    try:
        failure = classify(error, warnings)
    except StopError:
        return "stop", ""
    return failure.outcome.value, failure.reason


@pytest.mark.parametrize(("how", "outcome", "reason", "message"), ROWS, ids=lambda value: value[:40])
def test_each_message_has_its_outcome(how, outcome, reason, message, server, tmp_path):
    error, warnings = provoke(how, message, server, tmp_path)
    if how == "warned":
        assert any(message in warning for warning in warnings)
    elif how != "no_extractor":
        assert message.replace("\\r", "").split(" (caused")[0] in str(error)
    assert verdict(error, warnings) == (outcome, reason)


@pytest.mark.parametrize(
    ("outcome", "reason", "message"), [row[1:] for row in ROWS if row[0] == "expected"], ids=lambda value: value[:40]
)
def test_a_cause_that_says_less_changes_nothing(outcome, reason, message, tmp_path):
    error, warnings = extract(lambda it: _raise(ExtractorError(message, expected=True, cause=KeyError("x"))), tmp_path)
    assert verdict(error, warnings) == (outcome, reason)


@pytest.mark.parametrize(
    ("path", "outcome", "reason"),
    [
        ("403", "blocked", "http_403"),
        ("404", "transient", "http_404"),
        ("410", "transient", "http_410"),
        ("429", "blocked", "http_429"),
        ("500", "transient", "http_500"),
        ("503", "transient", "http_503"),
        ("loop", "transient", "redirect_loop"),
        ("cut", "transient", "cut_short"),
        ("empty", "blocked", "no_data"),
        ("stall", "transient", "timeout"),
    ],
)
def test_a_real_download_that_fails(path, outcome, reason, server, tmp_path):
    error, warnings = extract(
        lambda it: media(f"{server}/{path}?sig=SECRETSIG"), tmp_path, download=True, socket_timeout=1
    )
    assert verdict(error, warnings) == (outcome, reason)
    assert "SECRETSIG" not in classify(error, warnings).detail


def test_refused_connection(tmp_path):
    error, warnings = extract(lambda it: it._download_webpage("http://127.0.0.1:9/", "aaaaaaaaaaa"), tmp_path)
    assert verdict(error, warnings) == ("transient", "connection")


def test_proxy_that_is_not_there_and_one_of_unknown_kind(tmp_path):
    def act(it):
        return it._download_webpage("https://example.com/?sig=SECRETSIG", "aaaaaaaaaaa")

    error, warnings = extract(act, tmp_path, proxy="http://user:hunter22@127.0.0.1:9")
    assert verdict(error, warnings) == ("transient", "proxy")
    assert "hunter22" not in classify(error, warnings).detail
    error, warnings = extract(act, tmp_path, proxy="gopher://user:hunter22@127.0.0.1:9")
    with pytest.raises(StopError) as stopped:
        classify(error, warnings)
    assert "hunter22" not in str(stopped.value)


def test_a_status_tells_how_long_to_wait(server, tmp_path):
    error, warnings = extract(lambda it: it._download_webpage(f"{server}/429", "aaaaaaaaaaa"), tmp_path)
    assert classify(error, warnings).retry_after_s == 11


def test_a_full_disk_stops_the_run(server, tmp_path):
    (tmp_path / "x.mp4.part").symlink_to("/dev/full")
    error, warnings = extract(lambda it: media(f"{server}/200"), tmp_path, download=True, outtmpl="x.mp4")
    with pytest.raises(StopError, match="disk is full"):
        classify(error, warnings)


def test_unavailable_video_error_is_of_our_disk_and_not_of_the_video(server, tmp_path):
    for number, expected in ((errno.ENOSPC, ("stop", "")), (errno.EIO, ("stop", ""))):

        def fail(status, number=number):
            raise OSError(number, os.strerror(number))

        error, warnings = extract(
            lambda it: media(f"{server}/200"), tmp_path, download=True, outtmpl=f"{number}.mp4", progress_hooks=[fail]
        )
        assert type(error).__name__ == "UnavailableVideoError"
        assert verdict(error, warnings) == expected


def test_content_too_short_error(tmp_path):
    raised = yt_dlp.utils.ContentTooShortError(5, 10)
    error, warnings = extract(lambda it: _raise(raised), tmp_path)
    assert verdict(error, warnings) == ("transient", "cut_short")


def test_not_live_is_not_gone(tmp_path):
    error, warnings = extract(lambda it: _raise(UserNotLive(video_id="a")), tmp_path)
    assert verdict(error, warnings) == ("restricted", "upcoming")


def test_a_cookies_file_that_is_none_stops_the_run(tmp_path):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text('[{"name": "SID", "value": "SECRETCOOKIE"}]')
    error, warnings = extract(
        lambda it: it._download_webpage("http://127.0.0.1:9/", "a"), tmp_path, cookiefile=str(cookies)
    )
    with pytest.raises(StopError, match="cookies") as stopped:
        classify(error, warnings)
    assert "SECRETCOOKIE" not in str(stopped.value)


@pytest.mark.parametrize(
    ("warning", "outcome", "reason"),
    [
        (
            "Unable to download API page: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)",
            "blocked",
            "http_429",
        ),
        ("Unable to download API page: HTTP Error 403: Forbidden", "blocked", "http_403"),
        ("Unable to download API page: HTTP Error 503: Service Unavailable", "transient", "http_503"),
        ("Unable to download API page: HTTP Error 404: Not Found", "transient", "http_404"),
        ("Unable to download API page: HTTP Error 301: Moved (redirect loop detected)", "transient", "redirect_loop"),
        ("Unable to download API page: The read operation timed out", "transient", "timeout"),
        ("YouTube said: ERROR - Sign in to confirm you're not a bot", "blocked", "bot_check"),
        ("YouTube said: ERROR - This video has been removed by the uploader", "blocked", "no_player_response"),
    ],
)
def test_no_answer_at_all_is_explained_by_what_was_warned_of(warning, outcome, reason):
    error = ExtractorError("Failed to extract any player response")
    assert verdict(error, [warning]) == (outcome, reason)


def test_nothing_but_the_listed_reasons_is_gone():
    gone = {row[3] for row in ROWS if row[1] == "gone"}
    assert gone
    for message in gone:
        assert verdict(ExtractorError(message, expected=True))[0] == "gone"
        assert verdict(ExtractorError(message))[0] == "blocked", "a text that yt-dlp asks to have reported"
    assert verdict(RuntimeError("anything")) == ("transient", "unknown")
    assert verdict(ExtractorError("Video unavailable", expected=True)) == ("transient", "unavailable")


def test_own_errors_stay_what_they_are():
    failure = Failure(outcome=Outcome.GONE, reason="x", detail="y", tries=1)
    assert classify(FetchError(failure)) is failure
    with pytest.raises(StopError, match="z"):
        classify(StopError("z"))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((404, "gone"), (410, "gone"), (401, "restricted"), (402, "restricted"), (451, "restricted")),
        *((403, "blocked"), (429, "blocked"), (407, "blocked"), (500, "transient"), (503, "transient")),
        *((400, "transient"), (408, "transient"), (301, "transient"), (599, "transient")),
    ],
)
def test_status_of_a_direct_download(status, outcome):
    failure = classify_status(status, {})
    assert (failure.outcome.value, failure.reason, failure.retry_after_s) == (outcome, f"http_{status}", None)
    assert (failure.tries == 1) == (outcome in ("gone", "restricted"))


def test_retry_after_in_seconds_and_as_a_date():
    def wait(value):
        return classify_status(429, {"retry-after": value}).retry_after_s

    assert wait("7") == 7
    assert wait("99999999999999999999") == RETRY_AFTER_CAP_S
    assert wait("soon") is None and wait("-1") is None and wait("²") is None
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    assert 90 <= wait(email.utils.format_datetime(then, usegmt=True)) <= 100
    assert wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert wait("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    assert wait("Fri, 31 Dec 9999 23:59:59 GMT") == RETRY_AFTER_CAP_S


def test_details_are_short_plain_and_without_secrets():
    text = (
        "Max retries with url: /videoplayback?expire=1&sig=SECRET1 at https://host/path?key=SECRET2 through "
        "http://user:SECRET3@proxy:80 or user:SECRET4@proxy; \u2019caf\u00e9\u2019\x07\n" + "long " * 200
    )
    shown = plain(text)
    assert "SECRET" not in shown and "proxy:80" not in shown
    assert shown.isascii() and shown.isprintable() and len(shown) == MAX_DETAIL
    assert plain("Cookie: SID=SECRET") == "Cookie <hidden>"


@pytest.fixture
def document(shared) -> str:
    path = shared.parent / "design" / "ytdlp_errors.md"
    if not path.exists():
        pytest.skip("the document on yt-dlp's errors is not there")
    return path.read_text(encoding="utf-8")


def _table_rows(document: str) -> Iterator[tuple[list[str], set[str]]]:
    """(literal texts of the first cell, outcomes that its class allows) of sections 2 and 3."""
    part = document[document.index("## 2.") : document.index("## 4.")]
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|") or cells[0] in ("message (literal or prefix)", "string") or set(line) <= set("|-"):
            continue
        literals = [
            literal for literal in re.findall(r"`([^`]+)`", cells[0]) if "_" not in literal or literal.isupper()
        ]
        allowed = set().union(*(CLASSES[name] for name in re.findall("|".join(CLASSES), line.partition(" | ")[2])))
        yield literals, allowed


def _fragments(literal: str) -> list[str]:
    """The parts of a literal between its placeholders."""
    literal = literal.replace("\u2019", "'")
    parts = re.split(r"<[^<>]*>|\.\.\.|'\.\.\.'|\bN+\b|\b[XY]\b| / |\|", literal)
    return [part.strip(" .:()-").lower() for part in parts if len(part.strip(" .:()-")) > 5]


def test_no_message_of_the_document_is_forgotten(document):
    ours = [(row[3].replace("\u2019", "'").replace("\\r", "").lower(), row[1]) for row in ROWS]
    rows = list(_table_rows(document))
    assert len(rows) > 45
    for literals, allowed in rows:
        for literal in literals:
            for fragment in _fragments(literal):
                found = {outcome for message, outcome in ours if fragment in message}
                assert found, f"{fragment!r} of {literal!r} is in none of our messages"
                assert not allowed or found & allowed, f"{literal!r}: {found}, but the document says {allowed}"
