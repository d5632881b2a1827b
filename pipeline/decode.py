"""A span of a media file to JPEG frames at 25 fps and 16 kHz mono PCM, in one ffmpeg pass where that is enough."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mbt.pipeline import ffmpeg as process
from mbt.pipeline import passes, picture_rate, pictures, pieces, sound, streams, timeline
from mbt.pipeline.passes import MAX_CLIP_BYTES, MAX_ERROR_RATE, MAX_PIXELS, Sound, Span, Wanted, jpeg_size
from mbt.pipeline.reasons import UnusableError
from mbt.pipeline.timeline import Reading
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS, SAMPLE_RATE_HZ, num_frames

MAX_CLIP_US = 300 * MICROSECONDS
TIME_LIMIT_S = 120.0  # and twice the clip's length for every try; a retry gets it again

_JPEG_END = b"\xff\xd9"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded clip.

    Attributes:
      frames: one JPEG for each 1/25 s; frame k is what is seen k/25 s after the start.
      pcm: (samples,) int16, 16 kHz mono, sample 0 at the start; as long as the clip.
      height: of a frame, pixels.
      width: of a frame, pixels.
      duration_us: of the clip; less than asked for where the media ends earlier.
      treatments: what was done that is not done to most clips, in short words, sorted.
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
        "frame_choice": "nearest timestamp; one that stays long, until 20 ms before the next",
        "shorter_side": pictures.SHORTER_SIDE,
        "jpeg_qscale": passes.JPEG_QSCALE,
        "jpeg_chroma": "4:2:0, BT.601, full range",
        "pictures": pictures.settings(),
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "streams": "the default ones, then ffmpeg's choice; mono tracks of which none is preferred, mixed",
        "channels": "mono, ffmpeg's downmix; the loudest channel in seconds in which that cancels; W of ambisonics",
        "max_pixels": MAX_PIXELS,
        "max_clip_us": MAX_CLIP_US,
        "max_clip_bytes": MAX_CLIP_BYTES,
        "max_error_rate": MAX_ERROR_RATE,
        "picture_rate": picture_rate.settings(),
        "max_address_space_bytes": process.MEMORY_LIMIT_BYTES,
        "max_block_bytes": process.MAX_BLOCK_BYTES,
        "timeline": timeline.settings(),
        "sound": sound.settings(),
        "pieces": pieces.settings(),
        "cpu_flags": process.CPU_FLAGS,
        "ffmpeg_arguments": arguments("MEDIA", 0, MICROSECONDS),
    }


def arguments(path: str, start_us: int, duration_us: int) -> list[str]:
    """ffmpeg's command line for the first pass; see `passes.arguments`."""
    return passes.arguments(Span(path=path, start_us=start_us, duration_us=duration_us), start_us, Wanted())


def decode(path: str, start_us: int, end_us: int, *, program: str, time_limit_s: float = TIME_LIMIT_S) -> Decoded:
    """Decodes [start, end) of a media file.

    Both streams share the container's clock, whose zero is the file's earliest timestamp. Where a stream begins later
    than the span, its first frame is held or it is silent until then, and where that is long, `treatments` says so; one
    that ends a little early is padded in the same way.

    Raises:
      UnusableError: no such file, not media, or nothing that gives a whole clip.
      WorkerTroubleError: this machine failed, not the media.
    """
    span = Span(path=path, start_us=start_us, duration_us=end_us - start_us)
    time_limit_s += 2 * span.duration_us / MICROSECONDS
    reading = timeline.read(span, program, time_limit_s)
    done, treatments = reading.done, set(reading.treatments)
    frames, pcm = split_jpegs(done.frames), sound.mixed(done.sounds)
    duration_us = timeline.length(done, len(frames), span)
    treatments.update(timeline.late(done, duration_us))
    if (
        len(done.sounds) == 1
        and sound.is_faint(pcm)
        and (restored := _restored(pcm, reading, span, program, time_limit_s)) is not None
    ):
        pcm = restored
        treatments.add(sound.DOWNMIX_CANCELS)
    if sound.is_silent(pcm):
        treatments.add(sound.SILENT)
    return _whole(frames, pcm, duration_us, tuple(sorted(treatments)))


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


def _restored(pcm: np.ndarray, reading: Reading, span: Span, program: str, time_limit_s: float) -> np.ndarray | None:
    """The sound with what mixing has lost: what is faint is looked at again, without the pictures."""
    found, used = reading.done.streams, streams.mapped(reading.done.log)
    chosen = next((stream for stream in found.audio if stream.index == used.get(1)), None) if found else None
    if chosen is None or chosen.channels < 2 or len(reading.done.sounds) > 1 or chosen.layout.startswith("ambisonic"):
        return None
    apart = Wanted(pictures=None, sounds=(Sound(channels=None),), linger_us=reading.linger_us)
    done = passes.run(span, reading.seek_us, apart, program, time_limit_s)
    return sound.restored(pcm, done.sounds[0].pcm) if done.returncode == 0 else None


def _whole(frames: list[bytes], samples: np.ndarray, duration_us: int, treatments: tuple[str, ...]) -> Decoded:
    height, width = jpeg_size(frames[0])
    if any(jpeg_size(frame) != (height, width) for frame in frames):
        raise UnusableError("size_changes", "the frame size changes inside the clip")
    wanted = num_frames(duration_us)
    frames = frames[:wanted] + frames[-1:] * (wanted - len(frames))
    num_samples = duration_us * SAMPLE_RATE_HZ // MICROSECONDS
    pcm = np.zeros(num_samples, np.int16)
    pcm[: len(samples)] = samples[:num_samples]
    return Decoded(frames=frames, pcm=pcm, height=height, width=width, duration_us=duration_us, treatments=treatments)
