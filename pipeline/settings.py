"""How media are fetched; light, for the flags are checked before anything heavy is imported."""

import dataclasses

from mbt.pipeline.hosts import PUBLIC, Hosts


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """How media are fetched; of secrets it holds only where they are kept, as `secret.read` takes it.

    Attributes:
      cookies: a cookies file for YouTube, or None.
      proxies: a file of proxies, or None.
      youtube_api_key: a file with a key of YouTube's Data API, or None.
      downloads: at a time, on each machine.
      interval_s: between requests to YouTube, on each machine.
      bytes_per_second: of all downloads of a machine, or None.
      download: of a YouTube video: "whole", "range" or "auto".
      time_limit_s: of a download.
      max_bytes: of a download.
      workers: that may fetch at a time, or None for as many as there are.
      lost_share: of a host's recent answers that bring nothing, above which it is not asked any more.
      hosts: where URLs may lead.
    """

    cookies: str | None = None
    proxies: str | None = None
    youtube_api_key: str | None = None
    downloads: int = 8
    interval_s: float = 0.0
    bytes_per_second: int | None = None
    download: str = "auto"
    time_limit_s: float = 900.0
    max_bytes: int = 2 << 30
    workers: int | None = None
    lost_share: float = 0.8
    hosts: Hosts = PUBLIC
