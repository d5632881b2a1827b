"""A span of a media file to JPEG frames at 25 fps and 16 kHz mono PCM, in one ffmpeg pass."""

import dataclasses
import functools
import re
import struct
from collections.abc import Sequence

import ffmpeg
import numpy as np

from mbt.pipeline import ffmpeg as process
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS, SAMPLE_RATE_HZ, num_frames

RULES = 2  # version of the rules by which a clip is unusable: what an older one refused is tried once more
SHORTER_SIDE = 256
JPEG_QSCALE = 3  # docs/jpeg_quality.md
MAX_PIXELS = 4096 * 4096
MAX_CLIP_US = 300 * MICROSECONDS
MAX_CLIP_BYTES = 512 << 20
MAX_ERROR_RATE = 0.1  # of the packets of a stream
TIME_LIMIT_S = 120.0  # and twice the clip's length for every try; a retry gets it again

# A stream may end this much before the clip does: the last frame is held, the sound padded with silence.
TOLERATED_GAP_US = MICROSECONDS // 2
TOLERATED_GAP_SHARE = 0.1
# Tools differ by some hundredths of a second about how long a file is: a span that ends this much later is honoured.
END_SLACK_US = MICROSECONDS // 10

# Demuxers of single files. Playlists (hls, dash, concat) and image sequences are not among them.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *("avi", "asf", "flv", "mpegts", "mpeg", "ogg", "gif", "mxf", "rm", "dv", "nut", "ivf"),
    *("wav", "w64", "mp3", "aac", "flac", "amr", "amrnb", "amrwb", "ac3", "caf"),
    *("h264", "hevc", "m4v", "mpegvideo", "obu", "av1"),
)

# The first pattern found among ffmpeg's complaints names the reason. Causes stand before consequences.
_REASONS = (
    (re.compile(r"exceeds specified max pixel count"), "too_many_pixels"),
    (re.compile(r"not in allowed list|not on whitelist"), "format_not_allowed"),
    (re.compile(r"Stream specifier ':?V:0'.* matches no streams"), "no_video"),
    (re.compile(r"Stream specifier ':?a:0'.* matches no streams"), "no_audio"),
    (re.compile(r"detected only with low score"), "not_media"),  # by its name only
    (re.compile(r"moov atom not found|partial file"), "truncated"),
    (re.compile(r"No such file or directory|Permission denied|Is a directory"), "missing"),
    (re.compile(r"[Nn]o decoder found|Decoder .* not found|unknown codec"), "unknown_codec"),
    (re.compile(r"Error opening input"), "not_media"),
    (re.compile(r"Decode error rate .* exceeds maximum"), "decode_errors"),
)
# After the names of components and before any text: titles and the like, which follow [info], are not complaints.
_COMPLAINT = re.compile(r"(?:\[[^\]]*\] )*?\[(?:warning|error|fatal|panic)\] ")
_ENCRYPTED = re.compile(r"^\[info\] +Encryption initialization data:|\((?:encv|enca) / ", re.MULTILINE)
_DURATION = re.compile(r"^\[info\]   Duration: (?:(\d+):(\d\d):(\d\d\.\d+)|N/A)", re.MULTILINE)
_NOISE = re.compile(r" @ 0x[0-9a-f]+")
_JPEG_END = b"\xff\xd9"


class UnusableError(ValueError):
    """The media can never become a record; the same bytes give the same reason everywhere."""

    def __init__(self, reason: str, detail: str = "", rule: int = RULES):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.rule = rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded clip.

    Attributes:
      frames: one JPEG for each 1/25 s; frame k is what is seen k/25 s after the start.
      pcm: (samples,) int16, 16 kHz mono, sample 0 at the start; as long as the clip.
      height: of a frame, pixels.
      width: of a frame, pixels.
      duration_us: of the clip; less than asked for where the media ends earlier.
      treatments: what was done beyond the usual, sorted words such as "tone_mapped".
    """

    frames: Sequence[bytes]
    pcm: np.ndarray
    height: int
    width: int
    duration_us: int
    treatments: tuple[str, ...] = ()


def settings() -> dict[str, object]:
    """Every number that decides what `decode` returns, for `dataset.json`."""
    return {
        "frame_rate_hz": FRAME_RATE_HZ,
        "frame_choice": "nearest timestamp",
        "shorter_side": SHORTER_SIDE,
        "jpeg_qscale": JPEG_QSCALE,
        "jpeg_chroma": "4:2:0, BT.601, full range",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "channels": "mono, ffmpeg's downmix",
        "max_pixels": MAX_PIXELS,
        "max_clip_us": MAX_CLIP_US,
        "max_clip_bytes": MAX_CLIP_BYTES,
        "max_error_rate": MAX_ERROR_RATE,
        "max_address_space_bytes": process.MEMORY_LIMIT_BYTES,
        "max_block_bytes": process.MAX_BLOCK_BYTES,
        "tolerated_gap_us": TOLERATED_GAP_US,
        "tolerated_gap_share": TOLERATED_GAP_SHARE,
        "end_slack_us": END_SLACK_US,
        "cpu_flags": process.CPU_FLAGS,
        "ffmpeg_arguments": arguments("MEDIA", 0, MICROSECONDS),
    }


def arguments(path: str, start_us: int, duration_us: int) -> list[str]:
    """ffmpeg's command line for one pass; `{0}` receives JPEGs and `{1}` PCM (s16le)."""
    head, tail = _graph()
    return [*head, *input_span(path, start_us, duration_us), *tail]


def input_span(path: str, start_us: int, duration_us: int) -> list[str]:
    """The words that make a span of a local file an input."""
    span = ["-ss", _seconds(start_us)] if start_us else []
    # "file:" keeps a name with a colon or a leading dash a name; braces are doubled for `run`.
    source = "file:" + path.replace("{", "{{").replace("}", "}}")
    return [*span, "-t", _seconds(duration_us), "-i", source]


@functools.cache
def _graph() -> tuple[list[str], list[str]]:
    """The arguments before and after the input's own: building them takes as long as a hundred frames."""
    media = ffmpeg.input(
        "MEDIA",
        threads=1,
        max_pixels=MAX_PIXELS,
        max_error_rate=MAX_ERROR_RATE,
        protocol_whitelist="file,pipe",
        format_whitelist=",".join(DEMUXERS),
    )
    scale = f"min(1,{SHORTER_SIDE}/min(iw*sar,ih))"
    pictures = (
        media["V:0"]
        .filter("fps", FRAME_RATE_HZ, start_time=0, round="near")
        .filter(
            "scale",
            w=f"max(1,trunc(iw*sar*{scale}+0.5))",
            h=f"max(1,trunc(ih*{scale}+0.5))",
            flags="bicubic+accurate_rnd+bitexact+full_chroma_int",
            out_color_matrix="smpte170m",  # JFIF readers assume BT.601, full range
            out_range="pc",
        )
        .filter("setsar", 1)
        .filter("format", "yuvj420p")
    )
    sound = (
        media["a:0"]
        .filter("aresample", SAMPLE_RATE_HZ, **{"async": 1, "first_pts": 0})
        .filter("aformat", sample_fmts="s16", channel_layouts="mono")
    )
    exact = {"flags:v": "+bitexact", "threads": 1, "map_metadata": -1, "fflags": "+bitexact"}
    outputs = ffmpeg.merge_outputs(
        pictures.output(
            "{0}", f="image2pipe", vcodec="mjpeg", **{"q:v": JPEG_QSCALE, "fps_mode": "passthrough"}, **exact
        ),
        sound.output("{1}", f="s16le", acodec="pcm_s16le", **{"flags:a": "+bitexact"}),
    )
    words = outputs.get_args()
    cut = words.index("-i")
    one_thread = ["-filter_threads", "1", "-filter_complex_threads", "1"]
    quiet = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-cpuflags", process.CPU_FLAGS]
    return [*quiet, *one_thread, *words[:cut]], words[cut + 2 :]


def decode(path: str, start_us: int, end_us: int, *, program: str, time_limit_s: float = TIME_LIMIT_S) -> Decoded:
    """Decodes [start, end) of a media file.

    Both streams share the container's clock, whose zero is the file's earliest timestamp. A stream that begins later is
    padded at the front (first frame held, silence), one that ends a little early at the end.

    Raises:
      UnusableError: no such file, not media, or nothing that gives a whole clip.
      WorkerTroubleError: this machine failed, not the media.
    """
    span_us = end_us - start_us
    try:
        result = process.run(
            program,
            arguments(path, start_us, span_us),
            outputs=2,
            byte_limit=MAX_CLIP_BYTES,
            time_limit_s=time_limit_s + 2 * span_us / MICROSECONDS,
        )
    except OverflowError as error:
        raise UnusableError("too_many_bytes", f"over {MAX_CLIP_BYTES >> 20} MiB when decoded") from error
    jpegs, pcm = result.outputs
    frames = split_jpegs(jpegs)
    left_us = left_after(result, path, start_us, whole=bool(frames and pcm))
    samples = np.frombuffer(pcm, "<i2", len(pcm) // 2)
    return _whole(frames, samples, span_us, left_us)


def left_after(result: process.Run, path: str, start_us: int, *, whole: bool) -> int | None:
    """How much of the media is left from the start of the span on, in microseconds, or None where it does not say.

    Args:
      result: of the pass.
      path: of the media, as ffmpeg was given it.
      start_us: of the span.
      whole: whether both streams gave something.

    Raises:
      UnusableError: the pass failed, with the reason that ffmpeg's log names.
    """
    log = result.log.replace(path, "FILE")  # a file's name must not pass for a complaint
    declared_us = _declared_us(log)
    if declared_us is not None and start_us >= declared_us:
        raise UnusableError("start_past_end", f"the media is {declared_us / MICROSECONDS:.2f} s long")
    if result.returncode != 0 or not whole:
        raise _failure(result.returncode, log)
    return None if declared_us is None else declared_us - start_us


def split_jpegs(stream: bytes | bytearray) -> list[bytes]:
    """Cuts a concatenation of JPEGs as ffmpeg's encoder writes it.

    In entropy-coded data FF is always followed by 00, and none of the encoder's headers holds FF D9, so the end
    marker is found by plain search.
    """
    frames, start = [], 0
    with memoryview(stream) as view:
        while (end := stream.find(_JPEG_END, start)) >= 0:
            frames.append(bytes(view[start : end + 2]))
            start = end + 2
    return frames


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """(height, width) from the baseline frame header (ITU T.81, B.2.2)."""
    at = 2
    while jpeg[at + 1] != 0xC0:
        at += 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    return struct.unpack_from(">HH", jpeg, at + 5)


def clip_length(video_us: int, audio_us: int, span_us: int, left_us: int | None) -> int:
    """Length of the clip that these streams give, in microseconds; less than the span where the media end earlier.

    Args:
      video_us: length of the decoded frames.
      audio_us: length of the decoded sound.
      span_us: length asked for.
      left_us: what the container says is left from the start of the span, or None.

    Raises:
      UnusableError: a stream ends long before the clip does.
    """
    there_us = max(video_us, audio_us) if left_us is None else left_us
    duration_us = span_us if span_us <= there_us + END_SLACK_US else there_us
    gap_us = max(TOLERATED_GAP_US, int(duration_us * TOLERATED_GAP_SHARE))
    for name, there_us in (("video", video_us), ("audio", audio_us)):
        if there_us < duration_us - gap_us:
            detail = f"{name} ends after {there_us / MICROSECONDS:.2f} of {duration_us / MICROSECONDS:.2f} s"
            raise UnusableError("truncated", detail)
    return duration_us


def _whole(frames: list[bytes], samples: np.ndarray, span_us: int, left_us: int | None) -> Decoded:
    video_us = len(frames) * MICROSECONDS // FRAME_RATE_HZ
    audio_us = len(samples) * MICROSECONDS // SAMPLE_RATE_HZ
    duration_us = clip_length(video_us, audio_us, span_us, left_us)
    height, width = jpeg_size(frames[0])
    if any(jpeg_size(frame) != (height, width) for frame in frames):
        raise UnusableError("size_changes", "the frame size changes inside the clip")
    wanted = num_frames(duration_us)
    frames = frames[:wanted] + frames[-1:] * (wanted - len(frames))
    num_samples = duration_us * SAMPLE_RATE_HZ // MICROSECONDS
    pcm = np.zeros(num_samples, np.int16)
    pcm[: len(samples)] = samples[:num_samples]
    return Decoded(frames=frames, pcm=pcm, height=height, width=width, duration_us=duration_us)


def _failure(returncode: int, log: str) -> UnusableError:
    complaints = [line for line in log.splitlines() if _COMPLAINT.match(line)]
    if _ENCRYPTED.search(log):
        return UnusableError("encrypted", "a stream is encrypted")
    for pattern, reason in _REASONS:
        for complaint in complaints:
            if pattern.search(complaint):
                return UnusableError(reason, _clean(complaint))
    if returncode == 0:
        return UnusableError("no_frames_or_sound", "a stream decodes to nothing")
    return UnusableError("decode_failed", _clean(complaints[-1]) if complaints else f"ffmpeg ended with {returncode}")


def _clean(line: str) -> str:
    """Without the addresses, which differ from run to run."""
    return _NOISE.sub("", line).strip()[:200]


def _declared_us(log: str) -> int | None:
    """The container's own length, or None where it has none."""
    if not (match := _DURATION.search(log)) or match[1] is None:
        return None
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    # ffmpeg prints hundredths, rounded.
    return round(seconds * MICROSECONDS) + MICROSECONDS // 200 or None


def _seconds(microseconds: int) -> str:
    return f"{microseconds // MICROSECONDS}.{microseconds % MICROSECONDS:06d}"
