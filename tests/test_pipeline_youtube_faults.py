"""Whatever YouTube, its servers and its scripts do wrong has its outcome, and leaves nothing behind."""

from pathlib import Path

import psutil
import pytest
from fake_youtube import SIGNATURE, Fault, Video
from youtube_downloads import ID, SECONDS, failure_of

from mbt.pipeline import youtube
from mbt.pipeline.outcomes import FetchError

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
def test_each_fault_has_its_outcome(fault, outcome, reason, youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, faults=(fault,))})
    failure = failure_of(download, fake, time_limit_s=3 if fault.kind in ("stall", "trickle") else 60)
    assert (failure.outcome.value, failure.reason) == (outcome, reason)
    assert failure.retry_after_s == (9 if fault.headers else None)
    assert SIGNATURE not in failure.detail


def test_without_the_watch_page_the_rest_is_enough(youtube_files, youtube_of, download):
    for fault in (
        Fault("watch", status=429),
        Fault("watch", status=500),
        Fault("watch", "html"),
        Fault("watch", "cut"),
    ):
        fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, faults=(fault,))})
        assert download(fake).bytes == youtube_files[18].stat().st_size


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


def test_faults_that_pass_at_once_cost_nothing(youtube_files, youtube_of, download):
    faults = tuple(Fault(stage, status=503, times=1) for stage in ("watch", "player", "media"))
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, faults=faults)})
    assert Path(download(fake).path).read_bytes() == youtube_files[18].read_bytes()


def test_a_storm_blocks_and_passes(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS)}, refuse_from=1)
    failure = failure_of(download, fake)
    assert (failure.outcome, failure.reason, failure.retry_after_s) == ("blocked", "http_429", 7)
    fake.refuse_from = None
    assert download(fake).bytes == youtube_files[18].stat().st_size


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
def test_what_youtube_says(playability, outcome, reason, youtube_files, youtube_of, download):
    trailer = Video(formats={18: youtube_files[18]}, seconds=SECONDS)
    fake = youtube_of({ID: Video(playability=playability), "trailer0000": trailer})
    failure = failure_of(download, fake)
    assert (failure.outcome.value, failure.reason) == (outcome, reason)
    assert fake.counts["media"] == 0


def test_a_video_that_is_not_there(youtube_of, download):
    failure = failure_of(download, youtube_of({}))
    assert (failure.outcome, failure.reason) == ("gone", "does_not_exist")


def test_formats_without_addresses_mean_that_we_are_refused(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, tokens_missing=True)})
    failure = failure_of(download, fake)
    assert (failure.outcome, failure.reason) == ("blocked", "token_missing")


def test_live_streams_and_spans_past_the_end_are_not_downloaded(youtube_files, youtube_of, download):
    live = Video(formats={18: youtube_files[18]}, details={"isLive": True, "isLiveContent": True})
    fake = youtube_of({ID: live, "bbbbbbbbbbb": Video(formats={18: youtube_files[18]}, seconds=SECONDS)})
    assert failure_of(download, fake).reason == "upcoming"
    failure = failure_of(download, fake, "bbbbbbbbbbb", span_us=(20_000_000, 30_000_000))
    assert (failure.outcome, failure.reason) == ("unusable", "start_past_end")
    assert fake.counts["media"] == 0


def test_a_script_that_cannot_be_solved_blocks(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, challenges=True)})
    fake.script = "nothing that we know"
    failure = failure_of(download, fake)
    assert (failure.outcome, failure.reason) == ("blocked", "token_missing")


def test_a_script_without_end_is_ended(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, challenges=True)})
    fake.script = fake.script.replace("var turn", "for (var k = 0; k >= 0; k = k) {}\nvar turn")
    failure = failure_of(download, fake, time_limit_s=4)
    assert (failure.outcome, failure.reason) == ("transient", "too_slow")
    assert not [child for child in psutil.Process().children(recursive=True) if "deno" in child.name()]


def test_too_large(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS)})
    failure = failure_of(download, fake, max_bytes=100_000)
    assert (failure.outcome, failure.reason, failure.tries) == ("unusable", "too_large", 1)
    failure = failure_of(download, fake, max_bytes=100_000, download="range")
    assert (failure.outcome, failure.reason, failure.tries) == ("unusable", "too_large", 1)


def test_a_playlist_in_place_of_media_is_not_opened(youtube_files, youtube_of, download, tmp_path):
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXTINF:10,\nhttps://example.com/a.ts\n")
    for itags in ((18,), (134, 140)):
        fake = youtube_of({ID: Video(formats=dict.fromkeys(itags, playlist), seconds=SECONDS)})
        for mode in ("whole", "range"):
            assert failure_of(download, fake, download=mode).outcome == "transient"
        assert fake.strangers == []


def test_a_proxy_that_wants_another_password_rests(youtube_of, download):
    fake = youtube_of({}, password="somebody:right")
    settings = youtube.Settings(ffmpeg="ffmpeg", time_limit_s=60)
    proxy = f"http://somebody:wrongpass@127.0.0.1:{fake.port}"
    with pytest.raises(FetchError) as raised:
        youtube.download(ID, None, str(download.folder), settings, proxy)
    assert (raised.value.failure.outcome, raised.value.failure.reason) == ("blocked", "proxy_refused")
    assert "wrongpass" not in raised.value.failure.detail
