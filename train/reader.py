"""Reads from shards, by ranges, only the frames and spectrogram rows that a window needs."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Iterator

import google_crc32c
import numpy as np

from mbt.schemas.clip import FRAME_RATE_HZ, MEL_BINS, MEL_ROWS_PER_SECOND
from mbt.train.errors import RunError
from mbt.train.snapshot import Records

ROWS_PER_FRAME = MEL_ROWS_PER_SECOND // FRAME_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """What is read of a clip.

    Attributes:
      frame_offsets: (F,) frames, counted from the window's first; empty to read none.
      mel_rows: R, spectrogram rows; 0 to read none.
      mel_fill: value of rows past the end of the clip.
      num_classes: K.
      one_label: refuse a clip that has not exactly one label.
    """

    frame_offsets: np.ndarray
    mel_rows: int
    mel_fill: float
    num_classes: int
    one_label: bool


class Reader:
    """Reads windows of many clips at once, with threads.

    A clip shorter than the window is padded: its last frame is held, and missing spectrogram rows are `mel_fill`.

    Attributes:
      records: the split's records.
      columns: what `read` returns, with dtypes: `labels` (B, K), 0 or 1; with frames, `jpegs` (B, F) bytes and
        `sizes` (B, 2) heights and widths; with spectrograms, `mel` (B, R, 128). Nothing is returned empty, because
        tf.numpy_function crashes on float arrays without elements.
      failure: what ended a read, for a caller that sees only TensorFlow's account of it.
    """

    def __init__(self, records: Records, window: Window, threads: int):
        self.records = records
        self.failure: RunError | None = None
        self.columns: dict[str, type] = {"labels": np.float32}
        if len(window.frame_offsets):
            self.columns |= {"jpegs": object, "sizes": np.int32}
        if window.mel_rows:
            self.columns["mel"] = np.float32
        self._window = window
        self._threads = concurrent.futures.ThreadPoolExecutor(threads)

    def num_frames(self, numbers: np.ndarray) -> np.ndarray:
        """Frames of each record, (B,) int64."""
        return self._guarded(lambda: np.array([self._row(number)["num_frames"] for number in numbers], np.int64))

    def read(self, numbers: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """Reads one window of each record.

        Args:
          numbers: (B,) of the records.
          starts: (B,) first frames of the windows.

        Returns:
          The columns, in their order.
        """
        clips = self._guarded(lambda: list(self._threads.map(self._read_clip, numbers, starts)))
        return [np.array([clip[name] for clip in clips], dtype) for name, dtype in self.columns.items()]

    def _guarded(self, call):
        try:
            return call()
        except RunError as error:
            self.failure = error
            raise

    def _row(self, number: int) -> np.void:
        _, index, row = self.records.locate(int(number))
        return index.records[row]

    def _read_clip(self, number: int, start: int) -> dict:
        path, index, row = self.records.locate(int(number))
        record = index.records[row]
        where = f"shard {path}, clip {index.ids[row]}"
        clip = {
            "labels": self._labels(index.record_labels(row), where),
            "sizes": (record["height"], record["width"]),
        }
        with _opened(path, where) as file:
            if "jpegs" in self.columns:
                clip["jpegs"] = self._read_frames(file, index.frames(row), int(start), where)
            if "mel" in self.columns:
                clip["mel"] = self._read_mel(file, index.steps(row), int(start), int(record["num_mel_rows"]), where)
        return clip

    def _read_frames(self, file: int, pieces: np.ndarray, start: int, where: str) -> list[bytes]:
        chosen = pieces[np.minimum(start + self._window.frame_offsets, len(pieces) - 1)]
        return [_checked(os.pread(file, piece["length"], piece["offset"]), piece, where) for piece in chosen]

    def _read_mel(self, file: int, pieces: np.ndarray, start: int, valid_rows: int, where: str) -> np.ndarray:
        mel = np.full((self._window.mel_rows, MEL_BINS), self._window.mel_fill, np.float32)
        first = start * ROWS_PER_FRAME
        rows = min(self._window.mel_rows, valid_rows - first)
        if rows <= 0:
            return mel
        skipped = first // MEL_ROWS_PER_SECOND
        chosen = pieces[skipped : -(-(first + rows) // MEL_ROWS_PER_SECOND)]
        values = np.concatenate(_read_steps(file, chosen, where))
        mel[:rows] = values[first - skipped * MEL_ROWS_PER_SECOND :][:rows]
        return mel

    def _labels(self, labels: np.ndarray, where: str) -> np.ndarray:
        if self._window.one_label and len(labels) != 1:
            raise RunError(f"{where}: has {len(labels)} labels; config.loss.name=ce needs one, use bce")
        if len(labels) and labels.max() >= self._window.num_classes:
            raise RunError(f"{where}: has label {labels.max()}, the model has {self._window.num_classes} classes")
        hot = np.zeros(self._window.num_classes, np.float32)
        hot[labels] = 1
        return hot


@contextlib.contextmanager
def _opened(path: str, where: str) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"{where}: {error.strerror}; run `mbt-data build` again") from error
    try:
        yield file
    finally:
        os.close(file)


def _read_steps(file: int, pieces: np.ndarray, where: str) -> list[np.ndarray]:
    """Neighbouring spectrogram steps with one read: a few bytes of framing lie between them."""
    begin = int(pieces[0]["offset"])
    data = os.pread(file, int(pieces[-1]["offset"]) + int(pieces[-1]["length"]) - begin, begin)
    steps = []
    for piece in pieces:
        step = data[int(piece["offset"]) - begin :][: int(piece["length"])]
        steps.append(np.frombuffer(_checked(step, piece, where), "<f4").reshape(MEL_ROWS_PER_SECOND, MEL_BINS))
    return steps


def _checked(data: bytes, piece: np.void, where: str) -> bytes:
    if google_crc32c.value(data) != piece["crc32c"]:
        place = f"bytes at {piece['offset']} do not match their checksum"
        raise RunError(f"{where}: {place}; delete the shard and run `mbt-data build` again")
    return data
