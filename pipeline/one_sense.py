"""Media of which one sense is asked: where the other one is missing or broken, black or silence takes its place.

So a sound file, or a silent film, goes the way of any film.
"""

import contextlib
import os

from mbt.pipeline import decode, ffmpeg, passes
from mbt.pipeline.decode import Decoded
from mbt.pipeline.reasons import UnusableError

PICTURE, SOUND = "picture", "sound"
_LIMIT_S = decode.TIME_LIMIT_S
_NAME = "one_sense.mkv"
# What is asked for, what stands in for the other sense, and the codecs that are tried: Matroska does not take all.
_BLACK = ("color=c=black:s=16x16:r=25", ("-map", "1:v", "-map", "0:a", "-c:v", "rawvideo", "-pix_fmt", "yuv420p"))
_SILENCE = ("anullsrc=r=16000:cl=mono", ("-map", "0:V", "-map", "1:a", "-c:a", "pcm_s16le"))
_OTHER = {SOUND: _BLACK, PICTURE: _SILENCE}
_CODECS = {SOUND: ("-c:a", ("copy", "pcm_f32le")), PICTURE: ("-c:v", ("copy",))}
# What is wrong with the whole file, and not with one of its streams.
_OF_THE_FILE = ("missing", "not_media", "start_past_end", "format_not_allowed", "encrypted")


def decoded(path: str, start_us: int, end_us: int, *, sense: str, folder: str, program: str) -> Decoded:
    """Decodes [start, end) of a media file, of which only one sense need be there; see `decode.decode`.

    Args:
      path: of the file.
      start_us: in microseconds.
      end_us: likewise.
      sense: PICTURE or SOUND; the other one may be black, or silent.
      folder: where a file of the same length may be made.
      program: the ffmpeg to run.

    Raises:
      UnusableError: that sense is not there.
      WorkerTroubleError: this machine failed, not the media.
    """

    def of(path: str) -> Decoded:
        return decode.decode(path, start_us, end_us, program=program)

    try:
        return of(path)
    except UnusableError as error:
        if error.reason in _OF_THE_FILE:
            raise
        filled = os.path.join(folder, _NAME)
        for codec in _CODECS[sense][1]:
            words = _words(sense, (path, filled), end_us, codec)
            if _succeeds(program, words):
                with contextlib.suppress(UnusableError):
                    return of(filled)
        raise error


def _succeeds(program: str, words: list[str]) -> bool:
    """Whether a film can be made; where it cannot, what was wrong with the file stands."""
    try:
        return not ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=_LIMIT_S).returncode
    except ffmpeg.WorkerTroubleError:
        return False


def _words(sense: str, paths: tuple[str, str], end_us: int, codec: str) -> list[str]:
    source, streams = _OTHER[sense]
    words = ["-hide_banner", "-nostdin", "-nostats", "-v", "level+error", "-y"]
    words += ["-protocol_whitelist", passes.PROTOCOLS, "-format_whitelist", ",".join(passes.DEMUXERS)]
    words += ["-max_error_rate", str(passes.MAX_ERROR_RATE)]  # as decoding has it
    words += ["-i", passes.source(paths[0]), "-f", "lavfi", "-i", source, *streams, _CODECS[sense][0], codec]
    return [*words, "-t", passes.seconds(end_us), "-shortest", "-f", "matroska", passes.source(paths[1])]
