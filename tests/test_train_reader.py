"""Damaged records: named, listed, replaced by a draw, or the end of the run."""

import shutil

import numpy as np
import pytest
from loading import LABELS, SIZE, fake_clip, jpeg, make_config, reader_of

from mbt.schemas import index as index_lib
from mbt.schemas.fakes import write_snapshot
from mbt.train import damage
from mbt.train.errors import RunError
from mbt.train.records import eval_batches, train_batches

CLIPS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset of one shard a split, in which record numbers are clip numbers."""
    root = tmp_path_factory.mktemp("whole")
    clips = [fake_clip(number) for number in range(CLIPS)]
    write_snapshot(root, {"train": clips, "test": clips[:5]}, LABELS, num_shards=1)
    return root


def damaged(whole, tmp_path, split, *records):
    """A copy of the dataset in which every frame and step of some records is changed by a byte."""
    root = shutil.copytree(whole, tmp_path / "damaged")
    path = root / "shards" / f"{split}-00000.tfrecord"
    index = index_lib.load(path.with_suffix(".index").read_bytes())
    data = bytearray(path.read_bytes())
    for record in records:
        for piece in [*index.frames(record), *index.steps(record)]:
            data[int(piece["offset"]) + int(piece["length"]) // 2] ^= 1
    path.write_bytes(data)
    return root


def test_a_damaged_record_is_replaced_in_its_slot_and_listed_once(whole, tmp_path, capfd):
    root = damaged(whole, tmp_path, "train", 2)
    config = make_config(root)
    before = list(train_batches(reader_of(whole, config), config))
    reader = reader_of(root, config)
    after = list(train_batches(reader, config))
    places = np.stack([batch["records"] for batch in before]) == 2
    assert places.sum() >= 3
    for one, other, replaced in zip(before, after, places, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values[~replaced], other[name][~replaced])
        np.testing.assert_array_equal(other["spectrogram"][:, 0, 0, 0] // 1000, other["records"])  # what was read
        assert 2 not in other["records"]
    (entry,) = reader.bad
    assert (entry["record"], entry["clip"]) == (2, "clip-2")
    assert entry["shard"].endswith("train-00000.tfrecord")
    assert "checksum" in entry["reason"]
    assert capfd.readouterr().err.count("damaged record, left out: shard ") == 1


def test_the_replacement_depends_on_the_slot_alone(whole, tmp_path):
    root = damaged(whole, tmp_path, "train", 1, 2, 4)
    config = make_config(root)
    straight = [batch["records"] for batch in train_batches(reader_of(root, config), config)]
    resumed = [batch["records"] for batch in train_batches(reader_of(root, config), config, 3)]
    np.testing.assert_array_equal(straight[3:], resumed)
    hosts = [
        [batch["records"] for batch in train_batches(reader_of(root, config), config, host=host, hosts=4)]
        for host in range(4)
    ]
    np.testing.assert_array_equal(np.concatenate(hosts, axis=1), straight)
    assert set(np.concatenate(straight)) == {0, 3, 5}


def test_replacements_differ_by_epoch_slot_and_attempt():
    draws = [damage.replacement(0, e, s, a, 10**12) for e in range(3) for s in range(3) for a in range(3)]
    assert len(set(draws)) == 27
    assert {damage.replacement(7, 0, slot, 1, 5) for slot in range(100)} == set(range(5))


def test_a_damaged_record_weighs_nothing_in_evaluation(whole, tmp_path):
    root = damaged(whole, tmp_path, "test", 3)
    config = make_config(root)
    config.train.eval_batch_size = 5
    (batch,) = eval_batches(reader_of(root, config, "test"), config, views=2)
    np.testing.assert_array_equal(batch["weights"], [1, 1, 1, 1, 1, 1, 0, 0, 1, 1])


def test_one_damaged_view_takes_the_whole_clip_out(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "damaged")
    path = root / "shards" / "test-00000.tfrecord"
    index = index_lib.load(path.with_suffix(".index").read_bytes())
    data = bytearray(path.read_bytes())
    data[int(index.frames(3)[47]["offset"]) + 20] ^= 1  # the last view takes frames 35 and 47
    path.write_bytes(data)
    config = make_config(root)
    config.train.eval_batch_size = 5
    (batch,) = eval_batches(reader_of(root, config, "test"), config, views=2)
    np.testing.assert_array_equal(batch["weights"].reshape(5, 2).min(axis=1), [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(batch["weights"][6:8], [0, 0])


def test_the_run_ends_where_that_is_asked_for(whole, tmp_path):
    root = damaged(whole, tmp_path, "train", 0)
    config = make_config(root, on_bad_record="stop")
    with pytest.raises(RunError, match=r"train-00000\.tfrecord, clip clip-0: .* checksum; .* `mbt-data build` again"):
        list(train_batches(reader_of(root, config), config))


def test_nothing_but_damage_ends_the_run(whole, tmp_path):
    root = damaged(whole, tmp_path, "train", *range(CLIPS))
    config = make_config(root)
    with pytest.raises(
        RunError, match=r"20 records drawn in turn are damaged, the last clip .* of shard .*; .*`mbt-data verify`"
    ):
        list(train_batches(reader_of(root, config), config))


@pytest.mark.parametrize(
    "data", [b"no picture", jpeg(np.zeros((8, 8, 3), np.uint8)), jpeg(np.zeros((*SIZE, 3), np.uint8))[:-2]]
)
def test_a_frame_that_is_not_what_the_index_says_is_damage(tmp_path, data):
    clips = [fake_clip(number) for number in range(2)]
    clips[1].jpegs[:] = [data] * len(clips[1].jpegs)
    write_snapshot(tmp_path, {"train": clips}, LABELS, num_shards=1)
    config = make_config(tmp_path)
    reader = reader_of(tmp_path, config)
    batches = list(train_batches(reader, config))
    assert {int(record) for batch in batches for record in batch["records"]} == {0}
    assert reader.bad[0]["reason"].endswith("are no JPEG of 32 x 24 pixels")


def test_a_shard_that_vanished_ends_the_run(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "damaged")
    config = make_config(root)
    reader = reader_of(root, config)
    (root / "shards" / "train-00000.tfrecord").unlink()
    with pytest.raises(RunError, match=r"clip clip-\d: No such file or directory; run `mbt-data build` again"):
        next(train_batches(reader, config))


def test_no_more_is_read_than_the_window_needs(whole, tmp_path):
    """Damage anywhere else goes unnoticed."""
    root = shutil.copytree(whole, tmp_path / "damaged")
    path = root / "shards" / "test-00000.tfrecord"
    index = index_lib.load(path.with_suffix(".index").read_bytes())
    data = np.frombuffer(path.read_bytes(), np.uint8)
    kept = np.zeros(len(data), bool)
    for record in range(5):
        for piece in [*index.frames(record)[[18, 30]], *index.steps(record)[:2]]:  # the middle of 60 frames
            kept[int(piece["offset"]) :][: int(piece["length"])] = True
    path.write_bytes(np.where(kept, data, 0).tobytes())
    config = make_config(root)
    weights = [batch["weights"] for batch in eval_batches(reader_of(root, config, "test"), config, views=1)]
    assert np.concatenate(weights).sum() == 5
