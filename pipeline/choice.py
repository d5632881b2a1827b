"""What a pass over a file must do, by what the first one's log says of it."""

import dataclasses
import re

from mbt.pipeline import pictures, sound, streams
from mbt.pipeline.passes import Pass, Wanted
from mbt.pipeline.reasons import UnusableError
from mbt.pipeline.streams import Streams, VideoStream

_REFUSED = re.compile(r"^\[swscaler @ [^\]]*\] \[error\] Unsupported input ", re.MULTILINE)


def choose(found: Streams | None, log: str, plain: Wanted) -> tuple[Wanted, frozenset[str]] | None:
    """What to ask of the next pass, and what that will have done to the clip; `plain` where the first one was enough.

    None where the file could not be opened.

    Raises:
      UnusableError: there is no film in it.
    """
    if found is None or (used := streams.mapped(log)) == {}:
        return None
    video = _video(found, log)
    if video is None:
        return plain, frozenset()
    if video.is_attached_picture:
        raise UnusableError("no_video", "the only picture of the media is cover art")
    seen = pictures.filters(video)
    heard, treatments = sound.outputs(found, used.get(1))
    return dataclasses.replace(plain, pictures=seen, sounds=heard), frozenset((*seen.treatments, *treatments))


def steadied(done: Pass, wanted: Wanted) -> tuple[Wanted, frozenset[str]] | None:
    """The same for a stream that changes to colours that the scaler refuses: it is read throughout as it began.

    None where that is not why the pass failed.
    """
    video = _video(done.streams, done.log) if done.streams else None
    if not done.returncode or video is None or not _REFUSED.search(done.log):
        return None
    seen = pictures.filters(video, steady=True)
    return dataclasses.replace(wanted, pictures=seen), frozenset(seen.treatments)


def _video(found: Streams, log: str) -> VideoStream | None:
    index = streams.mapped(log).get(0)
    return next((stream for stream in found.video if stream.index == index), None)
