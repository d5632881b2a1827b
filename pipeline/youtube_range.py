"""The span of a video without the rest: whether only that is downloaded, and how ffmpeg reads it."""

import functools
import os
import urllib.parse
import urllib.request
from typing import Any

from mbt.pipeline import youtube_ffmpeg
from mbt.pipeline.outcomes import StopError
from mbt.schemas.clip import MICROSECONDS

# benchmarks/youtube_cut.py: a whole download and a local cut take as long as ffmpeg's ranged reads where the video has
# one to two minutes. Of the two, the whole needs fewer requests, and goes on where it was cut.
WHOLE_UP_TO_S = 120
RANGE_MARGIN_US = MICROSECONDS  # on both sides of the span, for decoders and filters that look around

# YouTube sends slowly what is asked for without an end: yt-dlp's own limit on a request is 10 MiB
# (https://github.com/yt-dlp/yt-dlp/issues/17612).
_REQUEST_BYTES = 4 << 20


def wants_range(job: dict, info: dict) -> bool:
    """Whether to download only the span.

    Raises:
      StopError: it was asked for, and the proxy cannot serve it.
    """
    if job["span_us"] is None or job["download"] == "whole":
        return False
    # ffmpeg, which reads ranges, goes through HTTP proxies only; anywhere else it would pass the proxy by.
    able = urllib.parse.urlsplit(_proxy(job) or "http:").scheme == "http"
    if job["download"] == "range" and not able:
        raise StopError("--download=range goes through http:// proxies only: use --download=whole with this proxy")
    long = (info.get("duration") or 0) > WHOLE_UP_TO_S
    return able and (long or job["download"] == "range")


def range_parameters(job: dict, timeout_s: float) -> dict[str, Any]:
    """yt-dlp's parameters for a download of the span only, besides those of every download."""
    start_us, end_us = job["span_us"]
    span = {
        "start_time": max(0, start_us - RANGE_MARGIN_US) / MICROSECONDS,
        "end_time": (end_us + RANGE_MARGIN_US) / MICROSECONDS,
    }
    reading = ["-protocol_whitelist", "https,http,tls,tcp,httpproxy", "-format_whitelist", youtube_ffmpeg.DEMUXERS]
    trust = ["-tls_verify", "1", "-ca_file", os.environ.get("SSL_CERT_FILE") or _certificates()]
    patience = ["-rw_timeout", str(round(timeout_s * MICROSECONDS))]
    return {
        "proxy": _proxy(job),
        "download_ranges": lambda info, downloader: [span],
        # -copyts: packets keep the video's own times, so that the file says where it begins.
        "external_downloader_args": {
            "ffmpeg_i": ["-copyts", *reading, *trust, *patience, *_bounded(job["ffmpeg"])],
            "ffmpeg_o": ["-fflags", "+bitexact"],
        },
    }


def _proxy(job: dict) -> str | None:
    """The proxy of https URLs: the job's or the environment's, where ffmpeg alone would look for `http_proxy` only."""
    environment = urllib.request.getproxies()
    return job["proxy"] or environment.get("https") or environment.get("all")


@functools.cache
def _bounded(ffmpeg: str) -> tuple[str, ...]:
    """The option that bounds ffmpeg's requests; an ffmpeg before 8.1 has none, and is slow."""
    known = youtube_ffmpeg.run(ffmpeg, ["-hide_banner", "-h", "protocol=http"]).stdout
    return ("-request_size", str(_REQUEST_BYTES)) if b"-request_size " in known else ()


def _certificates() -> str:
    import certifi

    return certifi.where()
