"""Whether JPEGs decode, many at a time."""

import functools
import re
import tempfile
from collections.abc import Sequence

from mbt.pipeline import attempts, ffmpeg, leftovers
from mbt.pipeline.decode import UnusableError
from mbt.pipeline.errors import WorkerTroubleError

_TIME_LIMIT_S = 300.0
_BYTE_LIMIT = 1 << 24  # of ffmpeg's account of its progress
_FRAMES = re.compile(rb"^frame=(\d+)$", re.MULTILINE)


def undecodable(frames: Sequence[bytes], program: str) -> list[int]:
    """Positions of the frames that do not decode; one ffmpeg process where all do.

    A JPEG has no checksum: a changed byte often gives another picture, and only the CRCs of the records tell.

    Raises:
      WorkerTroubleError: this machine failed, not the frames.
    """
    if not frames or _decode(frames, program):
        return []
    return [place for place, frame in enumerate(frames) if not _decode([frame], program)]


def _decode(frames: Sequence[bytes], program: str) -> bool:
    with tempfile.NamedTemporaryFile(prefix=leftovers.prefix("jpegs"), suffix=".mjpeg") as file:
        file.writelines(frames)
        file.flush()
        words = _arguments(file.name)
        run = functools.partial(
            ffmpeg.run, program, words, outputs=1, byte_limit=_BYTE_LIMIT, time_limit_s=_TIME_LIMIT_S
        )
        try:
            result = attempts.tried(run)
        except UnusableError:  # the decoder crashes on them
            return False
        except attempts.PassingError as error:
            raise WorkerTroubleError(f"frames of a record: {error}") from error
    counts = _FRAMES.findall(bytes(result.outputs[0]))
    return result.returncode == 0 and not result.log.strip() and bool(counts) and int(counts[-1]) == len(frames)


def _arguments(path: str) -> list[str]:
    strict = ["-hide_banner", "-nostdin", "-nostats", "-v", "error", "-xerror", "-err_detect", "explode"]
    source = ["-threads", "1", "-f", "mjpeg", "-i", "file:" + path.replace("{", "{{").replace("}", "}}")]
    return [*strict, "-progress", "{0}", *source, "-fps_mode", "passthrough", "-f", "null", "-"]
