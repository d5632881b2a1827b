"""What a pass over a file must do, by what the first one's log says of it."""

import dataclasses

from mbt.pipeline import pictures, sound, streams
from mbt.pipeline.passes import Wanted
from mbt.pipeline.reasons import UnusableError
from mbt.pipeline.streams import Streams


def choose(found: Streams | None, log: str, plain: Wanted) -> tuple[Wanted, frozenset[str]] | None:
    """What to ask of the next pass, and what that will have done to the clip; `plain` where the first one was enough.

    None where the file could not be opened.

    Raises:
      UnusableError: there is no film in it.
    """
    if found is None or (used := streams.mapped(log)) == {}:
        return None
    video = next((stream for stream in found.video if stream.index == used.get(0)), None)
    if video is None:
        return plain, frozenset()
    if video.is_attached_picture:
        raise UnusableError("no_video", "the only picture of the media is cover art")
    seen = pictures.filters(video)
    heard, treatments = sound.outputs(found, used.get(1))
    return dataclasses.replace(plain, pictures=seen, sounds=heard), frozenset((*seen.treatments, *treatments))
