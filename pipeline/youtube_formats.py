"""Which of the formats that YouTube has of a video are downloaded."""

from collections.abc import Sequence

SHORTER_SIDE = 256  # what the records hold
ENOUGH = 360  # more only costs
GOOD_SOUND_KBPS = 128  # records hold 16 kHz mono
PROTOCOLS = ("https", "http", "m3u8_native", "http_dash_segments")  # all read by yt-dlp itself


def choose(formats: Sequence[dict]) -> list[dict]:
    """The formats to download: one file with picture and sound, or one of each; [] where there are no such.

    Enough for records with a shorter side of 256 pixels: the smallest from 256 pixels on, one file before two (fewer
    requests) among all up to 360.
    """
    usable = [form for form in formats if form.get("protocol") in PROTOCOLS and not form.get("has_drm")]
    pictures = [form for form in usable if form.get("vcodec") != "none" and form.get("url")]
    sounds = [form for form in usable if form.get("vcodec") == "none" and form.get("acodec") not in (None, "none")]
    if not sounds:
        pictures = [form for form in pictures if form.get("acodec") != "none"]
    if not pictures:
        return []
    picture = min(pictures, key=_cost)
    return [picture] if picture.get("acodec") != "none" else [picture, max(sounds, key=_worth)]


def _cost(picture: dict) -> tuple:
    sides = [side for side in (picture.get("width"), picture.get("height")) if side]
    side = min(sides, default=0)
    size = 0 if SHORTER_SIDE <= side <= ENOUGH else side if side > ENOUGH else 10**6 - side
    two_files = picture.get("acodec") == "none"
    language = picture.get("language_preference")
    return (
        size,
        -(language if language is not None else -1),
        two_files,
        PROTOCOLS.index(picture["protocol"]),
        not str(picture.get("vcodec") or "").startswith("avc1"),  # the cheapest to decode
        picture.get("tbr") or 0,
    )


def _worth(sound: dict) -> tuple:
    language = sound.get("language_preference")
    rate = sound.get("tbr") or sound.get("abr") or 0
    return (
        language if language is not None else -1,
        -PROTOCOLS.index(sound["protocol"]),
        str(sound.get("acodec") or "").startswith("mp4a"),
        -abs(rate - GOOD_SOUND_KBPS),
    )
