"""What a pass over a file must do, by what the first one's log says of it."""

import dataclasses
import re
from fractions import Fraction

from mbt.pipeline import color, passes, pictures, sound, streams
from mbt.pipeline.passes import Change, Pass, Wanted
from mbt.pipeline.pictures import Pictures
from mbt.pipeline.reasons import UnusableError
from mbt.pipeline.shown import Shown
from mbt.pipeline.streams import Streams, VideoStream, has_no_index

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


def as_at_start(done: Pass, wanted: Wanted, pixel_aspect: Fraction | None) -> Wanted | None:
    """What to ask of another pass, where a stream changes, so that frames suit the span's own first picture.

    None where this pass was right, or no other can be.

    Args:
      done: a pass.
      wanted: what was asked of it.
      pixel_aspect: that of the first source picture, where it is not as ffmpeg says.
    """
    video = _video(done.streams, done.log) if done.streams else None
    if video is None or wanted.pictures is None:
        return None
    has_sizes = any(change.size != (video.width, video.height) for change in done.changes)
    if done.returncode:
        is_cure = has_sizes and wanted.pictures.each and wanted.even is None
        return dataclasses.replace(wanted, even=_size_at_start(done, video)) if is_cure else None
    if (first := done.first_picture) is None or not done.frames:
        return None
    seen = wanted.pictures
    if has_no_index(done.streams) and seen == pictures.filters(video):
        seen = _seen(video, first, done.change_at_start)
    if has_sizes and pictures.is_turned(video) and not seen.is_turned_last:
        seen = pictures.turned_last(seen, video.rotation)
    if seen != wanted.pictures:
        return dataclasses.replace(wanted, pictures=seen)
    return None if wanted.thumbnails else _sized(done, wanted, video, pixel_aspect)


def _seen(video: VideoStream, first: Shown, change: Change | None) -> Pictures:
    """What a stream would need if it had begun with this picture."""
    told, names = color.readable(video), ("width", "height", "color_range", "matrix", "primaries", "transfer")
    changes = {name: getattr(first, name) for name in names if getattr(first, name) != getattr(told, name)}
    if first.field_order != "progressive":
        changes["field_order"] = first.field_order
    if change is not None and change.matrix == "unknown" and told.matrix is not None:
        # Filters go on with the matrix with which they began.
        untold = dataclasses.replace(video, **changes | {"matrix": None})
        seen = pictures.filters(untold)
        return dataclasses.replace(seen, each=",".join(filter(None, (color.tags(untold), seen.each))))
    return pictures.filters(dataclasses.replace(video, **changes))


def _size_at_start(done: Pass, video: VideoStream) -> tuple[int, int]:
    return done.change_at_start.size if done.change_at_start else (video.width, video.height)


def frame_size(done: Pass, wanted: Wanted, pixel_aspect: Fraction | None) -> tuple[int, int] | None:
    """(width, height) of frames, before `turned_last`, by the first source picture; None where there is none.

    Args: as of `as_at_start`.
    """
    video = _video(done.streams, done.log) if done.streams else None
    if video is None or (first := done.first_picture) is None:
        return None
    if wanted.even is None:
        return pictures.frame_size(first.width, first.height, float(pixel_aspect or first.pixel_aspect))
    width, height = _size_at_start(done, video)
    told = first.pixel_aspect * Fraction(first.width * height, first.height * width)
    return pictures.frame_size(width, height, float(pixel_aspect or told))


def _sized(done: Pass, wanted: Wanted, video: VideoStream, pixel_aspect: Fraction | None) -> Wanted | None:
    """The same with the frame size that the first picture's shape asks for, where the pass began with another."""
    size = frame_size(done, wanted, pixel_aspect)
    if size is None or wanted.pictures is None:
        return None
    even = _size_at_start(done, video) if wanted.even is not None else None
    made = passes.jpeg_size(done.frames)
    is_upright = not wanted.pictures.is_turned_last or video.rotation == 180
    if (size if is_upright else size[::-1]) == made[::-1] and even == wanted.even:
        return None
    return dataclasses.replace(wanted, pictures=pictures.sized(wanted.pictures, *size), even=even)


def _video(found: Streams, log: str) -> VideoStream | None:
    index = streams.mapped(log).get(0)
    return next((stream for stream in found.video if stream.index == index), None)
