"""Real yt-dlp, deno and ffmpeg against `fake_youtube.py`, through a real proxy and real TLS on loopback."""

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fake_youtube import ITAGS, SIGNATURE, FakeYouTube, Fault, Video

from mbt.pipeline import youtube, youtube_process
from mbt.pipeline.outcomes import FetchError, StopError

ID = "aB-_567890x"
SECONDS = 12


@pytest.fixture(scope="module")
def files(make_media, tmp_path_factory) -> dict[int, Path]:
    """By itag: picture and sound together, and each on its own, as YouTube has them."""
    folder = tmp_path_factory.mktemp("youtube")
    key = ("-g", "25", "-bf", "2")
    dash = ("-movflags", "dash+frag_keyframe+default_base_moof")
    make = {"seconds": SECONDS, "size": "128x96"}
    return {
        18: make_media(folder / "18.mp4", **make, options=key),
        134: make_media(folder / "134.mp4", **make, audio=None, options=(*key, *dash)),
        140: make_media(folder / "140.mp4", **make, video=None, options=dash),
    }


@pytest.fixture
def youtube_of(monkeypatch):
    """Starts a YouTube, and lets this process trust it."""
    started = []

    def start(*videos, **options) -> FakeYouTube:
        fake = FakeYouTube(*videos, **options)
        started.append(fake)
        fake.__enter__()
        monkeypatch.setenv("SSL_CERT_FILE", fake.ca_file)
        return fake

    yield start
    for fake in started:
        fake.__exit__()


@pytest.fixture(scope="module", autouse=True)
def _processes_end():
    yield
    youtube.close()


@pytest.fixture
def download(ffmpeg_program, tmp_path):
    """download(fake) downloads `ID` into tmp_path/"out"."""
    folder = tmp_path / "out"
    folder.mkdir()

    def run(
        fake: FakeYouTube, video: str = ID, span_us=(4_000_000, 6_000_000), on_bytes=lambda count: None, **settings
    ):
        options = youtube.Settings(**{"ffmpeg": ffmpeg_program, "time_limit_s": 60, "download": "whole", **settings})
        return youtube.download(video, span_us, str(folder), options, fake.proxy_url, on_bytes)

    run.folder = folder
    return run


def failure_of(run, *words, **options):
    """The failure, after which nothing may lie in the folder."""
    with pytest.raises(FetchError) as raised:
        run(*words, **options)
    assert os.listdir(run.folder) == []
    return raised.value.failure


def frames(ffmpeg_program: str, path: Path | str, stream: str = "v") -> list[tuple[int, str]]:
    """(microseconds after the file's zero, digest) of each decoded frame."""
    words = [ffmpeg_program, "-v", "error", "-i", str(path), "-map", f"0:{stream}", "-fps_mode", "passthrough"]
    words += ["-enc_time_base", "demux"]  # or the times of pictures were rounded to 1/25 s
    if stream == "a":
        words[-4:] = ["-c", "copy"]
    log = subprocess.run([*words, "-f", "framemd5", "-"], check=True, capture_output=True, text=True).stdout
    base = re.search(r"^#tb 0: (\d+)/(\d+)", log, re.MULTILINE)
    assert base is not None
    rows = [line.split(",") for line in log.splitlines() if not line.startswith("#")]
    return [(int(row[2]) * int(base[1]) * 1_000_000 // int(base[2]), row[5].strip()) for row in rows]


@pytest.mark.parametrize(
    "source",
    [
        f"https://www.youtube.com/watch?v={ID}",
        f"http://youtube.com/watch?v={ID}&t=30s",
        f"https://m.youtube.com/watch?feature=share&v={ID}#t=3",
        f"HTTPS://WWW.YouTube.com/watch?v={ID}",
        f"https://music.youtube.com/watch?v={ID}&list=RDAMVM",
        f"https://youtu.be/{ID}",
        f"https://youtu.be/{ID}?t=5",
        f"https://www.youtube.com/shorts/{ID}",
        f"https://www.youtube.com/embed/{ID}?start=1",
        f"https://www.youtube-nocookie.com/embed/{ID}",
        f"https://www.youtube.com/live/{ID}",
        f"https://www.youtube.com/v/{ID}",
        f"https://www.youtube.com:443/watch?v={ID}",
    ],
)
def test_video_id(source):
    assert youtube.video_id(source) == ID


@pytest.mark.parametrize(
    "source",
    [
        *("", ID, f"www.youtube.com/watch?v={ID}", f"ftp://youtube.com/watch?v={ID}", f"file:///watch?v={ID}"),
        f"https://youtube.com.example.com/watch?v={ID}",
        f"https://example.com/watch?v={ID}",
        f"https://youtube.com@example.com/watch?v={ID}",
        f"https://user:password@www.youtube.com/watch?v={ID}",
        f"https://www.youtube.com:8080/watch?v={ID}",
        f"https://www.youtube.com:x/watch?v={ID}",
        f"https://www.youtube.com/watch?v={ID}x",
        f"https://www.youtube.com/watch?v={ID[:-1]}",
        f"https://www.youtube.com/watch?v={ID}&v=other567890",
        "https://www.youtube.com/watch?v=../../../a",
        "https://www.youtube.com/watch?v=a%20b$(x)%0ac",
        f"https://www.youtube.com/watch?v={ID}\n",
        f"https://www.youtube.com/wat\tch?v={ID}",
        f" https://www.youtube.com/watch?v={ID}",
        f"https://www.youtube.com/watch?v={ID}\0",
        "https://www.youtube.com/watch?v=аB-_567890x",  # noqa: RUF001 - a Cyrillic letter
        f"https://www.youtube.com/playlist?list={ID}",
        f"https://www.youtube.com/embed/{ID}/more",
        f"https://www.youtube.com/@{ID}",
        f"https://youtu.be/{ID}/x",
        f"https://[::1/watch?v={ID}",
    ],
)
def test_hostile_or_other_urls_have_no_video_id(source):
    assert youtube.video_id(source) is None


def test_only_ids_are_downloaded(ffmpeg_program, tmp_path):
    for wrong in ("", "--exec=x", "../../../ab", f"{ID}\n", f"https://youtu.be/{ID}"):
        with pytest.raises(ValueError, match="not the id"):
            youtube.download(wrong, None, str(tmp_path), youtube.Settings(ffmpeg=ffmpeg_program))


def test_settings_are_checked(ffmpeg_program):
    with pytest.raises(ValueError, match="'half'"):
        youtube.Settings(ffmpeg=ffmpeg_program, download="half")


def test_one_file_is_taken_where_there_is_one(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats=files, seconds=SECONDS)})
    counted = []
    done = download(fake, on_bytes=counted.append)
    assert os.listdir(download.folder) == [os.path.basename(done.path)]
    assert Path(done.path).read_bytes() == files[18].read_bytes()
    assert (done.starts_at_us, done.bytes, sum(counted)) == (0, files[18].stat().st_size, files[18].stat().st_size)
    assert done.tools.startswith("yt-dlp 20") and "deno" in done.tools
    assert fake.counts == {"watch": 1, "player": 1, "media": 1}
    assert fake.strangers == []


def test_two_files_are_joined_and_keep_their_times(files, youtube_of, download, ffmpeg_program):
    fake = youtube_of({ID: Video(formats={itag: files[itag] for itag in (134, 140)}, seconds=SECONDS)})
    done = download(fake)
    assert os.listdir(download.folder) == [os.path.basename(done.path)]
    # Two frames of 134.mp4 are stored out of order and nothing says so: it begins at 0.08 s, the sound at 0.
    pictures, sounds = frames(ffmpeg_program, files[134]), frames(ffmpeg_program, files[140], "a")
    late_us = 80_000
    assert frames(ffmpeg_program, done.path) == [(time_us + late_us, digest) for time_us, digest in pictures]
    assert frames(ffmpeg_program, done.path, "a") == sounds
    assert download(fake).bytes == done.bytes


@pytest.mark.parametrize("itags", [(18,), (134, 140)])
def test_a_range_has_the_frames_and_times_of_the_whole(itags, files, youtube_of, download, ffmpeg_program):
    video = Video(formats={itag: files[itag] for itag in itags}, seconds=SECONDS)
    fake = youtube_of({ID: video}, password="somebody:hunter22")
    whole, part = download(fake), download(fake, download="range")
    assert fake.strangers == []
    assert part.bytes < whole.bytes * 0.6
    assert 1_500_000 <= part.starts_at_us <= 3_000_000
    for stream in ("v", "a"):
        source = dict(frames(ffmpeg_program, whole.path, stream))
        found = {us + part.starts_at_us: digest for us, digest in frames(ffmpeg_program, part.path, stream)}
        inside = {us for us in source if 4_000_000 <= us <= 6_000_000}
        nearest = {us: min(found, key=lambda other, us=us: abs(other - us)) for us in inside}
        assert all(abs(us - other) <= 25 for us, other in nearest.items()), "microseconds are rounded twice"
        assert all(source[us] == found[other] for us, other in nearest.items())


def test_auto_takes_short_videos_whole_and_long_ones_in_part(files, youtube_of, download):
    long = Video(formats={18: files[18]}, seconds=youtube_process.WHOLE_UP_TO_S + 1)
    fake = youtube_of({ID: long, "bbbbbbbbbbb": Video(formats={18: files[18]}, seconds=SECONDS)})
    assert download(fake, download="auto").starts_at_us > 0
    assert download(fake, "bbbbbbbbbbb", download="auto").starts_at_us == 0
    assert download(fake, span_us=None, download="auto").bytes == files[18].stat().st_size


def test_a_range_never_passes_a_proxy_by(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    job = {"span_us": (0, 1), "download": "range", "proxy": "socks5://127.0.0.1:9"}
    with pytest.raises(StopError, match="download=whole"):
        youtube_process.wants_range(job, {"duration": 10})
    assert not youtube_process.wants_range(job | {"download": "auto"}, {"duration": 10**6})
    assert youtube_process.wants_range(job | {"download": "auto", "proxy": None}, {"duration": 10**6})
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:9")
    assert not youtube_process.wants_range(job | {"download": "auto", "proxy": None}, {"duration": 10**6})


FAULTS = [
    (Fault("player", status=403), "blocked", "http_403"),
    (Fault("player", status=404), "transient", "http_404"),
    (Fault("player", status=410), "transient", "http_410"),
    (Fault("player", status=429, headers={"Retry-After": "9"}), "blocked", "http_429"),
    (Fault("player", status=500), "transient", "http_500"),
    (Fault("player", status=503), "transient", "http_503"),
    (Fault("player", "loop"), "transient", "redirect_loop"),
    (Fault("player", "html"), "blocked", "token_missing"),
    (Fault("player", "cut"), "transient", "cut_short"),
    (Fault("player", "short"), "transient", "cut_short"),
    (Fault("player", "stall"), "transient", "too_slow"),
    (Fault("player", "trickle"), "transient", "too_slow"),
    (Fault("player", "huge"), "transient", "page_too_large"),
    (Fault("media", status=403), "blocked", "http_403"),
    (Fault("media", status=404), "transient", "http_404"),
    (Fault("media", status=410), "transient", "http_410"),
    (Fault("media", status=429, headers={"Retry-After": "9"}), "blocked", "http_429"),
    (Fault("media", status=500), "transient", "http_500"),
    (Fault("media", status=503), "transient", "http_503"),
    (Fault("media", "loop"), "transient", "redirect_loop"),
    (Fault("media", "html"), "transient", "not_media"),
    (Fault("media", "cut"), "transient", "cut_short"),
    (Fault("media", "short"), "transient", "cut_short"),
    (Fault("media", "stall"), "transient", "too_slow"),
    (Fault("media", "trickle"), "transient", "too_slow"),
    (Fault("media", "huge"), "unusable", "too_large"),
]


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    FAULTS,
    ids=lambda value: f"{value.stage}-{value.kind}-{value.status}" if isinstance(value, Fault) else value,
)
def test_each_fault_has_its_outcome(fault, outcome, reason, files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, faults=(fault,))})
    failure = failure_of(download, fake, time_limit_s=3 if fault.kind in ("stall", "trickle") else 60)
    assert (failure.outcome.value, failure.reason) == (outcome, reason)
    assert failure.retry_after_s == (9 if fault.headers else None)
    assert SIGNATURE not in failure.detail


def test_without_the_watch_page_the_rest_is_enough(files, youtube_of, download):
    for fault in (
        Fault("watch", status=429),
        Fault("watch", status=500),
        Fault("watch", "html"),
        Fault("watch", "cut"),
    ):
        fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, faults=(fault,))})
        assert download(fake).bytes == files[18].stat().st_size


@pytest.mark.parametrize(
    ("watch", "player", "outcome", "reason"),
    [
        *((500, 429, "blocked", "http_429"), (429, 500, "blocked", "http_429"), (500, 503, "transient", "http_503")),
        *((404, 404, "transient", "http_404"), (403, 403, "blocked", "http_403")),
    ],
)
def test_both_pages_fail(watch, player, outcome, reason, youtube_of, download):
    fake = youtube_of({ID: Video(faults=(Fault("watch", status=watch), Fault("player", status=player)))})
    failure = failure_of(download, fake)
    assert (failure.outcome.value, failure.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        (Fault("media", status=403), "blocked", "http_403"),
        (Fault("media", status=429), "blocked", "http_429"),
        (Fault("media", status=404), "transient", "http_404"),
        (Fault("media", status=503), "transient", "http_503"),
        (Fault("media", "html"), "transient", "range_failed"),
        (Fault("media", "trickle"), "transient", "too_slow"),
    ],
    ids=lambda value: str(getattr(value, "kind", value)),
)
def test_faults_of_a_range(fault, outcome, reason, files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, faults=(fault,))})
    failure = failure_of(download, fake, download="range", time_limit_s=3 if fault.kind == "trickle" else 60)
    assert failure.outcome == outcome
    assert SIGNATURE not in failure.detail


def test_faults_that_pass_at_once_cost_nothing(files, youtube_of, download):
    faults = tuple(Fault(stage, status=503, times=1) for stage in ("watch", "player", "media"))
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, faults=faults)})
    assert Path(download(fake).path).read_bytes() == files[18].read_bytes()


def test_requests_are_bounded(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats=files, seconds=SECONDS)}, unbounded_bytes_per_second=1000)
    for mode in ("whole", "range"):
        assert download(fake, download=mode).bytes > 50_000


def test_a_storm_blocks_and_passes(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS)}, refuse_from=1)
    failure = failure_of(download, fake)
    assert (failure.outcome, failure.reason, failure.retry_after_s) == ("blocked", "http_429", 7)
    fake.refuse_from = None
    assert download(fake).bytes == files[18].stat().st_size


@pytest.mark.parametrize(
    ("playability", "outcome", "reason"),
    [
        ({"status": "ERROR", "reason": "Video unavailable"}, "transient", "unavailable"),
        ({"status": "LOGIN_REQUIRED", "reason": "Sign in to confirm you\u2019re not a bot"}, "blocked", "bot_check"),
        (
            {"status": "UNPLAYABLE", "reason": "This content isn't available, try again later."},
            "blocked",
            "rate_limited",
        ),
        ({"status": "LOGIN_REQUIRED", "reason": "Private video"}, "restricted", "private"),
        (
            {
                "status": "ERROR",
                "reason": "Video unavailable",
                "errorScreen": {
                    "playerErrorMessageRenderer": {
                        "reason": {"simpleText": "Video unavailable"},
                        "subreason": {"simpleText": "This video has been removed by the uploader"},
                    }
                },
            },
            "gone",
            "removed_by_uploader",
        ),
        (
            {
                "status": "UNPLAYABLE",
                "reason": "Video unavailable",
                "errorScreen": {
                    "playerErrorMessageRenderer": {
                        "subreason": {"simpleText": "The uploader has not made this video available in your country"}
                    }
                },
            },
            "restricted",
            "geo",
        ),
        ({"status": "LIVE_STREAM_OFFLINE", "reason": "Premieres in 5 hours"}, "restricted", "upcoming"),
        (
            {
                "status": "UNPLAYABLE",
                "reason": "This video requires payment to watch",
                "errorScreen": {"playerLegacyDesktopYpcTrailerRenderer": {"trailerVideoId": "trailer0000"}},
            },
            "restricted",
            "paid",
        ),
        ({"status": "ERROR", "reason": "The moon is full."}, "transient", "unknown"),
    ],
    ids=lambda value: value.get("reason") if isinstance(value, dict) else value,
)
def test_what_youtube_says(playability, outcome, reason, files, youtube_of, download):
    trailer = Video(formats={18: files[18]}, seconds=SECONDS)
    fake = youtube_of({ID: Video(playability=playability), "trailer0000": trailer})
    failure = failure_of(download, fake)
    assert (failure.outcome.value, failure.reason) == (outcome, reason)
    assert fake.counts["media"] == 0


def test_a_video_that_is_not_there(youtube_of, download):
    failure = failure_of(download, youtube_of({}))
    assert (failure.outcome, failure.reason) == ("gone", "does_not_exist")


def test_formats_without_addresses_mean_that_we_are_refused(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, tokens_missing=True)})
    failure = failure_of(download, fake)
    assert (failure.outcome, failure.reason) == ("blocked", "token_missing")


def test_live_streams_and_spans_past_the_end_are_not_downloaded(files, youtube_of, download):
    live = Video(formats={18: files[18]}, details={"isLive": True, "isLiveContent": True})
    fake = youtube_of({ID: live, "bbbbbbbbbbb": Video(formats={18: files[18]}, seconds=SECONDS)})
    assert failure_of(download, fake).reason == "upcoming"
    failure = failure_of(download, fake, "bbbbbbbbbbb", span_us=(20_000_000, 30_000_000))
    assert (failure.outcome, failure.reason) == ("unusable", "start_past_end")
    assert fake.counts["media"] == 0


def test_scripts_are_solved_by_deno(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, challenges=True)})
    assert download(fake).bytes == files[18].stat().st_size
    assert fake.counts["script"] == 1


def test_a_script_that_cannot_be_solved_blocks(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, challenges=True)})
    fake.script = "nothing that we know"
    failure = failure_of(download, fake)
    assert (failure.outcome, failure.reason) == ("blocked", "token_missing")


def test_a_script_without_end_is_ended(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, challenges=True)})
    fake.script = fake.script.replace("var turn", "for (var k = 0; k >= 0; k = k) {}\nvar turn")
    failure = failure_of(download, fake, time_limit_s=4)
    assert (failure.outcome, failure.reason) == ("transient", "too_slow")
    assert not [child for child in psutil.Process().children(recursive=True) if "deno" in child.name()]


def test_too_large(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS)})
    failure = failure_of(download, fake, max_bytes=100_000)
    assert (failure.outcome, failure.reason, failure.tries) == ("unusable", "too_large", 1)
    failure = failure_of(download, fake, max_bytes=100_000, download="range")
    assert (failure.outcome, failure.reason, failure.tries) == ("unusable", "too_large", 1)


def test_a_playlist_in_place_of_media_is_not_opened(files, youtube_of, download, tmp_path):
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXTINF:10,\nhttps://example.com/a.ts\n")
    for itags in ((18,), (134, 140)):
        fake = youtube_of({ID: Video(formats=dict.fromkeys(itags, playlist), seconds=SECONDS)})
        for mode in ("whole", "range"):
            assert failure_of(download, fake, download=mode).outcome == "transient"
        assert fake.strangers == []


@pytest.mark.parametrize(
    ("kind", "itag", "fine"),
    [
        ("video/mp4", "../../../evil", True),
        ("video/mp4", "e" * 300, True),
        ("video/../../evil", "18x", False),
        ("video/x-msdos-program", "18x", False),
    ],
)
def test_names_that_lead_out_of_the_folder(kind, itag, fine, files, youtube_of, download, tmp_path, monkeypatch):
    monkeypatch.setitem(ITAGS, itag, (f'{kind}; codecs="avc1.42001E, mp4a.40.2"', 640, 360, True))
    before = sorted(tmp_path.parent.rglob("*"))
    fake = youtube_of({ID: Video(formats={itag: files[18]}, seconds=SECONDS)})
    if fine:
        os.remove(download(fake).path)
    else:
        assert failure_of(download, fake).reason == "extractor_broke"
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_missing_deno_stops_the_run():
    code = (
        "import sys; sys.modules['deno'] = None\n"
        "from mbt.pipeline import outcomes, youtube_process\n"
        "try: youtube_process.deno()\n"
        "except outcomes.StopError as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install deno" in done.stderr


def test_cookies_are_sent_and_their_file_is_not_written(files, youtube_of, download, tmp_path):
    line = "\t".join((".youtube.com", "TRUE", "/", "TRUE", "2147483647", "SID", "SECRETCOOKIE"))
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    cookies.chmod(0o400)
    before = (cookies.read_bytes(), cookies.stat().st_mtime_ns)
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS)})
    download(fake, cookies=str(cookies))
    assert any("SID=SECRETCOOKIE" in header for header in fake.cookies)
    assert (cookies.read_bytes(), cookies.stat().st_mtime_ns) == before
    assert sorted(tmp_path.rglob("*cookie*")) == [cookies]


@pytest.mark.parametrize("content", [None, "{}", "SECRETCOOKIE", b"\xff\xfe\0"])
def test_unreadable_cookies_stop_the_run(content, youtube_of, download, tmp_path):
    cookies = tmp_path / "cookies.txt"
    if content is not None:
        cookies.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StopError, match=r"cookies\.txt") as stopped:
        download(youtube_of({}), cookies=str(cookies))
    assert "SECRETCOOKIE" not in str(stopped.value)
    assert os.listdir(download.folder) == []


def test_a_missing_ffmpeg_stops_the_run(files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={itag: files[itag] for itag in (134, 140)}, seconds=SECONDS)})
    for mode in ("whole", "range"):
        with pytest.raises(StopError, match="ffmpeg"):
            download(fake, ffmpeg="/nonexistent/ffmpeg", download=mode)
    assert os.listdir(download.folder) == []


def test_secrets_are_told_to_nobody(youtube_of, download, tmp_path, capfd):
    cookies = tmp_path / "cookies.txt"
    line = "\t".join((".youtube.com", "TRUE", "/", "TRUE", "2147483647", "SID", "SECRETCOOKIE"))
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    says = {"status": "ERROR", "reason": "Odd: SECRETCOOKIE and hunter22 at https://x/?sig=SECRETSIG"}
    fake = youtube_of({ID: Video(playability=says)}, password="somebody:hunter22")
    told = failure_of(download, fake, cookies=str(cookies)).detail
    assert told == "Odd: <hidden> and <hidden> at <address>"
    fake.password, shown = "somebody:other", fake.proxy_url
    settings = youtube.Settings(ffmpeg="ffmpeg", time_limit_s=60, cookies=str(cookies))
    with pytest.raises(FetchError) as raised:
        youtube.download(ID, None, str(download.folder), settings, shown)
    told += str(raised.value) + "".join(capfd.readouterr())
    assert not [secret for secret in ("SECRET", "hunter22", "somebody") if secret in told]


def test_a_proxy_that_wants_another_password_rests(youtube_of, download):
    fake = youtube_of({}, password="somebody:right")
    settings = youtube.Settings(ffmpeg="ffmpeg", time_limit_s=60)
    proxy = f"http://somebody:wrongpass@127.0.0.1:{fake.port}"
    with pytest.raises(FetchError) as raised:
        youtube.download(ID, None, str(download.folder), settings, proxy)
    assert (raised.value.failure.outcome, raised.value.failure.reason) == ("blocked", "proxy_refused")
    assert "wrongpass" not in raised.value.failure.detail


def test_the_environments_proxy_is_used(files, youtube_of, ffmpeg_program, tmp_path, monkeypatch):
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS)})
    monkeypatch.setenv("HTTPS_PROXY", fake.proxy_url)
    for mode in ("whole", "range"):
        settings = youtube.Settings(ffmpeg=ffmpeg_program, time_limit_s=60, download=mode)
        assert youtube.download(ID, (4_000_000, 6_000_000), str(tmp_path), settings).bytes


def test_many_at_a_time(files, youtube_of, download):
    fake = youtube_of(default=Video(formats={18: files[18]}, seconds=SECONDS))
    ids = [f"many{number:07d}" for number in range(12)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda video: download(fake, video), ids))
    assert len({found.path for found in done}) == len(os.listdir(download.folder)) == len(ids)
    assert {Path(found.path).read_bytes() for found in done} == {files[18].read_bytes()}


def test_nothing_outlives_a_parent_that_is_killed(files, youtube_of, ffmpeg_program, tmp_path):
    stall = Fault("media", "stall")
    fake = youtube_of({ID: Video(formats={18: files[18]}, seconds=SECONDS, faults=(stall,))})
    code = (
        "import sys; from mbt.pipeline import youtube\n"
        f"youtube.download({ID!r}, None, sys.argv[1], youtube.Settings(ffmpeg=sys.argv[2]), sys.argv[3])"
    )
    words = [sys.executable, "-c", code, str(tmp_path), ffmpeg_program, fake.proxy_url]
    with subprocess.Popen(words, env=os.environ | {"SSL_CERT_FILE": fake.ca_file}) as parent:
        while not fake.counts["media"]:
            time.sleep(0.02)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children and os.listdir(tmp_path)
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=300)
    assert not alive
    assert os.listdir(tmp_path) == []


def _form(width=None, height=None, *, sound=True, picture=True, **more) -> dict:
    codecs = {"vcodec": "avc1.4d401e" if picture else "none", "acodec": "mp4a.40.2" if sound else "none"}
    sizes = {"width": width, "height": height}
    return {"url": "https://x/", "protocol": "https", "tbr": 100, **codecs, **sizes, **more}


SOUND = _form(picture=False, name="sound", tbr=130)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ([_form(640, 360, name="a"), _form(640, 360, sound=False, name="b"), SOUND], ["a"]),
        ([_form(426, 240, name="a"), _form(640, 360, sound=False, name="b"), SOUND], ["b", "sound"]),
        # Upright: the shorter side is the width.
        (
            [_form(240, 426, name="a"), _form(360, 640, sound=False, name="b"), _form(480, 854, name="c"), SOUND],
            ["b", "sound"],
        ),
        # Very wide: 360p has 240 rows only, so the next size is needed.
        ([_form(640, 240, name="a"), _form(854, 320, sound=False, name="b"), SOUND], ["b", "sound"]),
        ([_form(256, 144, name="a"), _form(426, 240, name="b")], ["b"]),
        ([_form(1920, 1080, name="a"), _form(1280, 720, name="b")], ["b"]),
        ([_form(640, 360, sound=False, name="a")], []),
        ([SOUND], []),
        ([], []),
        ([_form(640, 360, name="a", has_drm=True)], []),
        ([_form(640, 360, name="a", protocol="m3u8_native"), _form(640, 360, name="b")], ["b"]),
        ([_form(640, 360, name="a", protocol="rtmp")], []),
        # The film's own language before a dubbed one, also where that is less work.
        (
            [
                _form(640, 360, name="a", sound=False),
                SOUND | {"name": "dubbed", "language_preference": -1},
                SOUND | {"name": "own", "language_preference": 10, "tbr": 50},
            ],
            ["a", "own"],
        ),
        ([_form(640, 360, sound=False, name="a"), SOUND | {"name": "48", "tbr": 48}, SOUND], ["a", "sound"]),
        ([_form(name="unknown"), _form(256, 144, name="small")], ["small"]),
    ],
)
def test_formats(formats, expected):
    assert [form["name"] for form in youtube_process.choose(formats)] == expected
