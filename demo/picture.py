"""The demo's picture: four clips as the model gets them, and how the three models learned."""

import io
import itertools
import json
import pathlib
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
from PIL import Image

from mbt.schemas.clip import MEL_BINS
from mbt.schemas.example import SequenceExample
from mbt.schemas.manifest import Manifest
from mbt.schemas.tfrecord import read_records

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker

EXAMPLES = 4
# Enough to meet several labels, without reading a large data set to its end.
RECORDS_TO_LOOK_AT = 100
COLOURS = {"audio only": "tab:orange", "visual only": "tab:blue", "fused": "tab:green"}


def draw(
    image: pathlib.Path, root: pathlib.Path, manifest: Manifest, workdirs: dict[str, pathlib.Path], split: str
) -> None:
    """Writes the picture.

    Args:
      image: PNG to write.
      root: of the dataset.
      manifest: of the snapshot that the models were trained on.
      workdirs: of the three models, by name.
      split: whose clips are shown.
    """
    figure = plt.figure(figsize=(10, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 1.15])
    draw_clips(figure.add_subfigure(grid[0]), examples(root, manifest, split))
    draw_curves(figure.add_subfigure(grid[1]), {name: read_metrics(workdir) for name, workdir in workdirs.items()})
    with io.BytesIO() as png:
        figure.savefig(png, dpi=100)
        few_colours(Image.open(png).convert("RGB")).save(image, optimize=True)
    plt.close(figure)


def few_colours(picture: Image.Image) -> Image.Image:
    """A picture in 256 colours: with all of them, the grain of the films makes a file three times as large."""
    palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def examples(root: pathlib.Path, manifest: Manifest, split: str) -> dict[str, SequenceExample]:
    """A few records with different labels."""
    by_label: dict[str, SequenceExample] = {}
    for record in itertools.islice(records(root, manifest, split), RECORDS_TO_LOOK_AT):
        first_label = record.context.feature["clip/label/index"].int64_list.value[0]
        by_label.setdefault(manifest.labels[first_label], record)
    labels = sorted(by_label)
    chosen = np.linspace(0, len(labels) - 1, min(EXAMPLES, len(labels))).round().astype(int)
    return {labels[i]: by_label[labels[i]] for i in chosen}


def records(root: pathlib.Path, manifest: Manifest, split: str) -> Iterator[SequenceExample]:
    """The records of a split, shard by shard."""
    for shard in manifest.splits[split].shards:
        with (root / shard.path).open("rb") as file:
            yield from map(SequenceExample.FromString, read_records(file))


def draw_clips(figure, clips: dict[str, SequenceExample]) -> None:
    """A frame of each clip above its spectrogram."""
    figure.suptitle("Held-out clips as they are in the records: a frame, and 128 mel bands over time", fontsize=11)
    axes = figure.subplots(2, EXAMPLES, squeeze=False, height_ratios=[1.5, 1])
    for axis in axes.flat:
        axis.set_axis_off()
    for (frame_axis, mel_axis), (label, record) in zip(axes.T, clips.items(), strict=False):
        frame_axis.set_title(label, fontsize=10)
        frame_axis.imshow(middle_frame(record))
        mel_axis.imshow(spectrogram(record).T, origin="lower", aspect="auto", cmap="magma")


def middle_frame(record: SequenceExample) -> np.ndarray:
    """The frame in the middle of a clip."""
    frames = record.feature_lists.feature_list["image/encoded"].feature
    return plt.imread(io.BytesIO(frames[len(frames) // 2].bytes_list.value[0]), format="jpeg")


def spectrogram(record: SequenceExample) -> np.ndarray:
    """The log-mel spectrogram of a clip, rows by bins, without its padding."""
    steps = record.feature_lists.feature_list["melspec/feature/floats"].feature
    rows = np.concatenate([step.float_list.value for step in steps]).reshape(-1, MEL_BINS)
    return rows[: record.context.feature["melspec/feature/num_samples"].int64_list.value[0]]


def read_metrics(workdir: pathlib.Path) -> list[dict]:
    """What a run logged: a line for each logged training step and for each evaluation."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def draw_curves(figure, metrics: dict[str, list[dict]]) -> None:
    """Loss and held-out score against the step, a line for each model.

    The score is top-1, or mAP where clips have several labels.
    """
    loss_axis, score_axis = figure.subplots(1, 2)
    evaluations = [line for lines in metrics.values() for line in lines if line["kind"] == "eval"]
    score = "top1" if all("top1" in line for line in evaluations) else "map"
    for name, lines in metrics.items():
        for axis, kind, key in ((loss_axis, "train", "loss"), (score_axis, "eval", score)):
            points = [(line["step"], line[key]) for line in lines if line["kind"] == kind]
            axis.plot(*zip(*points, strict=True), label=name, color=COLOURS[name], marker="o", markersize=3)
    title, label = ("Held-out clips named right", "top-1") if score == "top1" else ("Held-out clips", "mAP")
    loss_axis.set(title="Loss on the clips trained on", xlabel="training step", ylabel="loss", ylim=(0, None))
    score_axis.set(title=title, xlabel="training step", ylabel=label, ylim=(0, 1.04))
    score_axis.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1))
    for axis in (loss_axis, score_axis):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
