"""What came of a span, against the truth."""

import dataclasses
import enum
import io

import numpy as np
from PIL import Image

from films import marks
from films.truth import GRID_S, Truth
from films.whole import SAMPLE_RATE_HZ
from mbt.pipeline.decode import Decoded, UnusableError

FRAME_RATE_HZ = 25
NEAR_S = 0.03  # a picture is right that is on screen within so much of its time
RIGHT_PICTURES = 0.94
RIGHT_SOUND = 0.88
LENGTH_S = 2 / FRAME_RATE_HZ
SLACK_S = 0.1  # a span that ends so much after the media is honoured
GAP_S, GAP_SHARE = 0.5, 0.1  # what may be missing of a stream
MICROSECONDS = 1_000_000


class Kind(enum.StrEnum):
    """How a span ended."""

    RIGHT = "right"
    WRONG = "silently wrong"
    LOST = "lost without reason"
    LACKING = "lost for good reason"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one span; `detail` is a sentence for a person."""

    kind: Kind
    detail: str = ""


def judge(truth: Truth, span_us: tuple[int, int], came: Decoded | UnusableError) -> Verdict:
    """Compares what was decoded of a span, or why nothing was, with what is there."""
    start_s, end_s = (time_us / MICROSECONDS for time_us in span_us)
    if isinstance(came, UnusableError):
        return _judged_loss(truth, start_s, end_s, came)
    said = [_length(truth, start_s, end_s, came), _pictures(truth, start_s, came), _sound(truth, start_s, came)]
    is_right = all(right for right, _ in said)
    return Verdict(kind=Kind.RIGHT if is_right else Kind.WRONG, detail=", ".join(detail for _, detail in said))


def _judged_loss(truth: Truth, start_s: float, end_s: float, error: UnusableError) -> Verdict:
    there_s = min(end_s, truth.end_s) - start_s
    gap_s = max(GAP_S, GAP_SHARE * there_s) - LENGTH_S
    there = {"pictures": truth.pictures_s, "sound": truth.sound_within(start_s, start_s + there_s)}
    lacking = [
        f"{what} {f'{found[0]:.2f} to {found[1]:.2f}' if found else 'nowhere'}"
        for what, found in there.items()
        if not found or found[0] - start_s > gap_s or start_s + there_s - found[1] > gap_s
    ]
    if lacking or there_s < LENGTH_S:
        return Verdict(kind=Kind.LACKING, detail=f"{error}; there are {', '.join(lacking)}")
    shown = truth.numbers[(truth.times >= start_s) & (truth.times < end_s)]
    damaged = np.count_nonzero(shown == marks.UNREADABLE)
    if damaged > (1 - RIGHT_PICTURES) * len(shown):
        return Verdict(kind=Kind.LACKING, detail=f"{error}; {damaged} of {len(shown)} pictures are damaged")
    return Verdict(kind=Kind.LOST, detail=str(error))


def _length(truth: Truth, start_s: float, end_s: float, clip: Decoded) -> tuple[bool, str]:
    there_s = min(end_s, truth.end_s) - start_s
    # A record may end with the first of the streams that do.
    heard = truth.sound_within(start_s, end_s)
    least_s = min(end_s, truth.pictures_s[1], heard[1] if heard else end_s) - start_s
    most_s = min(end_s, truth.end_s + SLACK_S) - start_s
    frames_s = len(clip.frames) / FRAME_RATE_HZ
    right = least_s - LENGTH_S <= min(clip.duration_us / MICROSECONDS, frames_s) and frames_s <= most_s + LENGTH_S
    return right, f"length {len(clip.frames)} for {round(there_s * FRAME_RATE_HZ)}"


def _pictures(truth: Truth, start_s: float, clip: Decoded) -> tuple[bool, str]:
    seen = [picture_number(jpeg) for jpeg in clip.frames]
    times_s = start_s + np.arange(len(seen)) / FRAME_RATE_HZ
    right = [
        number in truth.on_screen(time_s - NEAR_S, time_s + NEAR_S)
        for number, time_s in zip(seen, times_s, strict=True)
    ]
    # When the picture that was taken is on screen, against when it should be.
    off_s = [_nearest(truth, number, time_s) for number, time_s in zip(seen, times_s, strict=True)]
    known = [off for off in off_s if off is not None]
    median = f" (median {np.median(known):+.3f} s)" if known and not all(right) else ""
    return np.mean(right) >= RIGHT_PICTURES, f"frames {sum(right)}/{len(right)}{median}"


def _nearest(truth: Truth, number: int, time_s: float) -> float | None:
    times = truth.times[truth.numbers == number]
    return min(times - time_s, key=abs) if len(times) else None


def _sound(truth: Truth, start_s: float, clip: Decoded) -> tuple[bool, str]:
    """At the moments whose neighbours sound alike, of every tone about two."""
    tones = truth.tones
    steady = np.zeros(len(tones), bool)
    steady[1:-1] = (tones[1:-1] == tones[:-2]) & (tones[1:-1] == tones[2:]) & (tones[1:-1] != marks.UNCLEAR)
    at = np.flatnonzero(steady)
    at_s = at * GRID_S - start_s
    inside = (at_s >= marks.TONE_S / 2) & (at_s < clip.duration_us / MICROSECONDS - marks.TONE_S / 2)
    if not inside.any():
        return True, "no sound to compare"
    heard = marks.heard(clip.pcm, SAMPLE_RATE_HZ, at_s[inside])
    right = heard == tones[at[inside]]
    return np.mean(right) >= RIGHT_SOUND, f"sound {right.mean():.0%}"


def picture_number(jpeg: bytes) -> int:
    """What a record's picture says."""
    return marks.number(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")))
