"""Reads from shards, by ranges, only the frames and spectrogram rows that a window needs."""

import concurrent.futures
import dataclasses
from typing import NamedTuple

import google_crc32c
import numpy as np

from mbt.schemas import index as index_lib
from mbt.schemas.clip import MEL_BINS, MEL_ROWS_PER_SECOND
from mbt.train import jpeg, storage
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
      threads: how many clips are read at a time, of one batch or several.
      failure: what ended a read, for a caller that sees only TensorFlow's account of it.
    """

    def __init__(
        self, records: Records, window: Window, targets: Targets, *, seed: int, threads: int, replace_damaged: bool
    ):
        self.records = records
        self.threads = threads
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
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)

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
          RunError: a record has labels that the model cannot take, a shard is gone or out of reach, or a record is
            damaged and not to be replaced.
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
            list(self._pool.map(read_row, range(len(numbers))))
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
        shard = _Shard(path, index.ids[row])
        num_frames, num_rows = (int(index.records[row][name]) for name in ("num_frames", "num_mel_rows"))
        frame, mel_row = starts(self._window, num_frames, num_rows, positions, random=random)
        self._set_labels(columns["labels"][0], index.record_labels(row), str(shard))
        frames = steps = np.empty(0, index_lib.PIECE)
        if "jpegs" in columns:
            chosen, columns["rgb_valid"][0] = chosen_frames(self._window, frame, num_frames)
            frames = index.frames(row)[chosen]
        if "mel" in columns:
            sound = self._sound(mel_row, num_rows)
            steps = index.steps(row)[sound.steps]
        parts = shard.read(np.concatenate([frames, steps]))
        if "jpegs" in columns:
            size = tuple(int(index.records[row][name]) for name in ("height", "width"))
            columns["sizes"][0] = size
            columns["jpegs"][0] = parts[: len(frames)]
            for part, piece in zip(parts, frames, strict=False):
                shard.check_jpeg(part, piece, size)
        if "mel" in columns:
            self._fill(columns["mel"][0], parts[len(frames) :], sound, num_rows)
            columns["spectrogram_valid"][0] = sound.rows / self._window.mel_rows

    def _sound(self, first: int, num_rows: int) -> "_Sound":
        """What a window takes of a clip's spectrogram: all of it where it begins again."""
        rows = max(0, min(self._window.mel_rows, num_rows - first))
        if rows < self._window.mel_rows and self._window.wraps:
            return _Sound(first, rows, slice(None))
        step = first // MEL_ROWS_PER_SECOND
        end = -(-(first + rows) // MEL_ROWS_PER_SECOND) if rows else step
        return _Sound(first - step * MEL_ROWS_PER_SECOND, rows, slice(step, end))

    def _fill(self, out: np.ndarray, steps: list[bytes], sound: "_Sound", num_rows: int) -> None:
        """Fills a window, (R, 128), from the steps that were read."""
        _copy_rows(steps, sound.first, out[: sound.rows])
        if sound.rows < len(out) and self._window.wraps:
            whole = np.empty((num_rows, MEL_BINS), np.float32)
            _copy_rows(steps, 0, whole)
            out[sound.rows :] = np.resize(whole, (len(out) - sound.rows, MEL_BINS))
        else:
            out[sound.rows :] = self._window.mel_fill

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


class _Sound(NamedTuple):
    """What a window takes of a spectrogram: `rows` of them, from the `first` of the first of some `steps`."""

    first: int
    rows: int
    steps: slice


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A shard that one clip is read from, which errors name."""

    path: str
    clip: str

    def read(self, pieces: np.ndarray) -> list[bytes]:
        """The bytes of (N,) pieces, as they were written."""
        offsets, lengths, sums = (pieces[name].tolist() for name in ("offset", "length", "crc32c"))
        try:
            parts = storage.read_ranges(self.path, list(zip(offsets, lengths, strict=True)))
        except storage.UnreadableError as error:
            raise self._damaged(f"bytes from {offsets[0]} on cannot be read: {error}") from error
        except FileNotFoundError as error:
            raise RunError(f"{self}: {error.strerror}; run `mbt-data build` again") from error
        except OSError as error:
            raise RunError(f"{self}: cannot be read: {error.strerror}") from error
        for part, offset, crc32c in zip(parts, offsets, sums, strict=True):
            if google_crc32c.value(part) != crc32c:
                raise self._damaged(f"bytes at {offset} do not match their checksum")
        return parts

    def check_jpeg(self, data: bytes, piece: np.void, size: tuple[int, ...]) -> None:
        """Refuses what is no frame of that height and width."""
        if jpeg.size(data) != size:
            raise self._damaged(f"bytes at {piece['offset']} are no JPEG of {size[1]} x {size[0]} pixels")

    def _damaged(self, reason: str) -> DamagedRecordError:
        return DamagedRecordError(self.path, self.clip, reason)

    def __str__(self) -> str:
        return f"shard {self.path}, clip {self.clip}"


def _copy_rows(steps: list[bytes], first: int, out: np.ndarray) -> None:
    """Spectrogram rows, counted from the first step's."""
    for number, step in enumerate(steps):
        row = number * MEL_ROWS_PER_SECOND - first  # in `out`, of the step's first
        here = out[max(row, 0) : max(row + MEL_ROWS_PER_SECOND, 0)]
        here[:] = np.frombuffer(step, "<f4").reshape(-1, MEL_BINS)[max(-row, 0) :][: len(here)]
