"""What ffmpeg says of an input before it decodes: the "Input #0" block of its log, as types.

The block holds text of the file itself (titles, tags, languages). That text can make a file's own description wrong,
and with it this file's outcome, as the file's other bytes can; it never reaches beyond that.
"""

import dataclasses
import re

from mbt.schemas.clip import MICROSECONDS

_HEADER = re.compile(r"^\[info\] Input #0, (.+?), from '", re.MULTILINE)
_END = re.compile(r"^\[info\] (?:Stream mapping:|Output #0, |Input #1, )", re.MULTILINE)
_TIMES = re.compile(
    r"^\[info\]   Duration: (?:(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d\.\d+)|N/A)(?:, start: (?P<start>-?\d+\.\d+))?",
    re.MULTILINE,
)
# A language is the file's own text: it may hold brackets, colons and line ends. What follows is ffmpeg's and holds no
# colon with a space. A continued line has no level in front.
_STREAM = re.compile(
    r"^\[info\] +Stream #0:(?P<index>\d+)(?:\[0x[0-9a-f]+\])?(?:\((?P<language>(?:(?!\n\[[a-z]+\] ).)*)\))?"
    r": (?P<kind>Video|Audio): (?P<text>(?:(?!: )[^\n])*)$",
    re.MULTILINE | re.DOTALL,
)
_DISPOSITIONS = re.compile(r"(?: \([a-z_ ]+\))+$")
_CODEC = re.compile(r"^[^ ,]+")
_PICTURE = re.compile(
    r", (?P<format>[a-z0-9_]+)(?:\((?P<colours>[^()]*(?:\([^()]*\)[^()]*)*)\))?, (?P<width>\d+)x(?P<height>\d+)"
)
_SOUND = re.compile(r", (?P<rate>\d+) Hz, (?P<layout>.+?), [a-z0-9]+(?: \(\d+ bit\))?(?:, \d+ kb/s|, start |$)")
_ALPHA_FORMAT = re.compile(r"^(?:yuva|argb|rgba|abgr|bgra|gbrap|ayuv|vuya$|uyva|ya\d|yaf|pal8)")
_ALPHA_TAG = re.compile(r"^\[info\] +alpha_mode +: 1$", re.MULTILINE)
_ROTATION = re.compile(r"^\[info\]       Display Matrix: rotation of (-?\d+\.\d+) degrees$", re.MULTILINE)
_MAPPED = re.compile(r"^\[info\]   Stream #0:(\d+) -> #(\d+):0 \(", re.MULTILINE)
_METADATA = re.compile(r"\[info\]     (?:  .*|Metadata:|Side data:)|(?!\[[a-z]+\] ).*")
# These have no index, and no clock that is one from end to end: a length is the difference of two time stamps.
_WITHOUT_INDEX = ("mpegts", "mpeg")
_FIELD_ORDERS = {
    "progressive": "progressive",
    "top first": "top_first",
    "bottom first": "bottom_first",
    # Named for fields that are stored in the other order than shown, but ffmpeg's encoders and Matroska use them for
    # fields that are stored line by line.
    "top coded first (swapped)": "top_first",
    "bottom coded first (swapped)": "bottom_first",
}
_CHANNELS = {
    "mono": 1,
    "stereo": 2,
    "downmix": 2,
    "binaural": 2,
    "quad": 4,
    "hexagonal": 6,
    "octagonal": 8,
    "cube": 8,
    "hexadecagonal": 16,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoStream:
    """A video stream, as its container and its first packets describe it.

    Attributes:
      index: of the stream in the file.
      codec: ffmpeg's name of it.
      pix_fmt: ffmpeg's name of the pixel format, or "none".
      width: coded, pixels; 0 where it is not known.
      height: coded, pixels; 0 where it is not known.
      color_range: "tv", "pc" or None where it is not said, as all of the next.
      matrix: of colours, by ffmpeg's names.
      primaries: of colours, by ffmpeg's names.
      transfer: of colours, by ffmpeg's names.
      field_order: "progressive", "top_first" or "bottom_first" (which field is seen first), or None.
      is_attached_picture: cover art or a thumbnail, not a film.
      alpha: whether there is transparency, be it in the pixel format or beside it (VP8 and VP9 in Matroska).
      rotation: by how many degrees it is to be turned counterclockwise, from 0 to 359.
    """

    index: int
    codec: str
    pix_fmt: str
    width: int
    height: int
    color_range: str | None
    matrix: str | None
    primaries: str | None
    transfer: str | None
    field_order: str | None
    is_attached_picture: bool
    alpha: bool
    rotation: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioStream:
    """An audio stream, as its container and its first packets describe it.

    Attributes:
      index: of the stream in the file.
      codec: ffmpeg's name of it.
      sample_rate_hz: 0 where it is not known.
      layout: of the channels, by ffmpeg's names.
      channels: how many; 0 where it is not known.
      is_default: whether the container marks it as the one to play.
      language: what the container says of it: the file's own text.
    """

    index: int
    codec: str
    sample_rate_hz: int
    layout: str
    channels: int
    is_default: bool
    language: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Streams:
    """What ffmpeg says of an input.

    Attributes:
      container: the name of the demuxer.
      start_us: the earliest timestamp: the zero of the clock of every span.
      duration_us: what the container says of its length, or what the demuxer guessed; None where neither does.
      video: in the file's order.
      audio: in the file's order.
    """

    container: str
    start_us: int
    duration_us: int | None
    video: tuple[VideoStream, ...]
    audio: tuple[AudioStream, ...]


def parse(log: str) -> Streams | None:
    """What the log of ffmpeg at level `level+info` says of its first input; None where it opened none."""
    if not (header := _HEADER.search(log)):
        return None
    end = _END.search(log, header.start())
    log = log[header.start() : end.start() if end else len(log)]
    start_us, duration_us = _times(log)
    video: dict[int, VideoStream] = {}
    audio: dict[int, AudioStream] = {}
    for match in _STREAM.finditer(log):
        index = int(match["index"])
        text, words = _split_dispositions(match["text"])
        if match["kind"] == "Audio":
            audio.setdefault(index, _audio(index, text, words, match["language"]))
        else:
            video.setdefault(index, _video(index, text, words, _metadata(log, match.end())))
    return Streams(
        container=header[1],
        start_us=start_us,
        duration_us=duration_us,
        video=tuple(video[index] for index in sorted(video)),
        audio=tuple(audio[index] for index in sorted(audio)),
    )


def mapped(log: str) -> dict[int, int]:
    """Which stream of the input went into each output, by the numbers of the outputs."""
    _, _, mapping = log.partition("\n[info] Stream mapping:\n")
    return {int(output): int(stream) for stream, output in _MAPPED.findall(mapping)}


def has_no_index(found: Streams | None) -> bool:
    """Whether where a seek ends and how long the file is are guesses, and streams are described by how they begin."""
    return found is not None and found.container in _WITHOUT_INDEX


def _times(log: str) -> tuple[int, int | None]:
    if not (match := _TIMES.search(log)):
        return 0, None
    start_us = round(float(match["start"]) * MICROSECONDS) if match["start"] else 0
    if match["h"] is None:
        return start_us, None
    seconds = int(match["h"]) * 3600 + int(match["m"]) * 60 + float(match["s"])
    return start_us, round(seconds * MICROSECONDS)


def _split_dispositions(text: str) -> tuple[str, frozenset[str]]:
    match = _DISPOSITIONS.search(text)
    if not match:
        return text, frozenset()
    return text[: match.start()], frozenset(re.findall(r"\(([a-z_ ]+)\)", match[0]))


def _metadata(log: str, position: int) -> str:
    """The lines that belong to the stream whose own line ends there."""
    lines = []
    for line in log[position + 1 :].splitlines():
        if not _METADATA.fullmatch(line):
            break
        lines.append(line)
    return "\n".join(lines)


def _video(index: int, text: str, dispositions: frozenset[str], metadata: str) -> VideoStream:
    picture = _PICTURE.search(text)
    pix_fmt = picture["format"] if picture else "none"
    colours = (picture["colours"] or "").split(", ") if picture else []
    rotation = _ROTATION.search(metadata)
    known = [word for word in colours if word not in ("tv", "pc") and not _not_colour(word)]
    matrix, primaries, transfer = _colour_names(known[0]) if known else (None, None, None)
    return VideoStream(
        index=index,
        codec=_codec(text),
        pix_fmt=pix_fmt,
        width=int(picture["width"]) if picture else 0,
        height=int(picture["height"]) if picture else 0,
        color_range=next((word for word in colours if word in ("tv", "pc")), None),
        matrix=matrix,
        primaries=primaries,
        transfer=transfer,
        field_order=next((_FIELD_ORDERS[word] for word in colours if word in _FIELD_ORDERS), None),
        is_attached_picture="attached pic" in dispositions,
        alpha=bool(_ALPHA_FORMAT.match(pix_fmt) or _ALPHA_TAG.search(metadata)),
        rotation=round(float(rotation[1])) % 360 if rotation else 0,
    )


def _not_colour(word: str) -> bool:
    return not word or word in _FIELD_ORDERS or word.endswith(" bpc") or " " in word


def _colour_names(word: str) -> tuple[str | None, str | None, str | None]:
    """ffmpeg says one name where all three are the same."""
    names = word.split("/") if "/" in word else [word] * 3
    matrix, primaries, transfer = (None if name in ("unknown", "reserved") else name for name in (*names, *names)[:3])
    return matrix, primaries, transfer


def _audio(index: int, text: str, dispositions: frozenset[str], language: str | None) -> AudioStream:
    sound = _SOUND.search(text)
    layout = sound["layout"] if sound else ""
    return AudioStream(
        index=index,
        codec=_codec(text),
        sample_rate_hz=int(sound["rate"]) if sound else 0,
        layout=layout,
        channels=_channels(layout),
        is_default="default" in dispositions,
        language=language,
    )


def _channels(layout: str) -> int:
    if layout in _CHANNELS:
        return _CHANNELS[layout]
    if match := re.match(r"(\d+) channels?", layout):
        return int(match[1])
    if match := re.match(r"ambisonic (\d+)(?:\+(.+))?$", layout):
        return (int(match[1]) + 1) ** 2 + (_channels(match[2]) if match[2] else 0)
    if match := re.match(r"(?:quad|\d+(?:\.\d+)+)(?:\(|$)", layout):
        return 4 if layout.startswith("quad") else sum(int(part) for part in re.findall(r"\d+", match[0]))
    return 0


def _codec(text: str) -> str:
    match = _CODEC.match(text)
    return match[0] if match else ""
