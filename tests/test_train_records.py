"""The loader: what is read is what was written, in an order that only the seed decides."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mbt.schemas.fakes import FakeClip, write_snapshot
from mbt.train.config import default_config, resolve
from mbt.train.errors import RunError, UsageError
from mbt.train.records import eval_batches, make_reader, slots, train_batches
from mbt.train.snapshot import Records, find_split, load_manifest

FRAMES = 60
SIZE = (24, 32)


def frame(clip: int, number: int) -> np.ndarray:
    """A picture whose shade names its clip and number."""
    return np.full((*SIZE, 3), 20 * clip + 3 * (number % 6), np.uint8)


def fake_clip(number: int, frames: int = FRAMES, labels: tuple[int, ...] | None = None) -> FakeClip:
    rows = np.arange(4 * frames)[:, None] + np.linspace(0, 0.5, 128) + 1000 * number
    return FakeClip(
        id=f"clip-{number}",
        jpegs=[tf.io.encode_jpeg(frame(number, i), quality=100).numpy() for i in range(frames)],
        size=SIZE,
        mel=rows.astype(np.float32),
        labels=(number % 3,) if labels is None else labels,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    clips = [fake_clip(number) for number in range(7)]
    write_snapshot(root, {"train": clips, "test": [*clips[:4], fake_clip(8, frames=10)]}, ("a", "b", "c"))
    return root


def make_config(root, **data):
    config = default_config()
    config.data.update(root=str(root), seconds=1.0, frames=2, crop=16, eval_crop=1.0, **data)
    config.train.update(batch_size=4, eval_batch_size=2, steps=5)
    return resolve(config, load_manifest(str(root), "latest"))


def reader_of(root, config, split="train"):
    return make_reader(Records(str(root), load_manifest(str(root), "latest").splits[split]), config)


def written(number: int) -> int:
    """The clip at a record number: clips go to the two shards in turn."""
    return [0, 2, 4, 6, 1, 3, 5][number]


@pytest.mark.parametrize("total", [1, 2, 7, 100, 1001])
def test_every_record_once_an_epoch_and_every_epoch_anew(total):
    records, epochs = slots(tf.constant(0, tf.int64), 3 * total, total, seed=5)
    np.testing.assert_array_equal(epochs, np.repeat([0, 1, 2], total))
    by_epoch = records.numpy().reshape(3, total)
    for order in by_epoch:
        np.testing.assert_array_equal(np.sort(order), np.arange(total))
    assert total < 7 or len({tuple(order) for order in by_epoch}) == 3


def test_batches_hold_what_was_written(root):
    config = make_config(root)
    for batch in train_batches(reader_of(root, config), config):
        assert batch["rgb"].shape == (4, 2, 16, 16, 3)
        assert batch["spectrogram"].shape == (4, 100, 128, 1)
        for record, rgb, mel, labels in zip(
            batch["records"], batch["rgb"], batch["spectrogram"], batch["labels"], strict=True
        ):
            clip = written(record)
            np.testing.assert_array_equal(labels, np.eye(3)[clip % 3])
            first_row = int(mel[0, 0, 0]) - 1000 * clip
            np.testing.assert_allclose(mel[:, 0, 0], 1000 * clip + first_row + np.arange(100))
            # Both begin at the same moment: a frame is four rows.
            assert first_row % 4 == 0
            for shades, offset in zip(rgb, (0, 12), strict=True):
                np.testing.assert_allclose(shades, frame(clip, first_row // 4 + offset)[0, 0, 0], atol=2)


def test_a_resumed_loader_goes_on_with_the_same_batches(root):
    config = make_config(root)
    straight = list(train_batches(reader_of(root, config), config))
    resumed = list(train_batches(reader_of(root, config), config, first_step=2))
    assert len(straight) == 5
    for one, other in zip(straight[2:], resumed, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


def test_the_seed_decides(root):
    config = make_config(root)
    first = next(train_batches(reader_of(root, config), config))
    config.seed = 1
    second = next(train_batches(reader_of(root, config), config))
    assert not np.array_equal(first["spectrogram"], second["spectrogram"])


def test_evaluation_sees_each_clip_once_with_all_its_views(root):
    config = make_config(root)
    batches = list(eval_batches(reader_of(root, config, "test"), config, views=3))
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    np.testing.assert_array_equal(rows["records"][rows["weights"] > 0], np.repeat(np.arange(5), 3))
    np.testing.assert_array_equal(rows["weights"], np.repeat([1, 1, 1, 1, 1, 0], 3))
    first_rows = rows["spectrogram"][:3, 0, 0, 0]
    np.testing.assert_array_equal(first_rows, [0, 4 * 18, 4 * 35])  # 60 frames, a window of 25: 0, 17.5, 35


def test_a_short_clip_holds_its_last_frame_and_is_filled_with_the_mean(root):
    config = make_config(root)
    rows = list(eval_batches(reader_of(root, config, "test"), config, views=1))
    short = np.flatnonzero(rows[1]["records"] == 2)[0]  # the fifth clip is the last of the first shard
    mel = rows[1]["spectrogram"][short]
    np.testing.assert_allclose(mel[:40, 0, 0], 8000 + np.arange(40))
    np.testing.assert_allclose(mel[40:], config.data.mel_mean, rtol=1e-6)
    np.testing.assert_allclose(rows[1]["rgb"][short][1], frame(8, 9)[0, 0, 0], atol=2)


@pytest.mark.parametrize("modality", ["rgb", "spectrogram"])
def test_one_modality_reads_nothing_of_the_other(root, modality):
    config = make_config(root)
    config.modalities = (modality,)
    batch = next(train_batches(reader_of(root, config), config))
    assert {"rgb", "spectrogram"} & batch.keys() == {modality}


def one_clip(tmp_path, clip: FakeClip):
    write_snapshot(tmp_path, {"train": [clip], "test": []}, ("a", "b", "c"), num_shards=1)
    return make_config(tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    config = one_clip(tmp_path, fake_clip(0))
    (shard,) = tmp_path.glob("shards/train*.tfrecord")
    data = bytearray(shard.read_bytes())
    data[::50] = bytes(len(data[::50]))
    shard.write_bytes(data)
    with pytest.raises(RunError, match=r"train-00000\.tfrecord, clip clip-0: .* checksum"):
        next(train_batches(reader_of(tmp_path, config), config))


@pytest.mark.parametrize("labels", [(), (0, 2)])
def test_cross_entropy_needs_one_label(tmp_path, labels):
    config = one_clip(tmp_path, fake_clip(0, labels=labels))
    batch = next(train_batches(reader_of(tmp_path, config), config))
    np.testing.assert_array_equal(np.flatnonzero(batch["labels"][0]), labels)
    config.loss.name = "ce"
    with pytest.raises(RunError, match=r"clip clip-0: has \d labels"):
        next(train_batches(reader_of(tmp_path, config), config))


def test_a_missing_or_cut_shard_is_found_at_the_start(tmp_path):
    one_clip(tmp_path, fake_clip(0))
    (shard,) = tmp_path.glob("shards/train*.tfrecord")
    records = Records(str(tmp_path), load_manifest(str(tmp_path), "latest").splits["train"])
    records.check_files()
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"train-00000\.tfrecord is missing or not whole"):
        records.check_files()


def test_snapshots_and_splits_are_found_by_name(tmp_path, root):
    for name in ("b", "c", "a"):
        write_snapshot(tmp_path / name, {"train": []}, (), name=name)
    with pytest.raises(UsageError, match="no snapshot there"):
        load_manifest(str(tmp_path), "latest")
    with pytest.raises(UsageError, match="which has first"):
        load_manifest(str(root), "second")
    manifest = load_manifest(str(root), "latest")
    with pytest.raises(UsageError, match="has the splits train, test"):
        find_split(manifest, "config.data.train_split", "valid")
    with pytest.raises(UsageError, match="has no records"):
        find_split(load_manifest(str(tmp_path / "a"), "a"), "--split", "train")


def test_the_latest_snapshot_is_the_one_created_last(tmp_path):
    for name in ("1", "3", "2"):
        write_snapshot(tmp_path, {"train": []}, (), name=name)
    (tmp_path / "snapshots" / "4").mkdir()
    assert load_manifest(str(tmp_path), "latest").snapshot == "3"


def test_a_snapshot_of_another_version_is_refused(tmp_path):
    write_snapshot(tmp_path, {"train": []}, ())
    path = tmp_path / "snapshots" / "first" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(UsageError, match="format version"):
        load_manifest(str(tmp_path), "latest")
