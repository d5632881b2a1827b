"""What a pass over a file must do, by what the first one's log says of it."""

import dataclasses

from mbt.pipeline import pictures, sound, streams
from mbt.pipeline.passes import Pass, Wanted
from mbt.pipeline.reasons import UnusableError, failure


def choose(done: Pass, plain: Wanted) -> tuple[Wanted, frozenset[str]]:
    """What to ask of the next pass, and what that will have done to the clip; `plain` where the first one was enough.

    Raises:
      UnusableError: the file could not be opened, or there is no film in it.
    """
    if done.streams is None or (used := streams.mapped(done.log)) == {}:
        raise failure(done.returncode, done.log)
    video = next((stream for stream in done.streams.video if stream.index == used.get(0)), None)
    if video is None:
        return plain, frozenset()
    if video.is_attached_picture:
        raise UnusableError("no_video", "the only picture of the media is cover art")
    seen = pictures.filters(video)
    heard, treatments = sound.outputs(done.streams, used.get(1))
    return dataclasses.replace(plain, pictures=seen, sounds=heard), frozenset((*seen.treatments, *treatments))
