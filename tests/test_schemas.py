import dataclasses
import io
import json

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbt.schemas import index as shard_index
from mbt.schemas import own_json, tfrecord
from mbt.schemas.clip import num_frames, num_mel_rows
from mbt.schemas.holder import Holder
from mbt.schemas.manifest import (
    Amendment,
    Dataset,
    Encoding,
    FormatError,
    Manifest,
    Shard,
    ShardChange,
    Split,
    mean_and_stddev,
)

pytestmark = pytest.mark.quick


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_tfrecord_roundtrip(payloads):
    file = b"".join(before + payload + after for payload in payloads for before, after in [tfrecord.frame(payload)])
    assert list(tfrecord.read_records(io.BytesIO(file))) == payloads


@given(st.binary(min_size=1, max_size=50), st.data())
def test_tfrecord_notices_every_flipped_byte_and_every_cut(payload, data):
    before, after = tfrecord.frame(payload)
    file = bytearray(before + payload + after)
    place = data.draw(st.integers(0, len(file) - 1))
    with pytest.raises(tfrecord.CorruptRecordError):
        list(tfrecord.read_records(io.BytesIO(file[:place] if place else file[:5])))
    file[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(tfrecord.CorruptRecordError):
        list(tfrecord.read_records(io.BytesIO(file)))


def small_index() -> shard_index.Index:
    records = np.zeros(2, shard_index.RECORD)
    records["first_piece"], records["num_frames"], records["num_steps"] = [0, 3], [2, 1], [1, 2]
    records["first_label"], records["num_labels"] = [0, 1], [1, 2]
    records["mel_sum"], records["mel_sum_of_squares"] = [0.5, 1], [2, 0.5]
    records["inputs"] = [bytes(range(16)), bytes(16)]
    return shard_index.Index(
        records=records,
        pieces=np.array([(place, 10, place) for place in range(6)], shard_index.PIECE),
        labels=np.array([7, 8, 9], np.int32),
        ids=("a", "b\u00e9"),
        absent=(
            {"id": "c", "outcome": "unusable", "reason": "no_audio", "detail": "", "rule": 2, "inputs": "0f" * 16},
        ),
        treatments={"b\u00e9": ("deinterlaced", "tone_mapped")},
        shard_bytes=99,
        shard_crc32c=0xFFFFFFFF,
    )


def test_index_roundtrip_finds_each_records_pieces():
    index = shard_index.load(shard_index.dump(small_index()))
    assert index.frames(1)["offset"].tolist() == [3]
    assert index.steps(0)["offset"].tolist() == [2]
    assert index.steps(1)["offset"].tolist() == [4, 5]
    assert index.record_labels(1).tolist() == [8, 9]
    assert (index.ids, index.absent) == (small_index().ids, small_index().absent)
    assert index.treatments == small_index().treatments and index.version == 3
    assert index.mel_sums() == (1.5, 2.5)
    assert (index.shard_bytes, index.shard_crc32c) == (99, 0xFFFFFFFF)
    assert index.inputs() == {"a": bytes(range(16)), "b\u00e9": bytes(16), "c": b"\x0f" * 16}


def test_an_index_of_the_version_before_says_less():
    old = dataclasses.replace(small_index(), version=2)
    index = shard_index.load(shard_index.dump(old))
    assert index.treatments == {} and index.absent == (small_index().absent[0] | {"rule": 1},)
    assert shard_index.dump(index) == shard_index.dump(old)
    assert index.inputs() == small_index().inputs()
    for version in (1, 4):
        with pytest.raises(shard_index.CorruptIndexError, match=f"index version {version}, expected 2 to 3"):
            shard_index.load(shard_index.dump(dataclasses.replace(old, version=version)))


def sealed(body: bytes) -> bytes:
    """The bytes of an index file whose checksum is right."""
    return body + google_crc32c.value(body).to_bytes(4, "little")


def test_an_index_takes_no_memory_on_its_word():
    whole = shard_index.dump(small_index())[:-4]
    for place in (16, 24, 32):  # the counts of pieces, labels and characters
        body = bytearray(whole)
        body[place : place + 8] = (1 << 40).to_bytes(8, "little")
        with pytest.raises(shard_index.CorruptIndexError, match="not as long as its header says"):
            shard_index.load(sealed(bytes(body)))
    large = small_index()
    large.records["height"], large.records["width"] = 5000, 5000
    with pytest.raises(shard_index.CorruptIndexError, match="over 16 megapixels"):
        shard_index.load(shard_index.dump(large))
    with pytest.raises(shard_index.CorruptIndexError, match="nested too deeply"):
        shard_index.load(sealed(with_strings(b"[" * 200_000)))


def with_strings(strings: bytes) -> bytes:
    """The body of an index file with other JSON."""
    whole = shard_index.dump(small_index())[:-4]
    length = int.from_bytes(whole[32:40], "little")
    return whole[:32] + len(strings).to_bytes(8, "little") + whole[40 : len(whole) - length] + strings


def test_a_dataset_knows_how_each_snapshot_was_made():
    first = Dataset(name="d", num_shards={"train": 1}, salt="s", labels=("a",), encoder={"q": 3}, canary="c")
    second = first.made_by(Encoding(encoder={"q": 5}, canary="e", index_version=3, rules=2))
    third = second.made_by(dataclasses.replace(second.encoding, rules=3))
    assert third.made_by(third.encoding) is third
    third = Dataset.from_json(dataclasses.replace(third, labels=("a", "b")).to_json())
    manifests = [empty_manifest(number) for number in range(4)]
    made = [third.as_of(manifest) for manifest in manifests[:3]]
    assert [each.encoding for each in made] == [first.encoding, second.encoding, third.encoding]
    assert [len(each.former) for each in made] == [0, 1, 2] and all(each.labels == ("a", "b") for each in made)
    # Newer rules alone make other shards of the same records.
    assert len({each.identity for each in made}) == 2 and made[1].identity == made[2].identity
    assert len({each.shard_identity for each in made}) == 3 and made[0].shard_identity == made[0].identity
    with pytest.raises(FormatError, match=r"dataset\.json does not say how the records of snapshot s were made"):
        third.as_of(manifests[3])


def empty_manifest(encoding: int) -> Manifest:
    return Manifest(
        dataset="d",
        snapshot="s",
        parent=None,
        created="",
        labels=("a",),
        splits={},
        annotations_sha256="",
        tool_versions={},
        encoding=encoding,
    )


@given(st.data())
def test_index_notices_damage(data):
    file = bytearray(shard_index.dump(small_index()))
    place = data.draw(st.integers(0, len(file) - 1))
    with pytest.raises(shard_index.CorruptIndexError):
        shard_index.load(bytes(file[:place]))
    file[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(shard_index.CorruptIndexError):
        shard_index.load(bytes(file))


def test_manifest_and_dataset_roundtrip_and_refuse_other_versions():
    shard = Shard(path="a", index_path="b", num_records=1, bytes=2, crc32c="0", index_crc32c="1", fingerprint="f")
    split = Split(shards=(shard,), num_clips=2, num_records=1, lost={"gone/http_404": 1}, mel_mean=0.5, mel_stddev=2.0)
    change = ShardChange(old_path="b", old_crc32c="1", new_path="a", new_crc32c="0")
    amendment = Amendment(
        time="2026-01-02", reason="r", num_clips=1, shards=(change,), old_clips_sha256="1", new_clips_sha256="2"
    )
    manifest = Manifest(
        dataset="d",
        snapshot="s",
        parent=None,
        created="2026-01-01T00:00:00+00:00",
        labels=("x", "y"),
        splits={"train": split},
        annotations_sha256="0",
        tool_versions={"numpy": "2"},
        amended=(amendment,),
    )
    assert Manifest.from_json(manifest.to_json()) == manifest
    dataset = Dataset(name="d", num_shards={"train": 4}, salt="d", labels=("x",), encoder={"a": 1}, canary="c")
    assert Dataset.from_json(dataset.to_json()) == dataset
    with pytest.raises(FormatError, match="format version"):
        Manifest.from_json(manifest.to_json().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(FormatError, match="lacks name"):
        Dataset.from_json(dataset.to_json().replace('"name"', '"nom"'))
    with pytest.raises(FormatError, match="not JSON"):
        Manifest.from_json("{")
    for word, damaged in (
        ('"num_records"', '"mun_records"'),
        ('"parent": null', '"other": 1, "parent": null'),
        ('"encoding": 0', '"encoding": -1'),
        ('"encoding": 0', '"encoding": "first"'),
    ):
        with pytest.raises(FormatError, match="is not as it was written"):
            Manifest.from_json(manifest.to_json().replace(word, damaged))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../other/x", "shards/../../x", "./x", "", "shards//x", "gs://bucket/x", "shards/..", "a\0b", 7],
)
@pytest.mark.parametrize("field", ["path", "index_path"])
def test_a_manifest_leads_to_no_file_outside_of_root(path, field):
    shard = {"path": "shards/a", "index_path": "shards/a.index", "num_records": 0, "bytes": 0, "crc32c": ""}
    split = {"shards": [shard | {"index_crc32c": "", "fingerprint": "", field: path}], "num_clips": 0}
    split |= {"num_records": 0, "lost": {}, "mel_mean": 0.0, "mel_stddev": 1.0}
    with pytest.raises(FormatError, match=r"not as it was written|below ROOT"):
        Manifest.from_json(manifest_text(splits={"train": split}))
    shard[field] = "shards/b"
    assert Manifest.from_json(manifest_text(splits={"train": split | {"shards": []}})).splits["train"].shards == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"snapshot": "../../elsewhere"}, "is of another snapshot"),
        ({"snapshot": "second"}, "is of another snapshot"),
        ({"splits": {"../train": {}}}, "no part of a path"),
        ({"splits": {"train": {"shards": [{"num_records": -1}]}}}, "not as it was written"),
    ],
)
def test_a_manifest_is_of_its_folder_and_of_plain_names(changes, said):
    with pytest.raises(FormatError, match=said):
        Manifest.from_json(manifest_text(**changes), "first")


def test_a_file_of_a_million_brackets_is_refused():
    with pytest.raises(FormatError, match="nested too deeply"):
        Manifest.from_json("[" * 1_000_000)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500])
def test_what_is_nested_too_deeply_is_refused_by_every_reader(text):
    for read in (own_json.parse, Dataset.from_json, Manifest.from_json):
        with pytest.raises(ValueError, match=r"nested too deeply to be one of ours"):
            read(text.encode())
    assert Holder.from_json(text.encode()) is None


def test_of_what_is_ours_every_depth_is_read():
    value: object = 1
    for _ in range(own_json.DEEPEST):
        value = [value]
    assert own_json.parse(json.dumps(value)) == value
    with pytest.raises(ValueError, match="nested too deeply"):
        own_json.parse(json.dumps([value]))


@pytest.mark.parametrize("name", ["labels", "splits", "tool_versions", "unassigned", "created", "parent", "amended"])
@pytest.mark.parametrize("value", [3, {"a": None}, [[]]])
def test_a_field_of_another_type_is_named(name, value):
    with pytest.raises(FormatError, match=r"^manifest\.json is not as it was written: [^\n]*$"):
        Manifest.from_json(manifest_text(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_shards", value) for value in (3, {"train": "8"})),
        ("salt", 1),
        ("labels", [1]),
        ("encoder", []),
        ("rules", "2"),
    ],
)
def test_a_dataset_of_other_types_is_refused(name, value):
    fields = {
        "format_version": 1,
        "name": "d",
        "num_shards": {},
        "salt": "d",
        "labels": [],
        "encoder": {},
        "canary": "",
    }
    assert Dataset.from_json(json.dumps(fields)).name == "d"
    with pytest.raises(FormatError, match=r"^dataset\.json is not as it was written: "):
        Dataset.from_json(json.dumps(fields | {name: value}))


@pytest.mark.parametrize("strings", [b"[]", b"{}", b'{"ids": 1, "absent": []}', b"\xff"])
def test_an_index_whose_json_is_not_ours_is_corrupt(strings):
    """With a checksum that is right: whoever wrote it meant it."""
    with pytest.raises(shard_index.CorruptIndexError, match="JSON is not as it was written"):
        shard_index.load(sealed(with_strings(strings)))


def manifest_text(**changes) -> str:
    fields = {"format_version": 1, "dataset": "d", "snapshot": "first", "parent": None, "created": "2026"}
    fields |= {"labels": [], "splits": {}, "annotations_sha256": "", "tool_versions": {}}
    return json.dumps(fields | changes)


@given(st.integers(1, 10**9))
def test_counts_are_the_rounded_products(duration_us):
    assert abs(num_frames(duration_us) - max(1, duration_us * 25 / 1e6)) <= 0.5 + 1e-9 or num_frames(duration_us) == 1
    assert (
        abs(num_mel_rows(duration_us) - max(1, duration_us * 100 / 1e6)) <= 0.5 + 1e-9 or num_mel_rows(duration_us) == 1
    )


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=50))
def test_mean_and_stddev(values):
    mean, stddev = mean_and_stddev(sum(values), sum(value * value for value in values), len(values))
    assert mean == pytest.approx(np.mean(values), abs=1e-6)
    assert stddev == pytest.approx(np.std(values), abs=1e-5) or np.std(values) < 1e-5
