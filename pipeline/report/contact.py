"""The contact sheet: some clips of each split as they are in the records, frames above their spectrogram.

Both lie on one time axis: a frame stands where it is shown, the spectrogram's rows where they are heard.
"""

import base64
import collections
import dataclasses
import io

import numpy as np
from PIL import Image

from mbt.pipeline import catalogue, storage, tally
from mbt.pipeline.catalogue import CatalogueError
from mbt.pipeline.report.charts import Tick, seconds_axis
from mbt.pipeline.shard_file import read_framed, unframed
from mbt.schemas.clip import FRAME_RATE_HZ, MEL_BINS, MEL_ROWS_PER_SECOND, MICROSECONDS
from mbt.schemas.example import SequenceExample
from mbt.schemas.manifest import Manifest, Split
from mbt.schemas.tfrecord import CorruptRecordError

# All pictures together, as text: with them the page stays well below 5 MB.
BUDGET_BYTES = 3_000_000
# Of a card, in the page's pixels; pictures have twice as many.
WIDTH, SPECTROGRAM_HEIGHT, GAP, AXIS_HEIGHT = 328, 72, 3, 18
_FRAME_HEIGHT = 50
_MOST_FRAMES = 10
_JPEG_QUALITY = 70
_MOST_LABELS = 24
_COLUMNS = ("id", "split", "outcome", "start_us", "end_us", "labels", "shard", "offset", "length")
# From silence to loud: dark blue, violet, red, orange, pale yellow.
_COLOURS = np.array([(10, 10, 32), (66, 22, 104), (158, 42, 99), (232, 98, 54), (250, 184, 70), (253, 248, 200)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """One clip.

    Attributes:
      id: of the clip.
      labels: names of the first ones.
      more_labels: how many it has besides.
      media_id: what it was cut from.
      span: where, e.g. "0.5 to 4 s".
      seconds: its length.
      strip: the frames side by side, as a data URL.
      strip_height: in the page's pixels.
      times: of the frames shown, in seconds.
      spectrogram: low frequencies at the bottom, as a data URL.
      ticks: of the axis that both share.
    """

    id: str
    labels: tuple[str, ...]
    more_labels: int
    media_id: str
    span: str
    seconds: float
    strip: str
    strip_height: float
    times: tuple[float, ...]
    spectrogram: str
    ticks: tuple[Tick, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """The clips shown of one split."""

    split: str
    cards: tuple[Card, ...]


def sheets(root: str, manifest: Manifest, clips: int, seed: int) -> list[Sheet]:
    """Some clips of each split; the same seed takes the same ones.

    Args:
      root: of the dataset.
      manifest: of the snapshot.
      clips: at most so many of a split, and fewer where the page would become too large.
      seed: of the choice.

    Raises:
      CatalogueError: a shard cannot be read.
    """
    chosen = _choose(root, manifest, clips, seed)
    cards: dict[str, list[Card]] = {split: [] for split in manifest.splits}
    spent = 0
    for place in range(clips):  # the first of each split, then the second of each: no split takes the others' room
        for split, rows in chosen.items():
            if place < len(rows) and spent < BUDGET_BYTES:
                card = _card(root, manifest.splits[split], rows[place])
                spent += len(card.strip) + len(card.spectrogram)
                if spent < BUDGET_BYTES:
                    cards[split].append(card)
    return [Sheet(split=split, cards=tuple(drawn)) for split, drawn in cards.items() if drawn]


def _choose(root: str, manifest: Manifest, clips: int, seed: int) -> dict[str, list[dict]]:
    """Rows of the clip table, drawn by their place among the records of their split."""
    wanted = {}
    for name, split in manifest.splits.items():
        random = np.random.default_rng([seed, *name.encode()])
        wanted[name] = np.sort(random.permutation(split.num_records)[:clips])
    seen: collections.Counter = collections.Counter()
    chosen: dict[str, list[dict]] = {name: [] for name in manifest.splits}
    for batch in catalogue.clip_batches(root, manifest, _COLUMNS):
        records = batch.filter(tally.is_record(batch))
        for name, places in wanted.items():
            rows = records.filter(tally.in_split(records, name))
            here = places[(places >= seen[name]) & (places < seen[name] + rows.num_rows)] - seen[name]
            chosen[name] += rows.take(here).to_pylist()
            seen[name] += rows.num_rows
    return chosen


def _card(root: str, split: Split, row: dict) -> Card:
    example = _example(storage.join(root, split.shards[row["shard"]].path), row)
    context, lists = example.context.feature, example.feature_lists.feature_list
    frames = [step.bytes_list.value[0] for step in lists["image/encoded"].feature]
    steps = [np.array(step.float_list.value, np.float32) for step in lists["melspec/feature/floats"].feature]
    rows = context["melspec/feature/num_samples"].int64_list.value[0]
    mel = np.concatenate(steps).reshape(-1, MEL_BINS)[:rows]
    seconds = max(len(frames) / FRAME_RATE_HZ, len(mel) / MEL_ROWS_PER_SECOND)
    strip, height, times = _strip(frames, seconds)
    return Card(
        id=row["id"],
        labels=tuple(row["labels"][:_MOST_LABELS]),
        more_labels=max(0, len(row["labels"]) - _MOST_LABELS),
        media_id=context["clip/media_id"].bytes_list.value[0].decode(errors="replace"),
        span=f"{row['start_us'] / MICROSECONDS:.6g} to {row['end_us'] / MICROSECONDS:.6g} s",
        seconds=seconds,
        strip=strip,
        strip_height=height,
        times=times,
        spectrogram=_spectrogram(mel, seconds, split.mel_mean, split.mel_stddev),
        ticks=seconds_axis(seconds, WIDTH),
    )


def _example(path: str, row: dict) -> SequenceExample:
    try:
        with storage.open_file(path) as file:
            framed = read_framed(file, row["offset"], row["length"])
        return SequenceExample.FromString(unframed(framed, row["length"]))
    except (OSError, CorruptRecordError) as error:
        raise CatalogueError(f"shard {path}, clip {row['id']!r}: {error}; `mbt-data verify` says more") from error


def _strip(frames: list[bytes], seconds: float) -> tuple[str, float, tuple[float, ...]]:
    """Frames at equal distances, each in the middle of the time that its picture covers."""
    width, height = _picture(frames[0]).size
    count = int(np.clip(round(WIDTH / (_FRAME_HEIGHT * width / height)), 3, _MOST_FRAMES))
    shown_height = min(2.0 * _FRAME_HEIGHT, WIDTH / count * height / width)
    size = (2 * WIDTH // count, max(1, round(2 * shown_height)))
    strip = Image.new("RGB", (size[0] * count, size[1]))
    times = [(place + 0.5) * seconds / count for place in range(count)]
    for place, time in enumerate(times):
        frame = _picture(frames[min(int(time * FRAME_RATE_HZ), len(frames) - 1)])
        strip.paste(frame.resize(size, Image.Resampling.BILINEAR), (place * size[0], 0))
    return _data_url(strip), round(shown_height, 1), tuple(round(time, 2) for time in times)


def _picture(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB")


def _spectrogram(mel: np.ndarray, seconds: float, mean: float, stddev: float) -> str:
    """(rows, 128) as a picture; its colours span the split's mean and 2.5 standard deviations to both sides."""
    whole = np.full((max(len(mel), round(seconds * MEL_ROWS_PER_SECOND)), MEL_BINS), mean - 2.5 * stddev)
    whole[: len(mel)] = mel
    level = np.clip((whole - mean) / (5 * stddev) + 0.5, 0, 1) * (len(_COLOURS) - 1)
    colours = np.stack([np.interp(level, range(len(_COLOURS)), channel) for channel in _COLOURS.T], axis=-1)
    picture = Image.fromarray(colours.transpose(1, 0, 2)[::-1].astype(np.uint8))
    return _data_url(picture.resize((2 * WIDTH, 2 * SPECTROGRAM_HEIGHT), Image.Resampling.BOX))


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
