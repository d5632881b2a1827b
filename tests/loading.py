"""What the tests of the loader share: small clips whose values name them, and checks."""

import numpy as np
import tensorflow as tf

from mbt.schemas.fakes import FakeClip
from mbt.train.config import default_config, resolve
from mbt.train.records import make_reader
from mbt.train.snapshot import Records, load_manifest

FRAMES = 60
SIZE = (24, 32)
LABELS = ("a", "b", "c")


def frame(clip: int, number: int) -> np.ndarray:
    """A picture whose shade names its clip and number."""
    return np.full((*SIZE, 3), 20 * clip + 3 * (number % 6), np.uint8)


def fake_clip(number: int, frames: int = FRAMES, labels: tuple[int, ...] | None = None) -> FakeClip:
    """A clip whose spectrogram counts its rows from 1000 times its number."""
    rows = np.arange(4 * frames)[:, None] + np.linspace(0, 0.5, 128) + 1000 * number
    return FakeClip(
        id=f"clip-{number}",
        jpegs=[jpeg(frame(number, i), quality=100) for i in range(frames)],
        size=SIZE,
        mel=rows.astype(np.float32),
        labels=(number % 3,) if labels is None else labels,
    )


def jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    return tf.io.encode_jpeg(image, quality=quality).numpy()


def make_config(root, **data):
    """Windows of 1 s with 2 frames, batches of 4, 5 steps."""
    config = default_config()
    config.data.update(root=str(root), seconds=1.0, frames=2, crop=16, eval_crop=1.0)
    config.data.update(data)
    config.train.update(batch_size=4, eval_batch_size=2, steps=5)
    return resolve(config, load_manifest(str(root), "latest"))


def reader_of(root, config, split="train"):
    return make_reader(Records(str(root), load_manifest(str(root), "latest").splits[split]), config)


def both_ways(function, *tensors):
    """The result, after checking that tf.data gives the same."""
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    eager = function(*tensors).numpy()
    dataset = tf.data.Dataset.from_tensors(tuple(tensors)).map(function)
    (mapped,) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(mapped, eager)
    return eager
