"""Reads from shards, by ranges, only the frames and spectrogram rows that a window needs."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Iterator

import google_crc32c
import numpy as np

from mbt.schemas.clip import MEL_BINS, MEL_ROWS_PER_SECOND
from mbt.train import jpeg
from mbt.train.damage import ATTEMPTS, DamagedRecordError, DamageList, replacement
from mbt.train.errors import RunError
from mbt.train.snapshot import Records
from mbt.train.windows import Window, chosen_frames, starts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """What labels must be.

    Attributes:
      num_classes: K, of all heads together.
      one_of: sizes of the heads of which each must have exactly one label; () where any number is right.
    """

    num_classes: int
    one_of: tuple[int, ...]


class Reader:
    """Reads windows of many clips at once, with threads.

    Attributes:
      records: the split's records.
      columns: what `read` returns, with dtypes: `records` (B,), the numbers of those read; `intact` (B,), 0 where that
        is not the one asked for, which is damaged, else 1; `labels` (B, K), 0 or 1; with frames, `jpegs` (B, F) bytes,
        `sizes` (B, 2) heights and widths, and `rgb_valid` (B,); with spectrograms, `mel` (B, R, 128) and
        `spectrogram_valid` (B,). The last of each is the share of the window that the clip fills without padding or
        repetition. Nothing is returned empty, because tf.numpy_function crashes on float arrays without elements.
      failure: what ended a read, for a caller that sees only TensorFlow's account of it.
    """

    def __init__(
        self, records: Records, window: Window, targets: Targets, *, seed: int, threads: int, replace_damaged: bool
    ):
        self.records = records
        self.failure: RunError | None = None
        self.columns: dict[str, type] = {"records": np.int64, "intact": np.float32, "labels": np.float32}
        if len(window.frame_offsets):
            self.columns |= {"jpegs": object, "sizes": np.int32, "rgb_valid": np.float32}
        if window.mel_rows:
            self.columns |= {"mel": np.float32, "spectrogram_valid": np.float32}
        self._window = window
        self._targets = targets
        self._seed = seed
        self._replace_damaged = replace_damaged
        self._damage = DamageList()
        self._threads = concurrent.futures.ThreadPoolExecutor(threads)

    @property
    def bad(self) -> list[dict]:
        """The damaged records found so far: dicts with `record` (its number), `shard`, `clip` and `reason`."""
        return list(self._damage.entries)

    def read(
        self, numbers: np.ndarray, positions: np.ndarray, epochs: np.ndarray, slots: np.ndarray, *, random: bool
    ) -> list[np.ndarray]:
        """Reads one window of each record.

        Args:
          numbers: (B,) of the records.
          positions: (B, 2) of the windows; see `windows.starts`.
          epochs: (B,) that with the slots decide what replaces a damaged record.
          slots: (B,) places in the whole run's order.
          random: whether positions are draws.

        Returns:
          The columns, in their order.

        Raises:
          RunError: a record has labels that the model cannot take, a shard is gone, or a record is damaged and not to
            be replaced.
        """
        shapes = self._shapes()
        batch: dict[str, np.ndarray] = {
            name: np.empty((len(numbers), *shapes[name]), dtype) for name, dtype in self.columns.items()
        }

        def read_row(row: int) -> None:
            asked, key = int(numbers[row]), (int(epochs[row]), int(slots[row]))
            columns = {name: values[row : row + 1] for name, values in batch.items()}
            columns["records"][0] = number = self._read_intact(asked, positions[row], key, columns, random)
            columns["intact"][0] = number == asked

        try:
            list(self._threads.map(read_row, range(len(numbers))))
        except RunError as error:
            self.failure = error
            raise
        return [batch[name] for name in self.columns]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each column; () for numbers."""
        shapes: dict[str, tuple[int, ...]] = {"labels": (self._targets.num_classes,), "sizes": (2,)}
        shapes |= {"jpegs": (len(self._window.frame_offsets),), "mel": (self._window.mel_rows, MEL_BINS)}
        return {name: shapes.get(name, ()) for name in self.columns}

    def _read_intact(self, number: int, positions, key: tuple[int, int], columns: dict, random: bool) -> int:
        """Reads a record, or what replaces it; returns the number of the one read."""
        last = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._read_clip(number, positions, columns, random)
                return number
            except DamagedRecordError as error:
                if not self._replace_damaged:
                    raise
                self._damage.add(number, error)
                last = f"{error.clip} of shard {error.shard}"
                number = replacement(self._seed, *key, attempt, len(self.records))
        raise RunError(
            f"{ATTEMPTS} records drawn in turn are damaged, the last clip {last}; check them with `mbt-data verify`"
        )

    def _read_clip(self, number: int, positions: np.ndarray, columns: dict[str, np.ndarray], random: bool) -> None:
        path, index, row = self.records.locate(number)
        clip = index.ids[row]
        num_frames, num_rows = (int(index.records[row][name]) for name in ("num_frames", "num_mel_rows"))
        frame, mel_row = starts(self._window, num_frames, num_rows, positions, random=random)
        self._set_labels(columns["labels"][0], index.record_labels(row), f"shard {path}, clip {clip}")
        with _opened(path, clip) as file:
            if "jpegs" in columns:
                size = tuple(int(index.records[row][name]) for name in ("height", "width"))
                chosen, columns["rgb_valid"][0] = chosen_frames(self._window, frame, num_frames)
                columns["sizes"][0] = size
                columns["jpegs"][0] = [_read_jpeg(file, piece, size) for piece in index.frames(row)[chosen]]
            if "mel" in columns:
                columns["spectrogram_valid"][0] = self._read_mel(
                    file, index.steps(row), mel_row, num_rows, columns["mel"][0]
                )

    def _read_mel(self, file: "_Shard", pieces: np.ndarray, first: int, num_rows: int, out: np.ndarray) -> float:
        """Fills a window, (R, 128), from its first row on; returns the share that the clip fills."""
        rows = max(0, min(len(out), num_rows - first))
        if rows:
            _read_rows(file, pieces, first, out[:rows])
        if rows < len(out) and self._window.loop:
            whole = np.empty((num_rows, MEL_BINS), np.float32)
            _read_rows(file, pieces, 0, whole)
            out[rows:] = np.resize(whole, (len(out) - rows, MEL_BINS))
        else:
            out[rows:] = self._window.mel_fill
        return rows / len(out)

    def _set_labels(self, out: np.ndarray, labels: np.ndarray, where: str) -> None:
        """Labels as a row of 0 and 1."""
        if len(labels) and labels.max() >= len(out):
            raise RunError(f"{where}: has label {labels.max()}, the model has {len(out)} classes")
        first = 0
        for head, size in enumerate(self._targets.one_of):
            count = int(np.sum((labels >= first) & (labels < first + size)))
            if count != 1:
                of_head = f" of head {head}" if len(self._targets.one_of) > 1 else ""
                raise RunError(f"{where}: has {count} labels{of_head}; config.loss.name=ce needs one, use bce")
            first += size
        out[:] = 0
        out[labels] = 1


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A shard opened for one clip, which errors name."""

    path: str
    clip: str
    file: int

    def read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self.file, length, offset)
        except OSError as error:
            raise self.damaged(f"bytes at {offset} cannot be read: {error.strerror}") from error

    def checked(self, data: bytes, piece: np.void) -> bytes:
        if google_crc32c.value(data) != piece["crc32c"]:
            raise self.damaged(f"bytes at {piece['offset']} do not match their checksum")
        return data

    def damaged(self, reason: str) -> DamagedRecordError:
        return DamagedRecordError(self.path, self.clip, reason)


@contextlib.contextmanager
def _opened(path: str, clip: str) -> Iterator[_Shard]:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"shard {path}, clip {clip}: {error.strerror}; run `mbt-data build` again") from error
    try:
        yield _Shard(path, clip, file)
    finally:
        os.close(file)


def _read_jpeg(shard: _Shard, piece: np.void, size: tuple[int, ...]) -> bytes:
    data = shard.checked(shard.read(int(piece["offset"]), int(piece["length"])), piece)
    if jpeg.size(data) != size:
        raise shard.damaged(f"bytes at {piece['offset']} are no JPEG of {size[1]} x {size[0]} pixels")
    return data


def _read_rows(shard: _Shard, pieces: np.ndarray, first: int, out: np.ndarray) -> None:
    """Spectrogram rows of a clip, from `first` on, with one read: a few bytes of framing lie between the steps."""
    step = first // MEL_ROWS_PER_SECOND
    chosen = pieces[step : -(-(first + len(out)) // MEL_ROWS_PER_SECOND)]
    begin = int(chosen[0]["offset"])
    data = shard.read(begin, int(chosen[-1]["offset"]) + int(chosen[-1]["length"]) - begin)
    row = step * MEL_ROWS_PER_SECOND - first  # in `out`, of the step's first row
    for piece in chosen:
        at = int(piece["offset"]) - begin
        values = np.frombuffer(shard.checked(data[at : at + int(piece["length"])], piece), "<f4").reshape(-1, MEL_BINS)
        out[max(row, 0) : row + MEL_ROWS_PER_SECOND] = values[max(-row, 0) :][: len(out) - max(row, 0)]
        row += MEL_ROWS_PER_SECOND
