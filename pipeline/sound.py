"""Which sound of a file is the clip's, and what to do where mixing it down loses it."""

from collections.abc import Iterator, Sequence

import numpy as np

from mbt.pipeline.passes import Heard, Sound
from mbt.pipeline.streams import AudioStream, Streams
from mbt.schemas.clip import SAMPLE_RATE_HZ

# Second by second: below this (-40 dB of full scale) the mix may be what is left of channels that cancel, and they are
# looked at one by one; it has cancelled where the loudest has ten times its amplitude.
_PART = SAMPLE_RATE_HZ
_FAINT = 0.01 * 32768
_CANCELLED = 10.0
_FADE = SAMPLE_RATE_HZ // 100 + 1  # from the mix to a channel and back, so that nothing clicks; odd
_SILENT_PEAK = 3  # -80 dB of full scale: what dithering leaves of silence
_MOST_TRACKS = 32

DOWNMIX_CANCELS, SILENT = "downmix_cancels", "silent"


def outputs(found: Streams, index: int | None) -> tuple[tuple[Sound, ...], tuple[str, ...]]:
    """The sounds that make the clip's, and the treatments that this means.

    Several mono streams of which the container prefers none, in one language, are the microphones of one recording:
    they are mixed. Of ambisonics channel W is taken, which is the mono sound. Channels of which nobody says where they
    stand are mixed alike.

    Args:
      found: what ffmpeg says of the file.
      index: of the stream that ffmpeg chooses.
    """
    chosen = next((stream for stream in found.audio if stream.index == index), None)
    if chosen is None:
        return (Sound(),), ()
    alike = [stream for stream in found.audio if _is_alike(stream, chosen)]
    if 1 < len(alike) == len(found.audio) <= _MOST_TRACKS:
        return tuple(Sound(index=stream.index) for stream in alike), ("mixed_tracks",)
    if chosen.layout.startswith("ambisonic"):
        return (Sound(first="pan=mono|c0=c0"),), ("ambisonic",)
    if chosen.layout.split(" ")[1:2] == ["channels"]:
        alike_weights = "+".join(f"{1 / chosen.channels:.9f}*c{channel}" for channel in range(chosen.channels))
        return (Sound(first=f"pan=mono|c0={alike_weights}"),), ("mixed_channels",)
    return (Sound(),), ()


def mixed(sounds: Sequence[Heard]) -> np.ndarray:
    """One channel of several: their mean, without those that are silent throughout."""
    heard = [sound.pcm for sound in sounds if not is_silent(sound.pcm)] or [sounds[0].pcm]
    if len(heard) == 1:
        return np.pad(heard[0], (0, max(len(sound.pcm) for sound in sounds) - len(heard[0])))
    total = np.zeros(max(len(sound.pcm) for sound in sounds), np.int64)
    for pcm in heard:
        total[: len(pcm)] += pcm
    return ((2 * total + len(heard)) // (2 * len(heard))).astype(np.int16)


def is_silent(pcm: np.ndarray) -> bool:
    """Whether nothing can be heard."""
    return not len(pcm) or int(np.abs(pcm.astype(np.int32)).max()) <= _SILENT_PEAK


def is_faint(pcm: np.ndarray) -> bool:
    """Whether a second of it may be what is left of channels that cancel."""
    return any(_amplitude(part) < _FAINT for part in _parts(pcm))


def restored(mix: np.ndarray, channels: np.ndarray) -> np.ndarray | None:
    """The mix, with a channel in its place in the seconds in which mixing has lost the sound; None where it has not.

    It is the loudest channel of those seconds; of equals the first, which is the left one.
    """
    if channels.ndim != 2:
        return None
    channels = np.pad(channels[: len(mix)], ((0, max(0, len(mix) - len(channels))), (0, 0)))
    lost = [_is_lost(part, channels_) for part, channels_ in zip(_parts(mix), _parts(channels), strict=True)]
    if not any(lost):
        return None
    where = np.repeat(lost, _PART)[: len(mix)]
    amplitudes = np.array([_amplitude(channel[where]) for channel in channels.T])
    loudest = channels[:, int(np.argmax(amplitudes > 0.999 * amplitudes.max()))].astype(np.int64)
    share = _around(_around(where) > 0)  # the fades lie in the seconds beside
    return ((2 * (share * loudest + (_FADE - share) * mix) + _FADE) // (2 * _FADE)).astype(np.int16)


def settings() -> dict[str, object]:
    """Every number of the choice, for `dataset.json`."""
    return {
        "part_samples": _PART,
        "faint": _FAINT,
        "cancelled": _CANCELLED,
        "fade_samples": _FADE,
        "silent_peak": _SILENT_PEAK,
        "most_tracks": _MOST_TRACKS,
    }


def _is_alike(stream: AudioStream, chosen: AudioStream) -> bool:
    form = ("layout", "is_default", "language", "codec", "sample_rate_hz")
    return stream.layout == "mono" and all(getattr(stream, name) == getattr(chosen, name) for name in form)


def _parts(pcm: np.ndarray) -> Iterator[np.ndarray]:
    return (pcm[first : first + _PART] for first in range(0, len(pcm), _PART))


def _around(where: np.ndarray) -> np.ndarray:
    """How many of the samples around each one, as far as a fade reaches, are there."""
    return np.convolve(np.pad(where.astype(np.int64), _FADE // 2, "edge"), [1] * _FADE, "valid")


def _is_lost(mix: np.ndarray, channels: np.ndarray) -> bool:
    amplitude = _amplitude(mix)
    heard = (channel for channel in channels.T if not is_silent(channel))
    return amplitude < _FAINT and any(_amplitude(channel) >= _CANCELLED * amplitude for channel in heard)


def _amplitude(pcm: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))) if len(pcm) else 0.0
