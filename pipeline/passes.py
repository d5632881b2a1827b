"""One pass of ffmpeg over a span: pictures and sound, each with its time on the clock of the span.

Two graphs, not one: a change of the sound's form makes ffmpeg set up that graph anew, which the pictures must not
notice. The pictures' graph is never set up anew (a change of size or range reaches the scaler, which takes it), so that
its zero stays where it was; the sound's may be, and has no zero: each piece comes with its time. ffmpeg is not asked to
drop what is before the start: the picture that is on screen then may be old.
"""

import dataclasses
import functools
import re
import struct
from collections.abc import Callable

import ffmpeg
import numpy as np

from mbt.pipeline import ffmpeg as process
from mbt.pipeline import pieces, shown
from mbt.pipeline.picture_rate import PictureRate
from mbt.pipeline.pictures import PLAIN, SCALER, Pictures
from mbt.pipeline.reasons import UnusableError
from mbt.pipeline.streams import Streams, parse
from mbt.schemas.clip import FRAME_RATE_HZ, MICROSECONDS, SAMPLE_RATE_HZ, num_frames

JPEG_QSCALE = 3  # docs/jpeg_quality.md
MAX_PIXELS = 4096 * 4096
MAX_CLIP_BYTES = 512 << 20
MAX_ERROR_RATE = 0.1  # of the packets of a stream

# Demuxers of single files. Playlists (hls, dash, concat) and image sequences are not among them.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *("avi", "asf", "flv", "mpegts", "mpeg", "ogg", "gif", "mxf", "rm", "dv", "nut", "ivf"),
    *("wav", "w64", "mp3", "aac", "flac", "amr", "amrnb", "amrwb", "ac3", "caf"),
    *("h264", "hevc", "m4v", "mpegvideo", "obu", "av1"),
)
PROTOCOLS = "file,pipe"

# A source picture is shown from halfway between it and the one before, but at most half a frame of ours before its
# time: frame k is the source picture nearest to k/25 s (of two equally near ones, the later), and one that
# stays long stays until the next begins. The clock of this choice is in microseconds, whatever the container's ticks.
_SWITCH_US = MICROSECONDS // FRAME_RATE_HZ // 2
# Starts on half a frame are common (every odd half second at 25 fps): what counts as equally near must not hang on the
# microsecond to which a cut's start is known.
_TIE_US = 500
# Where `arguments` puts a span's own.
_START_US, _START, _END, _FRAMES, _LAST_FRAME = "<start_us>", "<start>", "<end>", "<frames>", "<last_frame>"
_NEAREST = f"settb=1/{MICROSECONDS},setpts=PTS-{_START_US}-{_TIE_US}-min((PTS-PREV_INPTS)/2\\,{_SWITCH_US})"
_AT_25 = f"fps={FRAME_RATE_HZ}:start_time=0:round=up,trim=end_frame={_LAST_FRAME}"
_NO_MORE = f"select=lt(n\\,{_FRAMES})"
_EVEN = f"scale=w={{}}:h={{}}:interl=-1:flags={SCALER}"
_RESAMPLED = f"atrim=start={_START}:end={_END},aresample={SAMPLE_RATE_HZ}"  # continuous: `pieces` knows of holes

THUMBNAIL = 8  # pixels a side: the cheapest picture that proves that there is one
_THUMBNAILS = f"scale={THUMBNAIL}:{THUMBNAIL}:flags=neighbor,format=gray"
_PICTURE_STATS = "{{ptsi}} {{tbi}} {{ni}}"
_SOUND_STATS = "{{pts}} {{samp}} {{ni}}"
_CHANGED = re.compile(
    r"filter context - w: .*, incoming frame"
    r" - w: (\d+) h: (\d+) .*?(?:csp: (\S+) .*)?pts_time: (-?\d+(?:\.\d+)?)$",
    re.MULTILINE,
)
_NO_NUMBER = (1 << 64) - 1  # of a frame, where ffmpeg knows none
NO_TIME = -1 << 63  # the same of a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    """What is done to the sound of a stream.

    Attributes:
      index: of the stream in the file; None for ffmpeg's choice.
      first: filters before any other; "" for none.
      channels: of the result; None for as many as there are, not mixed.
    """

    index: int | None = None
    first: str = ""
    channels: int | None = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a pass is asked for.

    Attributes:
      pictures: how pictures become frames; None for no pictures.
      sounds: an output each.
      thumbnails: tiny grey pictures in the place of JPEGs.
      even: (width, height) to which every source picture is brought before anything else; None for their own.
      linger_us: by so much both streams are read on past the end of the span, and what they give there is dropped.
    """

    pictures: Pictures | None = PLAIN
    sounds: tuple[Sound, ...] = (Sound(),)
    thumbnails: bool = False
    even: tuple[int, int] | None = None
    linger_us: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a file.

    Attributes:
      path: of the file.
      start_us: where it begins, after the file's earliest timestamp.
      duration_us: its length.
    """

    path: str
    start_us: int
    duration_us: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """The sound of a pass.

    Attributes:
      pcm: int16, (samples,) or (samples, channels), 16 kHz, from the start of the span; silence where nothing was.
      first_us: time of the first sample; None where there is none.
      follows: whether something was decoded before that sample, so that what is missing before it is nowhere else.
    """

    pcm: np.ndarray
    first_us: int | None
    follows: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A source picture of another size, pixel format, range or matrix than those before, as the decoder gave it.

    Attributes:
      size: (width, height).
      matrix: of its colours, by ffmpeg's name; "unknown" where it does not say.
      time_us: on the file's clock.
    """

    size: tuple[int, int]
    matrix: str
    time_us: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """What a pass gave.

    Attributes:
      returncode: ffmpeg's.
      log: ffmpeg's, without the file's name.
      streams: what ffmpeg says of the input; None where it could not open it.
      frames: the bytes of all frames.
      first_picture_us: time of the source picture of frame 0; None where there is none, or it has no time of its own.
      follows: whether a picture was decoded before that.
      sounds: in the order in which they were wanted.
      start_us: of the span.
    """

    returncode: int
    log: str
    streams: Streams | None
    start_us: int
    frames: bytearray = dataclasses.field(default_factory=bytearray)
    first_picture_us: int | None = None
    follows: bool = False
    sounds: tuple[Heard, ...] = ()

    @property
    def change_at_start(self) -> Change | None:
        """The last change of the source picture up to that of frame 0, and after the first that was read."""
        until_us = self.start_us + max(0, self.first_picture_us or 0)
        return next((change for change in reversed(self.changes) if change.time_us <= until_us), None)

    @property
    def changes(self) -> list[Change]:
        """Of the source picture, in the order of time."""
        return [
            Change(size=(int(width), int(height)), matrix=matrix, time_us=float(time_s) * MICROSECONDS)
            for width, height, matrix, time_s in _CHANGED.findall(self.log)
        ]

    @property
    def first_picture(self) -> shown.Shown | None:
        """The source picture of frame 0; None where there is none."""
        return shown.parse(self.log)

    @property
    def reaches_start(self) -> bool:
        """Whether nothing that comes before what was decoded could belong to the span."""
        first_us = self.first_picture_us
        pictures_do = self.follows or (first_us is not None and first_us <= 0)
        sounds_do = all(heard.first_us is not None and (heard.first_us <= 0 or heard.follows) for heard in self.sounds)
        return pictures_do and sounds_do


def run(
    span: Span,
    seek_us: int,
    wanted: Wanted,
    program: str,
    time_limit_s: float,
    *,
    stop: Callable[[str], bool] | None = None,
) -> Pass:
    """Decodes a span, beginning to read at the key frame before `seek_us`.

    Args:
      span: of a file.
      seek_us: where to begin to read.
      wanted: of it.
      program: the ffmpeg to run.
      time_limit_s: see `ffmpeg.run`.
      stop: asked about the beginning of the log: whether it shows that this pass is in vain, which then has nothing.

    Raises:
      UnusableError: it is larger, or has more pictures, than a clip may.
      WorkerTroubleError: this machine failed, not the media.
    """
    count = (wanted.pictures is not None) * 2 + 2 * len(wanted.sounds)
    try:
        result = process.run(
            program,
            arguments(span, seek_us, wanted),
            outputs=count,
            byte_limit=MAX_CLIP_BYTES,
            time_limit_s=time_limit_s,
            stop=stop,
            heed={1: PictureRate} if wanted.pictures is not None else process.NOBODY,
        )
    except process.StoppedError as stopped:
        log = stopped.log.replace(span.path, "FILE")
        return Pass(returncode=0, log=log, streams=parse(log), start_us=span.start_us)
    except OverflowError as error:
        raise UnusableError("too_many_bytes", f"over {MAX_CLIP_BYTES >> 20} MiB when decoded") from error
    outputs = list(result.outputs)
    frames, picture_stats = (outputs.pop(0), outputs.pop(0)) if wanted.pictures is not None else (bytearray(), b"")
    first_picture_us, follows = _first_picture(bytes(picture_stats), span)
    log = result.log.replace(span.path, "FILE")  # a file's name must not pass for a complaint
    return Pass(
        returncode=result.returncode,
        log=log,
        streams=parse(log),
        start_us=span.start_us,
        frames=frames,
        first_picture_us=first_picture_us,
        follows=follows,
        sounds=tuple(_heard(pcm, bytes(stats), span) for pcm, stats in zip(outputs[::2], outputs[1::2], strict=True)),
    )


def arguments(span: Span, seek_us: int, wanted: Wanted) -> list[str]:
    """ffmpeg's command line for a pass. `{0}` receives frames and `{1}` their times, then come the sounds in pairs."""
    head, tail = _words(wanted)
    end_us = span.start_us + span.duration_us
    own = {
        _START_US: str(span.start_us),
        _START: seconds(span.start_us),
        _END: seconds(end_us + wanted.linger_us),
        _FRAMES: str(num_frames(span.duration_us)),
        _LAST_FRAME: str(num_frames(span.duration_us + wanted.linger_us)),
    }
    return [*head, *place(seek_us), "-i", source(span.path), *(_filled(word, own) for word in tail)]


def _filled(word: str, own: dict[str, str]) -> str:
    for mark, text in own.items() if "<" in word else ():
        word = word.replace(mark, text)
    return word


def place(seek_us: int) -> list[str]:
    """The options before an input that is read from there on.

    The clock is the file's, its zero the earliest timestamp. What is read from the beginning may be set right where the
    clock starts again; after a seek that would take the seek itself for a fault.
    """
    return ["-copyts", "-start_at_zero", "-ss", seconds(seek_us)] if seek_us else []


def source(path: str) -> str:
    """A local file as an input; "file:" keeps a name with a colon or a dash a name, braces are doubled for `run`."""
    return "file:" + path.replace("{", "{{").replace("}", "}}")


def opening() -> dict[str, object]:
    """The options by which every pass opens a file, so that all say the same of it."""
    return {
        "threads": 1,
        "max_pixels": MAX_PIXELS,
        "max_error_rate": MAX_ERROR_RATE,
        "protocol_whitelist": PROTOCOLS,
        "format_whitelist": ",".join(DEMUXERS),
    }


@functools.lru_cache(maxsize=64)
def _words(wanted: Wanted) -> tuple[list[str], list[str]]:
    """The arguments before and after the input's own: building them takes as long as a hundred frames."""
    options = opening() | {"noaccurate_seek": None, "reinit_filter:v": 0}
    if wanted.pictures is not None and wanted.pictures.decoder is not None:
        options["vcodec"] = wanted.pictures.decoder
    if wanted.pictures is not None and wanted.pictures.is_turned_last:
        options["noautorotate"] = None
    media = ffmpeg.input("MEDIA", **options)
    outputs = []
    if wanted.pictures is not None:
        outputs.append(_picture_output(media, wanted))
    outputs += [_sound_output(media, sound, len(outputs) + n) for n, sound in enumerate(wanted.sounds)]
    if wanted.pictures is None:
        outputs.append(_unseen_output(media))
    words = (ffmpeg.merge_outputs(*outputs) if len(outputs) > 1 else outputs[0]).get_args()
    cut = words.index("-i")
    quiet = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-cpuflags", process.CPU_FLAGS]
    return [*quiet, "-filter_threads", "1", *words[:cut]], words[cut + 2 :]


def _picture_output(media, wanted: Wanted):
    assert wanted.pictures is not None
    chosen = shown.TELLING.format(chosen=_THUMBNAILS if wanted.thumbnails else wanted.pictures.chosen)
    even = _EVEN.format(*wanted.even) if wanted.even else ""
    last = _NO_MORE if wanted.linger_us else ""
    chain = ",".join(filter(None, (even, wanted.pictures.each, _NEAREST, _AT_25, last, chosen)))
    form = {"f": "rawvideo"} if wanted.thumbnails else {"f": "image2pipe", "vcodec": "mjpeg", "q:v": JPEG_QSCALE}
    stats = {"stats_enc_pre:v": "{1}", "stats_enc_pre_fmt:v": _PICTURE_STATS}
    which = {"an": None, "sn": None, "dn": None}
    exact = {"fps_mode": "passthrough", "flags:v": "+bitexact", "threads": 1, "map_metadata": -1, "fflags": "+bitexact"}
    return media.output("{0}", vf=chain, **form, **stats, **which, **exact)


def _sound_output(media, sound: Sound, number: int):
    mixed = ":channel_layouts=mono" if sound.channels == 1 else ""
    chain = ",".join(filter(None, (sound.first, _RESAMPLED, f"aformat=sample_fmts=s16{mixed}")))
    stats = {"stats_enc_pre:a": f"{{{2 * number + 1}}}", "stats_enc_pre_fmt:a": _SOUND_STATS}
    which = {"map": f"0:{sound.index}"} if sound.index is not None else {"vn": None, "sn": None, "dn": None}
    exact = {"flags:a": "+bitexact", "map_metadata": -1}
    return media.output(f"{{{2 * number}}}", af=chain, f="s16le", acodec="pcm_s16le", **stats, **which, **exact)


def _unseen_output(media):
    """The picture, copied to nowhere: where a file's clock begins, and begins again, ffmpeg sees by what it reads."""
    return media.output("-", vcodec="copy", f="null", an=None, sn=None, dn=None, t=_END)


def _first_picture(stats: bytes, span: Span) -> tuple[int | None, bool]:
    line = stats.partition(b"\n")[0].split()
    if len(line) != 3:
        return None, False
    numerator, _, denominator = line[1].partition(b"/")
    if int(line[0]) == NO_TIME or not int(denominator):
        return None, 0 < int(line[2]) < _NO_NUMBER
    return int(line[0]) * MICROSECONDS * int(numerator) // int(denominator) - span.start_us, int(line[2]) > 0


def _heard(pcm: bytes | bytearray, stats: bytes, span: Span) -> Heard:
    words = [int(word) for word in stats.split()]
    times = np.array(words[::3], np.int64) - (span.start_us * SAMPLE_RATE_HZ + MICROSECONDS // 2) // MICROSECONDS
    lengths = np.array(words[1::3], np.int64)
    most = span.duration_us * SAMPLE_RATE_HZ // MICROSECONDS
    inside = times < most  # what a pass that lingers gives after the end is none of the clip's
    if not lengths[inside].sum():
        return Heard(pcm=np.zeros(0, np.int16), first_us=None, follows=False)
    total = int(lengths.sum())
    channels = max(1, len(pcm) // 2 // total)
    samples = np.frombuffer(pcm, "<i2", total * channels)
    samples = samples.reshape(total, channels) if channels > 1 else samples
    if not inside.all():
        samples, times, lengths = samples[np.repeat(inside, lengths)], times[inside], lengths[inside]
    return Heard(
        pcm=pieces.place(samples, times, lengths, most),
        first_us=int(times[0]) * MICROSECONDS // SAMPLE_RATE_HZ,
        follows=0 < words[2] < _NO_NUMBER,
    )


def jpeg_size(jpeg: bytes | bytearray) -> tuple[int, int]:
    """(height, width) from the baseline frame header (ITU T.81, B.2.2)."""
    at = 2
    while jpeg[at + 1] != 0xC0:
        at += 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    return struct.unpack_from(">HH", jpeg, at + 5)


def seconds(microseconds: int) -> str:
    """A time in ffmpeg's words."""
    return f"{microseconds // MICROSECONDS}.{microseconds % MICROSECONDS:06d}"
