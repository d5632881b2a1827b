"""The span of a video has the frames and times of the whole, and keeps to the proxy."""

import pytest
from fake_youtube import SIGNATURE, Fault, Video
from youtube_downloads import ID, SECONDS, failure_of, frames

from mbt.pipeline import youtube_range
from mbt.pipeline.outcomes import StopError


@pytest.mark.parametrize("itags", [(18,), (134, 140)])
def test_a_range_has_the_frames_and_times_of_the_whole(itags, youtube_files, youtube_of, download, ffmpeg_program):
    video = Video(formats={itag: youtube_files[itag] for itag in itags}, seconds=SECONDS)
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


def test_auto_takes_short_videos_whole_and_long_ones_in_part(youtube_files, youtube_of, download):
    long = Video(formats={18: youtube_files[18]}, seconds=youtube_range.WHOLE_UP_TO_S + 1)
    fake = youtube_of({ID: long, "bbbbbbbbbbb": Video(formats={18: youtube_files[18]}, seconds=SECONDS)})
    assert download(fake, download="auto").starts_at_us > 0
    assert download(fake, "bbbbbbbbbbb", download="auto").starts_at_us == 0
    assert download(fake, span_us=None, download="auto").bytes == youtube_files[18].stat().st_size


def test_a_range_never_passes_a_proxy_by(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    job = {"span_us": (0, 1), "download": "range", "proxy": "socks5://127.0.0.1:9"}
    with pytest.raises(StopError, match="download=whole"):
        youtube_range.wants_range(job, {"duration": 10})
    assert not youtube_range.wants_range(job | {"download": "auto"}, {"duration": 10**6})
    assert youtube_range.wants_range(job | {"download": "auto", "proxy": None}, {"duration": 10**6})
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:9")
    assert not youtube_range.wants_range(job | {"download": "auto", "proxy": None}, {"duration": 10**6})


def test_requests_are_bounded(youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats=youtube_files, seconds=SECONDS)}, unbounded_bytes_per_second=1000)
    for mode in ("whole", "range"):
        assert download(fake, download=mode).bytes > 50_000


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
def test_faults_of_a_range(fault, outcome, reason, youtube_files, youtube_of, download):
    fake = youtube_of({ID: Video(formats={18: youtube_files[18]}, seconds=SECONDS, faults=(fault,))})
    failure = failure_of(download, fake, download="range", time_limit_s=3 if fault.kind == "trickle" else 60)
    assert failure.outcome == outcome
    assert SIGNATURE not in failure.detail
