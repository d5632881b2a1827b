"""Any video file or URL to a record, by the decoder that builds datasets: training's one door to the pipeline."""

import os
import pathlib
from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np

from mbt.pipeline import attempts, decode, download, ffmpeg, hosts, one_sense, outcomes, probe, record, youtube
from mbt.schemas import index as index_lib
from mbt.schemas import tfrecord
from mbt.schemas.clip import MICROSECONDS
from mbt.schemas.manifest import Shard, Split
from mbt.train.errors import UsageError
from mbt.train.modalities import RGB, SPECTROGRAM

LONGEST_S = decode.MAX_CLIP_US / MICROSECONDS
_NAME = "clip"
_SENSES = {RGB: one_sense.PICTURE, SPECTROGRAM: one_sense.SOUND}


class MediaError(Exception):
    """A clip gives no record. One line, without the clip's name."""


def program() -> str:
    """The ffmpeg that decodes.

    Raises:
      UsageError: there is none.
    """
    try:
        return ffmpeg.executable()
    except ffmpeg.FfmpegMissingError as error:
        raise UsageError(str(error)) from error


def write_clip(
    clip: str,
    span_us: tuple[int, int | None],
    labels: list[int],
    folder: pathlib.Path,
    modalities: Sequence[str] = (RGB, SPECTROGRAM),
) -> Split:
    """Decodes a clip and writes it as a dataset's split with one record.

    Args:
      clip: path, or http(s) URL, YouTube's too.
      span_us: start and end in microseconds; an end of None for that of the media.
      labels: to note for the clip, since a loader asks for them.
      folder: root of the dataset; empty.
      modalities: that will be read of it; what else it has may be black or silence.

    Raises:
      MediaError: the clip cannot be read, or is none.
    """
    try:
        path, starts_at_us = _fetch(clip, span_us, folder)
        start_us = span_us[0] - starts_at_us
        end_us = _end_of(path, start_us) if span_us[1] is None else span_us[1] - starts_at_us
        decoded = attempts.tried(lambda: _decoded(path, max(0, start_us), end_us, modalities, folder))
    except decode.UnusableError as error:
        raise MediaError(str(error)) from error
    except (attempts.PassingError, ffmpeg.WorkerTroubleError) as error:
        raise MediaError(f"cannot be decoded here: {error}") from error
    except (outcomes.FetchError, outcomes.StopError) as error:
        raise MediaError(f"cannot be fetched: {error}") from error
    context = record.Context(
        id=clip,
        dataset_name="",
        media_id="",
        data_path="",
        start_us=span_us[0],
        label_indices=labels,
        label_strings=(),
    )
    shard = _write(folder, record.encode(context, decoded), clip, labels)
    seconds = decoded.duration_us / MICROSECONDS
    return Split(shards=(shard,), num_clips=1, num_records=1, lost={}, mel_mean=0.0, mel_stddev=1.0, seconds=seconds)


def _decoded(path: str, start_us: int, end_us: int, modalities: Sequence[str], folder: pathlib.Path) -> decode.Decoded:
    if len(modalities) > 1:
        return decode.decode(path, start_us, end_us, program=program())
    sense = _SENSES[modalities[0]]
    return one_sense.decoded(path, start_us, end_us, sense=sense, folder=str(folder), program=program())


def _fetch(clip: str, span_us: tuple[int, int | None], folder: pathlib.Path) -> tuple[str, int]:
    """A local file, and which time of the clip's source is its zero, in microseconds."""
    start_us, end_us = span_us
    if video := youtube.video_id(clip):
        wanted = None if end_us is None else (start_us, end_us)
        got = youtube.download(video, wanted, str(folder), youtube.Settings(ffmpeg=program()))
        return got.path, got.starts_at_us
    if clip.lower().startswith(("http://", "https://")):
        path = str(folder / f"download{_extension(clip)}")
        named = hosts.Hosts(named=hosts.named_in(clip))  # by the command line: it may be in a private network
        download.download(clip, path, download.Limits(), hosts=named)
        return path, 0
    if not os.path.isfile(clip):
        raise MediaError("no such file" if not os.path.exists(clip) else "not a file")
    return clip, 0


def _extension(url: str) -> str:
    """That of the URL's file name, where it is an ordinary one: it tells ffmpeg the form of some files."""
    try:
        extension = os.path.splitext(urlsplit(url).path)[1]
    except ValueError:  # the download says what is wrong with it
        return ""
    return extension if extension.isascii() and extension[1:].isalnum() else ""


def _end_of(path: str, start_us: int) -> int:
    """Where the media ends, as its container says; where it does not, as late as a clip may."""
    there_us = probe.times(path, program()).duration_us
    if there_us is None:
        return start_us + decode.MAX_CLIP_US
    if there_us - start_us > decode.MAX_CLIP_US:
        long_s = there_us / MICROSECONDS
        raise MediaError(f"is {long_s:.0f} s long: choose at most {LONGEST_S:.0f} s of it with --start and --end")
    return max(there_us, start_us + 1)  # a start past the end is for the decoder to refuse


def _write(folder: pathlib.Path, made: record.Record, clip_id: str, labels: list[int]) -> Shard:
    header, footer = tfrecord.frame(made.payload)
    offset = len(header)
    pieces = made.pieces.copy()
    pieces["offset"] += np.uint64(offset)
    num_steps = len(pieces) - made.num_frames
    row = (offset, len(made.payload), 0, 0, len(labels), made.num_frames, num_steps, made.num_mel_rows)
    size_and_sums = (made.height, made.width, made.mel_sum, made.mel_sum_of_squares)
    index = index_lib.dump(
        index_lib.Index(
            records=np.array([(*row, *size_and_sums, b"", b"")], index_lib.RECORD),
            pieces=pieces,
            labels=np.array(labels, np.int32),
            ids=(clip_id,),
            absent=(),
        )
    )
    data = header + made.payload + footer
    (folder / f"{_NAME}.tfrecord").write_bytes(data)
    (folder / f"{_NAME}.index").write_bytes(index)
    return Shard(
        path=f"{_NAME}.tfrecord",
        index_path=f"{_NAME}.index",
        num_records=1,
        bytes=len(data),
        crc32c="",
        index_crc32c="",
        fingerprint="",
    )
