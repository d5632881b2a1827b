"""The loader: what is read is what was written, in an order that only the seed decides."""

import itertools
import json
import os
import pathlib
import resource

import numpy as np
import pytest
from loading import LABELS, fake_clip, frame, make_config, reader_of

from mbt.schemas.fakes import FakeClip, write_snapshot
from mbt.train import snapshot
from mbt.train.errors import RunError, UsageError
from mbt.train.records import eval_batches, train_batches
from mbt.train.snapshot import Records, find_split, load_manifest


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    clips = [fake_clip(number) for number in range(7)]
    write_snapshot(root, {"train": clips, "test": [*clips[:4], fake_clip(8, frames=10)]}, LABELS)
    return root


def written(number: int) -> int:
    """The clip at a record number: clips go to the two shards in turn."""
    return [0, 2, 4, 6, 1, 3, 5][number]


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
    equal_batches(straight[2:], resumed)


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
    assert (rows[1]["rgb_valid"][short], rows[1]["spectrogram_valid"][short]) == (0.5, np.float32(0.4))


@pytest.mark.parametrize("modality", ["rgb", "spectrogram"])
def test_one_modality_reads_nothing_of_the_other(root, modality):
    config = make_config(root)
    config.modalities = (modality,)
    batch = next(train_batches(reader_of(root, config), config))
    assert {"rgb", "spectrogram"} & batch.keys() == {modality}


def equal_batches(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


def joined(of_hosts: list[list[dict]]) -> list[dict]:
    """The batches of all hosts, side by side."""
    steps = zip(*of_hosts, strict=True)
    return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in steps]


@pytest.mark.parametrize("sampling", ["uniform", "class_balanced"])
def test_hosts_together_make_the_batches_of_one(root, sampling):
    config = make_config(root, sampling=sampling)
    alone = list(train_batches(reader_of(root, config), config))
    hosts = [list(train_batches(reader_of(root, config), config, host=host, hosts=2)) for host in range(2)]
    assert hosts[0][0]["rgb"].shape[0] == 2
    equal_batches(joined(hosts), alone)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_evaluate_every_clip_once_in_equally_many_batches(root, hosts):
    config = make_config(root)
    config.train.eval_batch_size = 4  # the five clips fill the second batch to a quarter
    parts = [list(eval_batches(reader_of(root, config, "test"), config, 2, host=h, hosts=hosts)) for h in range(hosts)]
    assert [len(part) for part in parts] == [2] * hosts
    rows = joined(parts)
    counted = np.concatenate([batch["records"][batch["weights"] > 0] for batch in rows])
    np.testing.assert_array_equal(counted, np.repeat(np.arange(5), 2))


def test_a_batch_that_hosts_cannot_share_is_refused(root):
    config = make_config(root)
    with pytest.raises(UsageError, match=r"config\.train\.batch_size=4: must be a multiple of the 3 hosts"):
        train_batches(reader_of(root, config), config, hosts=3)
    with pytest.raises(UsageError, match=r"config\.train\.eval_batch_size=2: must be a multiple"):
        eval_batches(reader_of(root, config), config, 1, hosts=3)


def test_a_spectrogram_is_masked_with_the_frozen_mean(root):
    config = make_config(root)
    plain = next(train_batches(reader_of(root, config), config))["spectrogram"]
    config.data.spec_augment.update(time_masks=1, frequency_masks=1, time_rows=50)
    masked = next(train_batches(reader_of(root, config), config))["spectrogram"]
    changed = masked != plain
    assert changed.any()
    np.testing.assert_allclose(masked[changed], config.data.mel_mean, rtol=1e-6)


def test_a_short_clip_repeats_itself_where_the_config_says_so(root):
    config = make_config(root, short="loop", frames=5)
    rows = list(eval_batches(reader_of(root, config, "test"), config, views=1))
    short = np.flatnonzero(rows[1]["records"] == 2)[0]
    mel = rows[1]["spectrogram"][short]
    np.testing.assert_allclose(mel[:, 0, 0], 8000 + np.arange(100) % 40)  # 10 frames, 40 rows
    for shades, number in zip(rows[1]["rgb"][short], (0, 5, 0, 5, 0), strict=True):  # frames 0, 5, 10, 15, 20
        np.testing.assert_allclose(shades, frame(8, number)[0, 0, 0], atol=2)
    assert rows[1]["rgb_valid"][short] == np.float32(2 / 5)
    assert rows[1]["spectrogram_valid"][short] == np.float32(0.4)


def test_frames_at_a_fixed_stride_with_sound_of_another_length(root):
    config = make_config(root, frames=4, stride=2.0, alignment="proportion")
    batch = next(eval_batches(reader_of(root, config, "test"), config, views=2))
    rows = batch["spectrogram"][:2, 0, 0, 0]
    np.testing.assert_array_equal(rows, [0, 140])  # of 240 rows the last 100; of 60 frames the last 8
    for shades, number in zip(batch["rgb"][1], (52, 54, 56, 58), strict=True):
        np.testing.assert_allclose(shades, frame(0, number)[0, 0, 0], atol=2)


def test_sound_that_is_wrapped_goes_on_at_the_beginning(root):
    """In training; of 60 frames and 240 rows a window of 100 rows from the 40th frame on has 80 rows and 20 more."""
    config = make_config(root, frames=4, stride=2.0, alignment="wrapped")
    wrapped = 0
    for batch in itertools.islice(train_batches(reader_of(root, config), config), 4):
        for mel, valid in zip(batch["spectrogram"][:, :, 0, 0], batch["spectrogram_valid"], strict=True):
            rows, base = mel - 1000 * (mel[0] // 1000), round(float(valid) * len(mel))
            np.testing.assert_allclose(np.diff(rows[:base]), 1)
            if base < len(rows):
                wrapped += 1
                np.testing.assert_allclose(rows[base : base + 1], 0)
    assert wrapped > 2


def one_clip(tmp_path, clip: FakeClip, labels=LABELS):
    write_snapshot(tmp_path, {"train": [clip], "test": []}, labels, num_shards=1)
    return make_config(tmp_path)


@pytest.mark.parametrize("labels", [(), (0, 2)])
def test_cross_entropy_needs_one_label(tmp_path, labels):
    config = one_clip(tmp_path, fake_clip(0, labels=labels))
    batch = next(train_batches(reader_of(tmp_path, config), config))
    np.testing.assert_array_equal(np.flatnonzero(batch["labels"][0]), labels)
    config.loss.name = "ce"
    with pytest.raises(RunError, match=r"clip clip-0: has \d labels; .* use bce"):
        next(train_batches(reader_of(tmp_path, config), config))


def test_two_heads_need_one_label_each(tmp_path):
    classes = tuple("abcde")
    config = one_clip(tmp_path / "right", fake_clip(0, labels=(1, 2)), classes)  # of the heads {0, 1} and {2, 3, 4}
    config.loss.name = "ce"
    config.model.head_sizes = (2, 3)
    batch = next(train_batches(reader_of(tmp_path / "right", config), config))
    np.testing.assert_array_equal(batch["labels"][0], [0, 1, 1, 0, 0])
    one_clip(tmp_path / "wrong", fake_clip(0, labels=(0, 1)), classes)
    with pytest.raises(RunError, match="has 2 labels of head 0"):
        next(train_batches(reader_of(tmp_path / "wrong", config), config))


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


def test_more_shards_than_may_be_mapped(tmp_path, monkeypatch):
    """Linux grants 65,530 maps, fewer than AudioSet has shards: those of indices that are not in use are given back."""
    monkeypatch.setattr(snapshot, "MAPPED", 2)
    write_snapshot(tmp_path, {"train": [fake_clip(number) for number in range(6)]}, LABELS, num_shards=6)
    records = Records(str(tmp_path), load_manifest(str(tmp_path), "latest").splits["train"])
    ids, (numbers, labels) = records.ids(), records.label_pairs()
    assert len(ids) == 6 and numbers.tolist() == list(range(6)) and labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert [index.ids[row] for _, index, row in map(records.locate, range(6))] == ids
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert len({line.split()[-1] for line in maps.splitlines() if str(tmp_path) in line}) == 2


def test_more_shards_than_files_that_may_be_open(tmp_path):
    """Each index that is mapped is one."""
    count = 120
    write_snapshot(tmp_path, {"train": [fake_clip(0)] * count}, LABELS, num_shards=count)
    split = load_manifest(str(tmp_path), "latest").splits["train"]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + count // 2, limits[1]))
    try:
        assert len(Records(str(tmp_path), split).ids()) == count
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
