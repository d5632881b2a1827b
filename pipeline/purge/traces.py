"""What decoded pictures and sound of purged clips look and sound like, to find them in media, however they are packed.

A frame is a thumbnail; sound is the spectrum of tenths of a second, four in a row. Only what is a clip's own is looked
for: not what moves as little as a still does, nor what its media show outside of its time too, nor silence and tones
that last, for such things are anybody's.
"""

import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mbt.pipeline import ffmpeg, needles, passes, probe, storage
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS

_FILE = "traces.npz"
_SIDE = 16
_PIXELS = _SIDE * _SIDE
_HZ = 16000
_TENTH = _HZ // 10
_STEPS = 5  # in a tenth of a second: how closely sound is aligned
_BANDS = 160
_IN_A_ROW = 4
_SAME = 4.0  # mean square difference of grey levels
_FLAT = 16.0  # variance of a picture that shows nothing
_STILL = FRAME_RATE_HZ // 5  # frames of a clip that look the same: more are a still
_SAME_SOUND = 0.97  # cosine
_LOUDNESS = 0.4  # power of a band to this: what a codec adds stays small beside what is heard
_QUIET = 64.0  # mean square of samples
_TIME_LIMIT_S = 3600.0
_BYTE_LIMIT = 1 << 30  # decoded: 9 hours of sound, or 46 of pictures
_AT_ONCE = 1 << 23  # pairs that are compared: 32 MiB, however long a film and however many clips
_WINDOWS_AT_ONCE = 1 << 10
_HEAD = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+error", "-filter_threads", "1", "-threads", "1"]
_INPUT = ["-protocol_whitelist", "file,pipe", "-format_whitelist", ",".join(passes.DEMUXERS)]
# Grey needs no matrix and no curve, and the scaler refuses some of those that pictures name.
_GREY = f"setparams=colorspace=unknown:color_trc=unknown,scale={_SIDE}:{_SIDE}:flags=area,format=gray"
_PICTURES = ["-map", "0:V:0", "-vf", f"fps={FRAME_RATE_HZ},{_GREY}"]
_SOUND = ["-map", "0:a:0", "-ac", "1", "-ar", str(_HZ), "-f", "s16le", "{0}"]
_TIME_BASE = re.compile(rb"^#tb 0: (\d+)/(\d+)$", re.MULTILINE)
_FIRST = re.compile(rb"^0, +-?\d+, +(-?\d+), ", re.MULTILINE)
_RAW = ["-f", "rawvideo", "-fps_mode", "passthrough", "{0}"]


@dataclasses.dataclass(frozen=True)
class Look:
    """A file, or a part of it: (frames, 256) thumbnails, and (samples,) of its sound."""

    frames: np.ndarray
    sound: np.ndarray


@dataclasses.dataclass(frozen=True)
class Traces:
    """What to look for.

    Attributes:
      frames: (frames, 256) grey levels.
      sounds: (runs, 4, bands) spectra of length 1.
    """

    frames: np.ndarray
    sounds: np.ndarray

    @classmethod
    def none(cls) -> "Traces":
        """Nothing."""
        return cls(np.empty((0, _PIXELS), np.float32), np.empty((0, _IN_A_ROW, _BANDS), np.float32))

    @classmethod
    def of(cls, own: Look, outside: Iterable[Look]) -> "Traces":
        """What is a clip's own, and not in what is shown outside of its time."""
        others = list(outside)
        frames = own.frames[own.frames.var(axis=1) > _FLAT] if len(own.frames) else own.frames
        alike = np.array([(_distances(frame[None], frames) <= _SAME).sum() for frame in frames], int)
        frames = frames[alike <= _STILL]
        sounds = _runs(own.sound)
        for other in others:
            frames = frames[~_seen(frames, other.frames)]
            sounds = sounds[~_heard(sounds, other.sound)]
        return cls(frames, sounds)

    def __add__(self, other: "Traces") -> "Traces":
        return Traces(*(np.concatenate([getattr(one, name) for one in (self, other)]) for name in ("frames", "sounds")))

    def __bool__(self) -> bool:
        return bool(len(self.frames) or len(self.sounds))

    def found_in(self, look: Look) -> tuple[int, int]:
        """How many of the frames, and of the runs of sound, are there."""
        return int(_seen(self.frames, look.frames).sum()), int(_heard(self.sounds, look.sound).sum())

    def times_in(self, look: Look) -> tuple[list[int], list[int]]:
        """At which microseconds they are there: frames, and runs of sound, each counted from its stream's begin."""
        frames = np.nonzero(_seen(look.frames, self.frames))[0] * MICROSECONDS // FRAME_RATE_HZ
        starts = [first + place for first, there in _matches(self.sounds, look.sound) for place in _any(there)]
        return frames.tolist(), [start * MICROSECONDS // (10 * _STEPS) for start in starts]

    def dump(self) -> bytes:
        """For a file."""
        sink = io.BytesIO()
        np.savez(sink, frames=self.frames, sounds=self.sounds)
        return sink.getvalue()

    @classmethod
    def load(cls, data: bytes) -> "Traces":
        """What `dump` wrote."""
        with np.load(io.BytesIO(data)) as arrays:
            return cls(arrays["frames"], arrays["sounds"])


def look(path: str, program: str) -> Look | None:
    """A whole local file, from its zero on and what is hidden before it; None where it does not decode.

    Raises:
      WorkerTroubleError: this machine failed, not the file.
    """
    source = ["-i", passes.source(path)]
    pictures, sound = (_decoded([*_HEAD, *_INPUT, *source, *tail], program) for tail in (_pictures(), _SOUND))
    return _look(pictures, sound)


def times(path: str, seen: Look, wanted: Traces, program: str) -> list[tuple[int, int]]:
    """The moments of a local file, counted from its zero, at which what is wanted is there."""
    frames, sounds = wanted.times_in(seen)
    pictures_us = _begin_us(path, "V", program) if frames else 0
    sound_us = _begin_us(path, "a", program) if sounds else 0
    moments = [(at + pictures_us, at + pictures_us + MICROSECONDS // FRAME_RATE_HZ) for at in frames]
    return moments + [(at + sound_us, at + sound_us + _IN_A_ROW * MICROSECONDS // 10) for at in sounds]


def _begin_us(path: str, kind: str, program: str) -> int:
    """When a stream begins that is decoded, counted from the file's zero."""
    words = [*_HEAD, *_INPUT, "-copyts", "-i", passes.source(path), "-map", f"0:{kind}:0"]
    listed = _decoded([*words, "-frames", "1", "-fps_mode", "passthrough", "-f", "framecrc", "{0}"], program) or b""
    base, first = _TIME_BASE.search(listed), _FIRST.search(listed)
    if base is None or first is None:
        return 0
    try:
        zero_us = probe.times(path, program).start_us
    except ffmpeg.INPUT_FAULTS:
        return 0
    return round(int(first[1]) * int(base[1]) / int(base[2]) * MICROSECONDS) - zero_us


def look_at(path: str, start_us: int, end_us: int, program: str) -> Look | None:
    """[start, end) of a local file, counted from its zero; see `look`."""
    start_us = max(0, start_us)
    length_us = max(1, end_us - start_us)
    source = ["-ss", passes.seconds(start_us), "-t", passes.seconds(length_us), "-i", passes.source(path)]
    pictures, sound = (_decoded([*_HEAD, *_INPUT, *source, *tail], program) for tail in (_pictures(), _SOUND))
    return _look(pictures, sound)


def look_at_jpegs(path: str, program: str) -> Look | None:
    """A file of JPEGs one after the other."""
    words = [*_HEAD, "-f", "mjpeg", "-framerate", str(FRAME_RATE_HZ), "-i", f"file:{path}", *_pictures()]
    return _look(_decoded(words, program), None)


def _pictures() -> list[str]:
    return [*_PICTURES, *_RAW]


def _look(pictures: bytes | None, sound: bytes | None) -> Look | None:
    if not pictures and not sound:
        return None
    frames = np.frombuffer(pictures or b"", np.uint8)
    frames = frames[: len(frames) // _PIXELS * _PIXELS].reshape(-1, _PIXELS)
    samples = np.frombuffer((sound or b"")[: len(sound or b"") // 2 * 2], "<i2")
    return Look(frames.astype(np.float32), samples.astype(np.float32))


def _decoded(words: Sequence[str], program: str) -> bytes | None:
    """What decodes, also of a file that is damaged further on."""
    try:
        result = ffmpeg.run(program, words, outputs=1, byte_limit=_BYTE_LIMIT, time_limit_s=_TIME_LIMIT_S)
    except (OverflowError, *ffmpeg.INPUT_FAULTS):
        return None
    return bytes(result.outputs[0])


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(some, others) mean square differences of thumbnails."""
    squares = _squares(some)[:, None] + _squares(others)[None]
    return (squares - 2 * (some @ others.T)) / _PIXELS


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows)


def _seen(frames: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Which of the frames look as one there does."""
    found = np.zeros(len(frames), bool)
    at_once = max(1, _AT_ONCE // max(1, len(frames)))
    for first in range(0, len(there) if len(frames) else 0, at_once):
        found |= (_distances(frames, there[first : first + at_once]) <= _SAME).any(axis=1)
    return found


def _spectra(sound: np.ndarray, step: int) -> np.ndarray:
    """(windows, bands) spectra of tenths of a second, of length 1; of what is silent, 0."""
    if len(sound) < _TENTH:
        return np.empty((0, _BANDS), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(sound, _TENTH)[::step]
    firsts = range(0, len(windows), _WINDOWS_AT_ONCE)
    return np.concatenate([_of_windows(windows[first : first + _WINDOWS_AT_ONCE]) for first in firsts])


def _of_windows(windows: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(windows * np.hanning(_TENTH), axis=1))[:, 1:] ** 2
    edges = np.unique(np.geomspace(1, power.shape[1], _BANDS + 1).astype(int))
    bands = np.zeros((len(windows), _BANDS), np.float32)
    bands[:, : len(edges) - 1] = np.add.reduceat(power, edges[:-1] - 1, axis=1) ** _LOUDNESS
    loud = (windows**2).mean(axis=1) > _QUIET
    return np.where(loud[:, None], bands / (np.linalg.norm(bands, axis=1, keepdims=True) + 1e-6), 0)


def _runs(sound: np.ndarray) -> np.ndarray:
    """Runs of tenths of a second that follow each other, without those in which nothing changes, or that are silent."""
    spectra = _spectra(sound, _TENTH)
    if len(spectra) < _IN_A_ROW:
        return Traces.none().sounds
    runs = np.stack([spectra[place : len(spectra) - _IN_A_ROW + 1 + place] for place in range(_IN_A_ROW)], axis=1)
    steps = (runs[:, 1:] * runs[:, :-1]).sum(axis=2)  # 1 where nothing changes, and 0 where there is silence
    return runs[((steps < _SAME_SOUND).sum(axis=1) >= 2) & (np.abs(runs).sum(axis=2) > 0).all(axis=1)]


def _heard(runs: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Which of the runs are there."""
    found = np.zeros(len(runs), bool)
    for _, there in _matches(runs, sound):
        found |= there.any(axis=1)
    return found


def _any(there: np.ndarray) -> list[int]:
    return np.nonzero(there.any(axis=0))[0].tolist()


def _matches(runs: np.ndarray, sound: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """From which step on, and (runs, steps) whether each run is at each of some steps that follow it."""
    spectra = _spectra(sound, _TENTH // _STEPS)
    last = len(spectra) - (_IN_A_ROW - 1) * _STEPS
    at_once = max(1, _AT_ONCE // max(1, len(runs)))
    for first in range(0, last if len(runs) else 0, at_once):
        there = np.ones((len(runs), min(at_once, last - first)), bool)
        for place in range(_IN_A_ROW):
            start = first + place * _STEPS
            there &= runs[:, place] @ spectra[start : start + there.shape[1]].T >= _SAME_SOUND
        yield first, there


def load(root: str) -> Traces:
    """Those of a purge that was interrupted; none where there was none."""
    try:
        return Traces.load(storage.read(storage.join(root, needles.FOLDER, _FILE)))
    except FileNotFoundError:
        return Traces.none()


def save(root: str, traces: Traces) -> None:
    """Keeps them until the purge ends."""
    storage.write(storage.join(root, needles.FOLDER, _FILE), traces.dump())


def spans_around(start_us: int, end_us: int, length_us: int) -> Iterator[tuple[int, int]]:
    """What there is of media before and after a span, without a moment at its edges."""
    edge_us = MICROSECONDS // 5
    if start_us - edge_us > 0:
        yield 0, start_us - edge_us
    if end_us + edge_us < length_us:
        yield end_us + edge_us, length_us
