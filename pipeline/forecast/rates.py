"""What a clip costs: CPU, bytes, requests. Defaults were measured; docs/performance.md and docs/scale.md tell how."""

import dataclasses

DOCUMENTED = "docs/performance.md"
# Of 640 x 360 H.264, decoded and encoded to 455 x 256, in units of the canary's own CPU time, which stands for the
# machine.
CANARIES_PER_SECOND = 0.72
START_CANARIES = 60.0  # Python, Beam, the first and the last look at everything
RECORD_BYTES_PER_SECOND = 450_000
# 360p of YouTube with its sound, 62.5 kB/s, of a clip of 10 s with what is kept around it: a second on each side, and
# back to a keyframe, up to 5 s.
MEDIA_BYTES_PER_SECOND = 100_000
ROW_CPU_S = 0.001  # of a clip beside its pictures and sound: annotations, ledger, plan, Beam, snapshot
PROBE_SHARE = 0.25  # of what a record takes: the same decoding, to thumbnails
LAUNCHER_BYTES = 270 << 20
LAUNCHER_BYTES_PER_ROW = 830  # of a ledger that is read and joined to the clips
LEDGER_BYTES_PER_ATTEMPT = 125
# What yt-dlp's makers found.
GUEST_VIDEOS_PER_HOUR = 300
GUEST_SOURCE = "github.com/yt-dlp/yt-dlp-wiki/pull/52"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
    """What it takes to get a clip of a YouTube video: requests, seconds, bytes that come, CPU seconds of yt-dlp."""

    requests: int
    seconds: float
    bytes: int
    cpu_s: float


# Videos of 5 minutes from a server that plays YouTube (benchmarks/youtube_cut.py), picture and sound in two files.
_RANGE = Video(requests=10, seconds=3.0, bytes=2_700_000, cpu_s=0.6)
YOUTUBE = {"auto": _RANGE, "range": _RANGE, "whole": Video(requests=5, seconds=8.2, bytes=20_000_000, cpu_s=1.2)}
YOUTUBE_SOURCE = "docs/fetching.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a sample of clips took whose pictures have about the same size.

    Attributes:
      pixels: their shorter side, as a range.
      clips: in the sample.
      seconds: of clips.
      cpu_s: of decoding and encoding, with all children.
      bytes: of records.
    """

    pixels: str
    clips: int
    seconds: float
    cpu_s: float
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """What things cost.

    Attributes:
      cpu_s: of a second of clip, from media to a record.
      cpu_source: where that is from.
      record_bytes: of a second of clip.
      record_error: two standard errors of that, as a share of it; or None where it is no measurement.
      bytes_source: where that is from.
      media_bytes: of a second of clip, in the media store.
      media_source: where that is from.
      start_cpu_s: of a build without clips.
      start_source: where that is from.
      unusable: share of clips whose media are there, of which no record can be made.
      clips_per_second: that one machine fetched, by the ledger; or None.
      measured: the sample.
    """

    cpu_s: float
    cpu_source: str
    record_bytes: float = RECORD_BYTES_PER_SECOND
    record_error: float | None = None
    bytes_source: str = DOCUMENTED
    media_bytes: float = MEDIA_BYTES_PER_SECOND
    media_source: str = "360p of YouTube, docs/scale.md"
    start_cpu_s: float
    start_source: str
    unusable: float = 0.0
    clips_per_second: float | None = None
    measured: tuple[Measured, ...] = ()


def default(canary_cpu_s: float) -> Rates:
    """Of a machine that takes so long for the canary."""
    source = f"{DOCUMENTED}, scaled by the canary's {canary_cpu_s:.3f} s of CPU here"
    return Rates(
        cpu_s=CANARIES_PER_SECOND * canary_cpu_s,
        cpu_source=source,
        start_cpu_s=START_CANARIES * canary_cpu_s,
        start_source=source,
    )
