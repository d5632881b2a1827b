"""A seed to the plan of a film: which container, codecs, key frames, offsets, holes; and what is done with it then."""

import dataclasses
import random
from fractions import Fraction

_SLOW_CODECS = ("libx265", "libvpx", "libvpx-vp9")
_H26X = ("libx264", "libx265")
_ANY_SOUND = ("aac", "libmp3lame", "mp2", "ac3", "libopus", "libvorbis", "flac", "pcm_s16le")
# What is found in each kind of file.
VIDEO = {
    "mp4": (*_H26X, "libx264", "mpeg4", "libvpx-vp9", "mpeg2video", "mjpeg"),
    "mov": (*_H26X, "mpeg4", "mjpeg", "mpeg2video"),
    "mkv": (*_H26X, "mpeg4", "mpeg2video", "libvpx", "libvpx-vp9", "mjpeg", "ffv1", "h263"),
    "webm": ("libvpx", "libvpx-vp9"),
    "ts": (*_H26X, "mpeg2video", "mpeg4"),
    "mpg": ("mpeg2video",),
    "avi": ("mpeg4", "mjpeg", "libx264", "ffv1"),
    "flv": ("libx264",),
    "3gp": ("h263", "mpeg4", "libx264"),
}
SOUND = {
    "mp4": ("aac", "libmp3lame", "ac3", "libopus", "flac"),
    "mov": ("aac", "pcm_s16le", "ac3"),
    "mkv": _ANY_SOUND,
    "webm": ("libopus", "libvorbis"),
    "ts": ("aac", "libmp3lame", "mp2", "ac3", "libopus"),
    "mpg": ("mp2", "ac3"),
    "avi": ("libmp3lame", "pcm_s16le", "ac3", "mp2"),
    "flv": ("aac", "libmp3lame"),
    "3gp": ("aac",),
}
_RATES = ("10", "12", "15", "24", "25", "30", "48", "50", "60", "24000/1001", "30000/1001", "60000/1001")
_MPEG2_RATES = ("24", "25", "30", "50", "60", "24000/1001", "30000/1001", "60000/1001")
_H263_RATES = ("10", "15", "30", "30000/1001")
_KEY_FRAMES = (1, 12, 25, 50, 100, 250, 9999)
_LATE_BY_S = (0.08, 0.4, 1.1, 1.7, 2.3)
_LATE_S = (
    *((0.0, 0.0),) * 6,
    *((late_s, 0.0) for late_s in _LATE_BY_S),
    *((0.0, late_s) for late_s in _LATE_BY_S),
    (5.0, 5.0),
)
_SIZES = {"h263": (176, 144)}
_WITH_TRACKS = ("mp4", "mov", "mkv", "ts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """How to make a film.

    Attributes:
      seed: that it was drawn from.
      container: its name's extension, as it is made.
      video: encoder of the pictures.
      audio: encoder of the sound.
      rate: pictures a second.
      key_frames: one of so many pictures is a key frame.
      size: of a picture, width and height.
      sample_rate: of the sound.
      channels: of the sound.
      seconds: length of each stream.
      video_late_s: by so much the pictures begin after zero.
      audio_late_s: and the sound.
      hole: of the pictures, from and to in seconds of their own; or None.
      keep: of so many pictures, in turn, some are left out: VFR; 0 for none.
      more_tracks: whether another picture and another sound, which are not the default ones, stand before these.
      then: what is done with it: "", "remux", "cut" or "join".
      into: container of what comes of that.
      cut_s: from and to, of a cut by copy.
    """

    seed: int
    container: str
    video: str
    audio: str
    rate: str
    key_frames: int
    size: tuple[int, int]
    sample_rate: int
    channels: int
    seconds: float
    video_late_s: float
    audio_late_s: float
    hole: tuple[float, float] | None
    keep: int
    more_tracks: bool
    then: str
    into: str
    cut_s: tuple[float, float]

    @property
    def name(self) -> str:
        """Of the file."""
        return f"film{self.seed}.{self.into}"

    @property
    def kind(self) -> str:
        """What makes it hard, for a table."""
        words = [self.into, self.then]
        words += ["hole"] if self.hole else []
        words += ["vfr"] if self.keep else []
        words += ["late"] if self.video_late_s or self.audio_late_s else []
        words += ["tracks"] if self.more_tracks else []
        return " ".join(word for word in words if word)

    def __str__(self) -> str:
        then = {"cut": f" cut {self.cut_s[0]}-{self.cut_s[1]}>{self.into}"}.get(self.then, f" {self.then}>{self.into}")
        return (
            f"{self.container} {self.video} {self.audio}/{self.sample_rate}/{self.channels} {self.rate} "
            f"g{self.key_frames} v+{self.video_late_s} a+{self.audio_late_s}"
            + (f" hole {self.hole[0]}-{self.hole[1]}" if self.hole else "")
            + (f" vfr{self.keep}" if self.keep else "")
            + (" tracks" if self.more_tracks else "")
            + (then if self.then else "")
        )


def draw(seed: int) -> Film:
    """The film of a seed."""
    dice = random.Random(seed)
    container = dice.choice(list(VIDEO))
    video, audio = dice.choice(VIDEO[container]), dice.choice(SOUND[container])
    seconds = round(dice.uniform(6, 10 if video in _SLOW_CODECS else 14), 1)
    video_late_s, audio_late_s = dice.choice(_LATE_S)
    then = dice.choice(("", "", "remux", "cut", "join"))
    cut_from = round(dice.uniform(0.5, seconds / 3), 3)
    return Film(
        seed=seed,
        container=container,
        video=video,
        audio=audio,
        rate=dice.choice({"mpeg2video": _MPEG2_RATES, "h263": _H263_RATES}.get(video, _RATES)),
        key_frames=dice.choice(_KEY_FRAMES),
        size=_SIZES.get(video, (192, 128)),
        sample_rate=_sample_rate(dice, audio),
        channels=dice.choice((1, 2)),
        seconds=seconds,
        video_late_s=video_late_s,
        audio_late_s=audio_late_s,
        hole=_hole(dice, seconds),
        keep=dice.choice((0, 0, 0, 3, 5)) if container not in ("avi", "mpg") else 0,
        more_tracks=container in _WITH_TRACKS and dice.random() < 0.2,
        then=then,
        into=_into(dice, container, video, audio) if then in ("remux", "cut") else container,
        cut_s=(cut_from, round(cut_from + dice.uniform(0.5, 1) * (seconds - cut_from), 3)),
    )


def spans(film: Film, length_s: float, count: int) -> list[tuple[int, int]]:
    """Random spans of a film, in microseconds; some begin with it, some end after it."""
    dice = random.Random(f"spans of {film.seed}")
    found = []
    while len(found) < count:
        start_s = 0.0 if dice.random() < 0.1 else dice.uniform(0, max(0.1, length_s - 0.6))
        end_s = start_s + dice.uniform(0.5, 6)
        if end_s <= length_s or dice.random() < 0.2:
            found.append((round(start_s * 1000) * 1000, round(end_s * 1000) * 1000))
    return found


def frame_s(film: Film) -> float:
    """How long a picture is seen."""
    return float(1 / Fraction(film.rate))


def _hole(dice: random.Random, seconds: float) -> tuple[float, float] | None:
    if dice.random() < 0.65:
        return None
    first = round(dice.uniform(0.5, seconds - 3.5), 2)
    return first, round(first + dice.uniform(0.2, 2.5), 2)


def _sample_rate(dice: random.Random, audio: str) -> int:
    if audio == "libopus":
        return 48000
    return dice.choice((32000, 44100, 48000))


def _into(dice: random.Random, container: str, video: str, audio: str) -> str:
    """Another kind of file that holds these codecs, or the same."""
    others = [name for name in VIDEO if video in VIDEO[name] and audio in SOUND[name]]
    return dice.choice(others or [container])
