"""A server on loopback that plays YouTube behind a proxy: to yt-dlp as it ships, with real files and scripted faults.

    with FakeYouTube({"aaaaaaaaaaa": Video(formats={18: path})}) as youtube:
        subprocess.run(["mbt-data", ...], env=os.environ | youtube.environment())

It is an HTTP proxy. For whatever host is asked for by CONNECT it makes a certificate, signed by its own authority, and
answers in that host's place: the watch page, `youtubei/v1/player`, the player's script and `videoplayback` with ranges.
Whatever else is asked for is answered with 404 and noted in `strangers`.
"""

import atexit
import base64
import collections
import contextlib
import dataclasses
import functools
import http.server
import json
import re
import shutil
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import trustme

STAGES = ("watch", "player", "script", "media")
HUGE_BYTES = 10_000_000_000
SIGNATURE = "SIGNATURE0123456789"  # stands in every media URL; a text that holds it has leaked a signed URL
_PART_BYTES = 1 << 14
_BOUNDED_BYTES = 10 << 20
CHALLENGE = "nnABCDEF"
_MEDIA_HOST = "rr1---sn-fake.googlevideo.com"
_PLAYER_JS = "/s/player/0badcafe/player_ias.vflset/en_US/base.js"
# In the form in which yt-dlp-ejs finds the two functions; both turn their text round.
_SCRIPT = """(function(){
var turn = function(text) { return text.split("").reverse().join("") };
function Address(text) { this.values = {} }
Address.prototype.set = function(name, value) { this.values[name] = value };
Address.prototype.get = function(name) { return this.values[name] };
Address.prototype.work = function() { this.values.n = turn(this.values.n || "") };
function make(text, name, signature) {
  var address = new Address(text);
  address.set("alr", "yes");
  if (signature) address.set(name, encodeURIComponent(turn(decodeURIComponent(signature))));
  return address;
}
}).call(this);
"""

# By itag: MIME type, width and height (0: sound), and whether the file holds both picture and sound.
ITAGS: dict[int | str, tuple[str, int, int, bool]] = {
    18: ('video/mp4; codecs="avc1.42001E, mp4a.40.2"', 640, 360, True),
    133: ('video/mp4; codecs="avc1.4d4015"', 426, 240, False),
    134: ('video/mp4; codecs="avc1.4d401e"', 640, 360, False),
    136: ('video/mp4; codecs="avc1.4d401f"', 1280, 720, False),
    243: ('video/webm; codecs="vp9"', 640, 360, False),
    140: ('audio/mp4; codecs="mp4a.40.2"', 0, 0, False),
    251: ('audio/webm; codecs="opus"', 0, 0, False),
}


@dataclasses.dataclass
class Fault:
    """What goes wrong at a stage.

    Attributes:
      stage: one of `STAGES`.
      kind: "status" answers with `status`; "loop" redirects to itself; "stall" sends a part and then nothing; "trickle"
        sends a byte at a time, for ever; "cut" resets the connection in the middle; "short" ends it in order before
        the promised length; "html" answers 200 with a page; "huge" promises 10 GB.
      status: of "status".
      headers: of "status".
      times: how many requests it meets; None for all.
    """

    stage: str
    kind: str = "status"
    status: int = 500
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    times: int | None = None


@dataclasses.dataclass
class Video:
    """One video.

    Attributes:
      formats: files by itag; see `ITAGS`.
      seconds: its length, as YouTube says it.
      playability: `playabilityStatus` of every client.
      details: more of `videoDetails`.
      sizes: (width, height) by itag, where it is not the usual one.
      faults: what goes wrong.
      tokens_missing: formats come without URLs, as for a session that YouTube wants to use SABR.
      challenges: formats come with `n` and `s` challenges, and are refused (403) unless the script solved both.
    """

    formats: Mapping[int | str, Path] = dataclasses.field(default_factory=dict)
    seconds: float = 10.0
    playability: Mapping[str, object] = dataclasses.field(default_factory=lambda: {"status": "OK"})
    details: Mapping[str, object] = dataclasses.field(default_factory=dict)
    sizes: Mapping[int | str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    tokens_missing: bool = False
    challenges: bool = False


@functools.cache
def _authority() -> tuple[trustme.CA, str]:
    authority, folder = trustme.CA(), tempfile.mkdtemp(prefix="fake-youtube-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority.cert_pem.write_to_path(f"{folder}/ca.pem")
    return authority, f"{folder}/ca.pem"


class FakeYouTube:
    """The server; see the module's text.

    Args:
      videos: by id.
      default: what every other id is; None: "This video does not exist."
      delay_s: added to every request.
      bytes_per_second: of each download of media.
      unbounded_bytes_per_second: the same for requests of over 10 MiB, or without an end.
      password: "user:password" that the proxy asks for.
      refuse_from: every request from this one on (1 is the first) is answered with 429; may be changed while running.

    Attributes:
      counts: requests by stage.
      strangers: "host path" of requests that YouTube would not get.
      cookies: `Cookie` headers that came.
      media_bytes: how much of media was sent.
      script: the player's JavaScript.
      api_key: that the Data API takes.
    """

    def __init__(
        self,
        videos: Mapping[str, Video] | None = None,
        *,
        default: Video | None = None,
        delay_s: float = 0.0,
        bytes_per_second: int | None = None,
        unbounded_bytes_per_second: int | None = None,
        password: str | None = None,
        refuse_from: int | None = None,
    ):
        self.videos = dict(videos or {})
        self.default = default
        self.delay_s = delay_s
        self.bytes_per_second = bytes_per_second
        self.unbounded_bytes_per_second = unbounded_bytes_per_second
        self.media_bytes = 0
        self.password = password
        self.refuse_from = refuse_from
        self.counts: collections.Counter = collections.Counter()
        self.strangers: list[str] = []
        self.cookies: list[str] = []
        self.script = _SCRIPT
        self.api_key = "DATAAPIKEY"
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self._faults: collections.Counter = collections.Counter()
        self._contexts: dict[str, ssl.SSLContext] = {}

    def __enter__(self) -> "FakeYouTube":
        self._server = _Server(("127.0.0.1", 0), _Proxy)
        self._server.youtube = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def ca_file(self) -> str:
        """The certificate to trust; the same for every server of this process."""
        return _authority()[1]

    @property
    def port(self) -> int:
        """Of the proxy, on 127.0.0.1."""
        return self._server.server_address[1]

    @property
    def proxy_url(self) -> str:
        """The proxy, with its password."""
        user = f"{self.password}@" if self.password else ""
        return f"http://{user}127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to find itself in this YouTube."""
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.proxy_url)
        return {"SSL_CERT_FILE": self.ca_file, "NO_PROXY": "", "no_proxy": "", **proxies}

    def requests(self) -> int:
        """How many requests came, of all stages."""
        return self.counts.total()

    def video(self, video: str) -> Video | None:
        """What an id is here."""
        return self.videos.get(video, self.default)

    def enter(self, stage: str) -> bool:
        """Counts a request; whether it is answered at all."""
        with self.lock:
            self.counts[stage] += 1
            return self.refuse_from is None or self.counts.total() < self.refuse_from

    def fault(self, video: str, stage: str) -> Fault | None:
        """What goes wrong with this request."""
        found = self.video(video)
        for number, fault in enumerate(found.faults if found else ()):
            with self.lock:
                key = (video, number)
                if fault.stage == stage and (fault.times is None or self._faults[key] < fault.times):
                    self._faults[key] += 1
                    return fault
        return None

    def context(self, host: str) -> ssl.SSLContext:
        """TLS in the place of a host."""
        with self.lock:
            if host not in self._contexts:
                self._contexts[host] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                _authority()[0].issue_cert(host).configure_cert(context)
            return self._contexts[host]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    youtube: FakeYouTube

    def handle_error(self, request, client_address):
        """Clients go away as they like; that is nobody's error here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def youtube(self) -> FakeYouTube:
        return self.server.youtube

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def answer(self, status: int, body: bytes, kind: str = "text/html", headers: Mapping[str, str] | None = None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Proxy(_Handler):
    """The proxy: CONNECT only."""

    def do_CONNECT(self) -> None:
        if not self._allowed():
            self.answer(407, b"", headers={"Proxy-Authenticate": 'Basic realm="fake"'})
            return
        host = self.path.rpartition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            inside = self.youtube.context(host).wrap_socket(self.connection, server_side=True)
            with contextlib.closing(inside):
                type("Site", (_Site,), {"host": host})(inside, self.client_address, self.server)

    def do_GET(self) -> None:
        self.youtube.strangers.append(self.path)
        self.answer(404, b"")

    def _allowed(self) -> bool:
        password = self.youtube.password
        expected = base64.b64encode((password or "").encode()).decode()
        return password is None or self.headers.get("Proxy-Authorization") == f"Basic {expected}"


class _Site(_Handler):
    """What a host answers, inside of TLS."""

    host = ""
    video = ""

    def do_GET(self) -> None:
        self._route(b"")

    def do_POST(self) -> None:
        self._route(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _route(self, body: bytes) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if cookie := self.headers.get("Cookie"):
            self.youtube.cookies.append(cookie)
        if self.host == "www.youtube.com" and url.path == "/watch":
            self._stage("watch", query.get("v", ""), self._watch)
        elif self.host == "www.youtube.com" and url.path == "/youtubei/v1/player":
            request = json.loads(body) if body else {"videoId": query["id"]}  # a redirect that was followed
            self._stage("player", request["videoId"], lambda video: self._player(video, request))
        elif self.host == "www.youtube.com" and url.path == _PLAYER_JS:
            self._stage("script", "", lambda video: self.answer(200, self.youtube.script.encode(), "text/javascript"))
        elif self.host == "www.youtube.com" and url.path == "/oembed":
            self._stage("oembed", query["url"].rpartition("v=")[2], self._oembed)
        elif self.host == "www.googleapis.com" and url.path == "/youtube/v3/videos":
            self._stage("data_api", "", lambda video: self._data_api(query))
        elif self.host == _MEDIA_HOST and url.path == "/videoplayback":
            self._stage("media", query["id"], lambda video: self._media(video, query))
        else:
            self.youtube.strangers.append(f"{self.host} {url.path}")
            self.answer(404, b"")

    def _stage(self, stage: str, video: str, reply) -> None:
        self.video = video
        self.youtube.stopped.wait(self.youtube.delay_s)
        if not self.youtube.enter(stage):
            self.answer(429, b"<html>slow down</html>", headers={"Retry-After": "7"})
        elif (fault := self.youtube.fault(video, stage)) is not None:
            getattr(self, f"_{fault.kind}")(fault)
        else:
            reply(video)

    # Answers.

    def _watch(self, video: str) -> None:
        config = {"PLAYER_JS_URL": _PLAYER_JS, "STS": 20_000, "VISITOR_DATA": "dmlzaXRvcg%3D%3D"}
        page = (
            "<!DOCTYPE html><html><head><title>fake</title></head><body>"
            f"<script>ytcfg.set({json.dumps(config)});</script>"
            f"<script>var ytInitialPlayerResponse = {json.dumps(self._response(video, with_urls=False))};</script>"
            '<script>var ytInitialData = {"contents": {"twoColumnWatchNextResults": {}}};</script></body></html>'
        )
        self.answer(200, page.encode())

    def _oembed(self, video: str) -> None:
        found = self.youtube.video(video)
        there = found is not None and found.playability.get("status") == "OK"
        self.answer(200 if there else 404, b'{"type": "video"}' if there else b"Not Found", "application/json")

    def _data_api(self, query: dict[str, str]) -> None:
        if query["key"] != self.youtube.api_key:
            self.answer(403, b'{"error": {"code": 403}}', "application/json")
            return
        ids = query["id"].split(",")
        there = [name for name in ids if (found := self.youtube.video(name)) and found.playability["status"] == "OK"]
        status = {"uploadStatus": "processed", "privacyStatus": "public"}
        items = [{"kind": "youtube#video", "id": name, "status": status} for name in there]
        self.answer(200 if len(ids) <= 50 else 400, json.dumps({"items": items}).encode(), "application/json")

    def _player(self, video: str, request: dict) -> None:
        client = request["context"]["client"]["clientName"]
        found = self.youtube.video(video)
        with_urls = client == "VISIONOS" and not (found and found.tokens_missing)
        self.answer(200, json.dumps(self._response(video, with_urls)).encode(), "application/json")

    def _response(self, video: str, with_urls: bool) -> dict:
        found = self.youtube.video(video)
        if found is None:
            found = Video(playability={"status": "ERROR", "reason": "This video does not exist."})
        details = {"videoId": video, "title": f"film {video}", "lengthSeconds": str(round(found.seconds))}
        response = {
            "playabilityStatus": dict(found.playability),
            "videoDetails": details | {"isLiveContent": False} | dict(found.details),
        }
        if found.playability.get("status") == "OK":
            formats: dict[str, list] = {"formats": [], "adaptiveFormats": []}
            for itag in found.formats:
                group = "formats" if ITAGS[itag][3] else "adaptiveFormats"
                formats[group].append(_format(video, found, itag, with_urls))
            response["streamingData"] = {"expiresInSeconds": "21540", **formats}
        return response

    def _media(self, video: str, query: dict[str, str]) -> None:
        found, itag = self.youtube.video(video), int(query["itag"]) if query["itag"].isdigit() else query["itag"]
        if found and found.challenges and (query["n"], query["sig"]) != (CHALLENGE[::-1], SIGNATURE):
            self.answer(403, b"")
            return
        path = found.formats[itag] if found else Path("/dev/null")
        size = path.stat().st_size
        first, last = self._range(size)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Type", ITAGS[itag][0].partition(";")[0])
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        self._send(path, first, last)

    def _send(self, path: Path, first: int, last: int) -> None:
        rate = self.youtube.bytes_per_second
        if last - first >= _BOUNDED_BYTES or self.headers.get("Range", "-").endswith("-"):
            rate = self.youtube.unbounded_bytes_per_second or rate
        with open(path, "rb") as file:
            file.seek(first)
            while part := file.read(min(_PART_BYTES, last + 1 - file.tell())):
                self.wfile.write(part)
                with self.youtube.lock:
                    self.youtube.media_bytes += len(part)
                if rate:
                    self.youtube.stopped.wait(len(part) / rate)

    def _range(self, size: int) -> tuple[int, int]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        first = int(asked[1]) if asked else 0
        return first, min(int(asked[2]) if asked and asked[2] else size - 1, size - 1)

    # Faults.

    def _status(self, fault: Fault) -> None:
        self.answer(fault.status, f"<html>{fault.status}</html>".encode(), headers=fault.headers)

    def _loop(self, fault: Fault) -> None:
        path, _, query = self.path.partition("?")
        asked = query if "id=" in query else f"{query}&id={self.video}"
        self.answer(301, b"", headers={"Location": f"https://{self.host}{path}?{asked}"})

    def _html(self, fault: Fault) -> None:
        self.answer(200, b"<!DOCTYPE html><html>Please accept our terms</html>" * 20)

    def _stall(self, fault: Fault) -> None:
        self._promise(1_000_000)
        self.wfile.write(b"\0" * 5000)
        self.wfile.flush()
        self.youtube.stopped.wait(60)

    def _trickle(self, fault: Fault) -> None:
        self._promise(1_000_000)
        while not self.youtube.stopped.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()

    def _cut(self, fault: Fault) -> None:
        self._promise(1_000_000)
        self.wfile.write(b"\0" * 5000)
        self.wfile.flush()
        self.youtube.stopped.wait(0.2)  # a reset takes back what was not read yet
        # The kernel then sends a reset instead of an end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _short(self, fault: Fault) -> None:
        self.wfile.write(b"\0" * (self._promise(6000) // 2))

    def _huge(self, fault: Fault) -> None:
        self._promise(HUGE_BYTES)
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                self.wfile.write(b"\0" * 65_536)

    def _promise(self, size: int) -> int:
        self.close_connection = True
        first, last = self._range(size)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Connection", "close")
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(last - first + 1))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        return last - first + 1


def _format(video: str, found: Video, itag: int | str, with_url: bool) -> dict:
    kind, width, height, _ = ITAGS[itag]
    width, height = found.sizes.get(itag, (width, height))
    size = found.formats[itag].stat().st_size
    form: dict[str, object] = {
        "itag": itag,
        "mimeType": kind,
        "bitrate": max(1, round(size * 8 / found.seconds)),
        "contentLength": str(size),
        "approxDurationMs": str(round(found.seconds * 1000)),
    }
    form |= {"width": width, "height": height, "fps": 25} if width else {"audioSampleRate": "44100", "audioChannels": 2}
    url = f"https://{_MEDIA_HOST}/videoplayback?id={video}&itag={itag}&expire=1"
    if with_url and found.challenges:
        form["signatureCipher"] = urlencode({"s": SIGNATURE[::-1], "sp": "sig", "url": f"{url}&n={CHALLENGE}"})
    elif with_url:
        form["url"] = f"{url}&sig={SIGNATURE}"
    return form
