"""The canary: a second of built-in video and sound whose record shows whether this machine computes like the others."""

import functools
import hashlib
from pathlib import Path

from mbt.pipeline import decode, ffmpeg, logmel
from mbt.pipeline.record import Context, encode
from mbt.schemas.clip import MICROSECONDS

MEDIA = Path(__file__).with_name("canary.mp4")


class CanaryError(RuntimeError):
    """This machine would write other bytes than those of the dataset."""


def encoder(program: str | None) -> dict:
    """Everything that decides the bytes of a record: for `dataset.json`, and compared on each run."""
    return {"ffmpeg": ffmpeg.version(program), "decode": decode.settings(), "logmel": logmel.settings()}


def encoded(program: str) -> bytes:
    """The canary's record as this machine makes it."""
    context = Context(
        id="canary",
        dataset_name="canary",
        media_id="canary",
        data_path=MEDIA.name,
        start_us=0,
        label_indices=[0],
        label_strings=["canary"],
    )
    clip = decode.decode(str(MEDIA), 0, MICROSECONDS, program=program)
    return encode(context, clip).payload


@functools.cache
def digest(program: str) -> str:
    """SHA-256 of the canary's record as this machine makes it.

    Raises:
      CanaryError: this ffmpeg makes none.
    """
    try:
        return hashlib.sha256(encoded(program)).hexdigest()
    except decode.UnusableError as error:
        raise CanaryError(
            f"{program} cannot make records ({error}): take a newer one (7.0 is known to do, 4.2 not to), or leave "
            "--ffmpeg out, for the embedded one"
        ) from error


def check(program: str, expected: str) -> None:
    """Refuses to go on where the canary comes out otherwise than when the dataset was begun.

    Raises:
      CanaryError: it does.
    """
    if digest(program) != expected:
        raise CanaryError(
            f"{program} on this machine encodes other bytes than those in the dataset (its canary differs): "
            "use the ffmpeg that began the dataset, or another --output"
        )
