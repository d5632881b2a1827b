"""`mbt-data verify`: every flipped byte is found and named, and repaired to the identical file."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbt.pipeline import jpegs, shard_file, snapshot
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.verify import ALL, Report, VerifyOptions, verify
from mbt.schemas import index as shard_index
from mbt.schemas.manifest import Dataset, Manifest
from mbt.schemas.tfrecord import FOOTER_BYTES, HEADER_BYTES


@pytest.fixture(scope="module")
def built(mbt_data, write_csv, clip_folder, make_media, six_rows, tmp_path_factory) -> Path:
    """The six clips and a mute one, which only decoding shows to be unusable: `out`, made of `media`."""
    folder = tmp_path_factory.mktemp("verify")
    shutil.copytree(clip_folder, folder / "media")
    make_media(folder / "media" / "mute.mp4", audio=None)
    write_csv(folder / "clips.csv", [*six_rows, six_rows[0] | {"video_path": "mute.mp4", "id": "mute"}])
    done = mbt_data("build", f"--annotations={folder}/clips.csv", f"--media_root={folder}/media", *output(folder))
    assert done.returncode == 0, done.stderr
    return folder


def output(folder: Path) -> tuple[str, ...]:
    return f"--output={folder}/out", "--num_shards=2", "--snapshot=first"


@pytest.fixture
def root(built, tmp_path) -> Path:
    """A copy of the dataset, to damage."""
    return Path(shutil.copytree(built / "out", tmp_path / "out"))


def check(root: Path, **options) -> Report:
    return verify(VerifyOptions(root=str(root), threads=2, **options))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def manifest_of(root: Path) -> Manifest:
    return Manifest.from_json((root / "snapshots/first/manifest.json").read_text())


def shards(root: Path) -> list:
    return [shard for split in manifest_of(root).splits.values() for shard in split.shards]


def biggest(root: Path):
    return max(shards(root), key=lambda shard: shard.num_records)


def load(root: Path, shard) -> shard_index.Index:
    return shard_index.load((root / shard.index_path).read_bytes())


def flip(path: Path, at: int, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def owner(index: shard_index.Index, at: int) -> str:
    """Whose record a byte of the shard belongs to, with the framing around it."""
    for clip_id, row in zip(index.ids, index.records, strict=True):
        if row["offset"] - HEADER_BYTES <= at < row["offset"] + row["length"] + FOOTER_BYTES:
            return clip_id
    raise AssertionError(at)


def test_a_whole_dataset_is_well(built, mbt_data):
    before = contents(built / "out")
    done = mbt_data("verify", f"--output={built}/out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["problems"], report["num_records"], report["num_shards"]) == ([], 6, 4)
    assert "all is well" in mbt_data("verify", f"--output={built}/out", "--snapshot=all").stdout
    assert contents(built / "out") == before


def regions_of_shard(index: shard_index.Index, place: int) -> dict[str, tuple[int, int]]:
    """Of a record, every kind of bytes that stand in the file: from and to."""
    row = index.records[place]
    first, end = int(row["offset"]), int(row["offset"] + row["length"])
    spans = {"frames": index.frames(place), "spectrogram": index.steps(place)}
    found = {
        name: (int(rows["offset"][0]), int(rows["offset"][-1] + rows["length"][-1])) for name, rows in spans.items()
    }
    header = first - HEADER_BYTES
    framing = {"length": (header, header + 8), "checksum of the length": (header + 8, first)}
    return (
        framing | found | {"beginning": (first, first + 64), "any": (first, end), "footer": (end, end + FOOTER_BYTES)}
    )


def regions_of_index(index: shard_index.Index) -> dict[str, tuple[int, int]]:
    """Every part of an index file that has bytes."""
    total = len(shard_index.dump(index))
    arrays = {"records": index.records.nbytes, "pieces": index.pieces.nbytes, "labels": index.labels.nbytes}
    found, end = {"header": (0, INDEX_HEADER_BYTES), "checksum": (total - 4, total)}, INDEX_HEADER_BYTES
    for name, size in arrays.items():
        found[name], end = (end, end + size), end + size
    found["ids"] = (end, total - 4)
    return {name: span for name, span in found.items() if span[0] < span[1]}


INDEX_HEADER_BYTES = 52
FLIPS = [12, pytest.param(150, marks=pytest.mark.slow)]


@pytest.mark.parametrize("examples", FLIPS)
def test_any_flipped_byte_of_a_shard_is_named_and_repaired(built, tmp_path_factory, examples):
    @settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def flipped(data) -> None:
        root = Path(shutil.copytree(built / "out", tmp_path_factory.mktemp("flip") / "out"))
        before = contents(root)
        shard = data.draw(st.sampled_from([shard for shard in shards(root) if shard.num_records]))
        index = load(root, shard)
        places = regions_of_shard(index, data.draw(st.integers(0, len(index.ids) - 1)))
        first, end = places[data.draw(st.sampled_from(sorted(places)))]
        at = data.draw(st.integers(first, end - 1))
        flip(root / shard.path, at, data.draw(st.integers(1, 255)))
        (problem,) = check(root).problems
        assert (problem.file, problem.clips, problem.snapshots) == (shard.path, (owner(index, at),), ("first",))
        report = check(root, repair=True)
        assert report.repaired == (shard.path.removesuffix(".tfrecord"),) and report.num_left == 0
        assert contents(root) == before
        shutil.rmtree(root)

    flipped()


@pytest.mark.parametrize("examples", FLIPS)
def test_any_flipped_byte_of_an_index_is_named_and_repaired(built, tmp_path_factory, examples):
    @settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def flipped(data) -> None:
        root = Path(shutil.copytree(built / "out", tmp_path_factory.mktemp("flip") / "out"))
        before = contents(root)
        shard = data.draw(st.sampled_from(shards(root)))
        places = regions_of_index(load(root, shard))
        first, end = places[data.draw(st.sampled_from(sorted(places)))]
        flip(root / shard.index_path, data.draw(st.integers(first, end - 1)), data.draw(st.integers(1, 255)))
        (problem,) = check(root).problems
        assert problem.file == shard.index_path
        assert check(root, repair=True).num_left == 0
        assert contents(root) == before
        shutil.rmtree(root)

    flipped()


def test_the_manifest_tells_indices_apart(built):
    assert len({shard.index_crc32c for shard in shards(built / "out")}) == len(shards(built / "out"))


@pytest.mark.parametrize("kind", [".index", ".tfrecord"])
def test_the_files_of_two_shards_in_each_others_place(root, built, kind):
    """Every checksum in them is right; and an index alone is made again without media."""
    before = contents(root)
    one, other = (root / shard.path for shard in shards(root) if shard.num_records > 1)
    one, other = one.with_suffix(kind), other.with_suffix(kind)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert {str(path.relative_to(root)) for path in (one, other)} <= {problem.file for problem in check(root).problems}
    hidden = (built / "media").rename(built / "hidden") if kind == ".index" else None
    try:
        assert check(root, repair=True).not_repaired == {}
    finally:
        if hidden:
            hidden.rename(built / "media")
    assert contents(root) == before


@pytest.mark.parametrize("damage", ["no_shard", "cut", "longer", "no_index", "neither", "all_zero"])
def test_files_that_are_missing_or_of_another_length(root, damage):
    before = contents(root)
    shard = biggest(root)
    index = load(root, shard)
    data = (root / shard.path).read_bytes()
    last = int(index.records[-1]["offset"])
    if damage in ("no_shard", "neither"):
        (root / shard.path).unlink()
    if damage in ("no_index", "neither"):
        (root / shard.index_path).unlink()
    elif damage != "no_shard":
        (root / shard.path).write_bytes(
            {"cut": data[: last + 10], "longer": data + b"x", "all_zero": bytes(len(data))}[damage]
        )
    problems = {problem.file: problem for problem in check(root).problems}
    if damage == "no_index":
        assert set(problems) == {shard.index_path}
    else:
        expected = {"cut": index.ids[-1:], "longer": ()}.get(damage, index.ids)
        assert problems[shard.path].clips == expected
        assert (shard.index_path in problems) == (damage == "neither")
    report = check(root, repair=True)
    assert report.num_left == 0 and report.not_repaired == {}
    assert contents(root) == before


def test_a_damaged_index_is_rebuilt_without_media(root, built, tmp_path):
    """The records are whole, so nothing is decoded: not even the clip that has none."""
    before = contents(root)
    assert [clip["id"] for shard in shards(root) for clip in load(root, shard).absent] == ["mute"]
    for shard in shards(root):
        flip(root / shard.index_path, 60)
    hidden = built / "media"
    hidden.rename(built / "hidden")
    try:
        report = check(root, repair=True)
    finally:
        (built / "hidden").rename(hidden)
    assert len(report.repaired) == 4 and report.num_left == 0
    assert contents(root) == before


@pytest.mark.parametrize("media", ["gone", "changed"])
def test_what_cannot_be_repaired_says_why(root, built, mbt_data, media):
    shard = biggest(root)
    index = load(root, shard)
    flip(root / shard.path, int(index.records[0]["offset"]) + 500)
    before = contents(root)
    path = built / "media" / f"{index.ids[0].removeprefix('clip-')}.mp4"
    path.rename(path.with_suffix(".hidden"))
    if media == "changed":
        shutil.copy(path.with_suffix(".hidden"), path)
        flip(path, 1000)
    try:
        done = mbt_data("verify", f"--output={root}", "--repair")
    finally:
        path.with_suffix(".hidden").replace(path)
    assert done.returncode == 1
    assert f"{shard.path}: the record does not match its checksum: clips {index.ids[0]}" in done.stdout
    assert "not repaired" in done.stdout and str(path) in done.stdout
    assert ("not there any more" if media == "gone" else "has changed since") in done.stdout
    assert contents(root) == before


@pytest.mark.parametrize("name", ["manifest.json", "clips.parquet"])
def test_a_damaged_snapshot(root, name):
    path = root / "snapshots/first" / name
    flip(path, path.stat().st_size // 2 if name == "clips.parquet" else 1)
    problems = check(root, snapshot=ALL).problems
    assert [problem.file for problem in problems] == [f"snapshots/first/{name}"]


def test_a_clip_table_that_does_not_fit_the_shards(root):
    """Digests and counts are right; one record is said to lie where another does."""
    path = root / "snapshots/first/clips.parquet"
    rows = pq.read_table(path).to_pylist()
    ok = [row for row in rows if row["outcome"] == "ok"]
    ok[0]["offset"] += 1
    ok[-1]["id"] = "somebody"
    table = snapshot.pa.Table.from_pylist(rows, pq.read_schema(path))
    pq.write_table(table, path)
    manifest = manifest_of(root)
    changed = dataclasses.replace(manifest, clips_sha256=snapshot.hashlib.sha256(path.read_bytes()).hexdigest())
    (root / "snapshots/first/manifest.json").write_text(changed.to_json())
    details = [problem.detail for problem in check(root).problems]
    assert len(details) == 2
    assert any(f"clip {ok[0]['id']} lies elsewhere" in detail for detail in details)
    assert any("not the clips that the table has" in detail for detail in details)


def test_counts_of_the_manifest(root):
    manifest = manifest_of(root)
    split = dataclasses.replace(manifest.splits["test"], num_clips=99)
    changed = dataclasses.replace(manifest, splits=manifest.splits | {"test": split})
    (root / "snapshots/first/manifest.json").write_text(changed.to_json())
    (problem,) = check(root).problems
    assert "split test" in problem.detail


@pytest.mark.parametrize("field", ["mel_mean", "mel_stddev", "seconds", "longest_s", "class_counts"])
def test_statistics_of_the_manifest(root, field):
    manifest = manifest_of(root)
    train = manifest.splits["train"]
    value = {"even": 99} if field == "class_counts" else getattr(train, field) + 1
    changed = dataclasses.replace(
        manifest, splits=manifest.splits | {"train": dataclasses.replace(train, **{field: value})}
    )
    (root / "snapshots/first/manifest.json").write_text(changed.to_json())
    (problem,) = check(root).problems
    assert "statistics of the split train" in problem.detail


@pytest.mark.parametrize(
    ("change", "detail"), [({"labels": ("odd", "even")}, "labels"), ({"num_shards": {"train": 2, "test": 3}}, "shards")]
)
def test_the_dataset_against_its_snapshots(root, change, detail):
    """By which the next build would give labels other numbers, or clips other shards."""
    path = root / "dataset.json"
    path.write_text(dataclasses.replace(Dataset.from_json(path.read_text()), **change).to_json())
    (problem,) = check(root).problems
    assert problem.file == "dataset.json" and detail in problem.detail


def test_a_shard_is_not_accused_where_only_index_and_clip_table_are_damaged(root):
    shard = biggest(root)
    flip(root / shard.index_path, 60)
    flip(root / "snapshots/first/clips.parquet", 300)
    assert {problem.file for problem in check(root).problems} == {shard.index_path, "snapshots/first/clips.parquet"}


def test_a_damaged_ledger(root):
    (path,) = root.glob("ledger/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    (problem,) = check(root).problems
    assert problem.file == str(path.relative_to(root)) and "cannot be read" in problem.detail


def rewritten(root: Path, shard, change) -> None:
    """Writes a shard anew, whole by all its checksums, with `change` applied to each entry."""
    stem = shard_file.stem_of(shard.path)
    with shard_file.open_shard(str(root), stem) as old:
        entries = [change(old.entry(place)) for place in range(len(old.index.ids))]
        entries += [old.absent_entry(clip_id) for clip_id in old.absent]
    made = snapshot.shard(stem, shard.fingerprint, shard_file.write(str(root), stem, entries))
    manifest = manifest_of(root)
    splits = {
        name: dataclasses.replace(split, shards=tuple(made if one.path == shard.path else one for one in split.shards))
        for name, split in manifest.splits.items()
    }
    text = dataclasses.replace(manifest, splits=splits).to_json()
    (root / "snapshots/first/manifest.json").write_text(text)


def with_garbage_for_a_frame(entry: shard_file.Entry) -> shard_file.Entry:
    record = entry.made
    offset, length, _ = record.pieces[3].tolist()
    payload = record.payload[:offset] + b"no JPEG at all".ljust(length, b"!") + record.payload[offset + length :]
    from mbt.pipeline.record import of_example, parse

    return dataclasses.replace(entry, made=of_example(payload, parse(payload)))


def test_a_frame_that_does_not_decode_though_its_checksum_is_right(root):
    shard = biggest(root)
    rewritten(root, shard, with_garbage_for_a_frame)
    (problem,) = check(root).problems
    assert problem.detail == "frames do not decode: 3" and problem.clips == load(root, shard).ids


@pytest.mark.parametrize("what", ["labels", "rows", "pieces", "sums"])
def test_an_index_that_does_not_agree_with_the_records(root, what):
    def change(entry: shard_file.Entry) -> shard_file.Entry:
        record = entry.made
        if what == "labels":
            return dataclasses.replace(entry, labels=[7])
        if what == "rows":
            return dataclasses.replace(entry, made=dataclasses.replace(record, num_mel_rows=record.num_mel_rows - 1))
        if what == "sums":
            return dataclasses.replace(entry, made=dataclasses.replace(record, mel_sum=record.mel_sum + 1))
        pieces = record.pieces.copy()
        pieces["crc32c"][0] ^= 1
        return dataclasses.replace(entry, made=dataclasses.replace(record, pieces=pieces))

    shard = biggest(root)
    rewritten(root, shard, change)
    (problem,) = check(root).problems
    assert problem.file == shard.path and "index" in problem.detail


def test_another_fingerprint(root):
    shard = biggest(root)
    rewritten(root, shard, lambda entry: dataclasses.replace(entry, inputs=bytes(16)))
    assert any("fingerprint" in problem.detail for problem in check(root).problems)


def test_undecodable_frames_are_told_from_good_ones(ffmpeg_program, clip_folder):
    from mbt.pipeline.decode import decode

    frames = list(decode(str(clip_folder / "0.mp4"), 0, 1_000_000, program=ffmpeg_program).frames)
    assert jpegs.undecodable(frames, ffmpeg_program) == []
    frames[2], frames[7], frames[9] = frames[2][: len(frames[2]) // 2], b"", b"garbage" * 50
    assert jpegs.undecodable(frames, ffmpeg_program) == [2, 7, 9]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output={root}", "--snapshot=none"], "--snapshot=none"),
        (["--output={root}/nowhere"], "holds no dataset"),
        (["--output={root}", "--repair", "--ffmpeg=/none"], "--ffmpeg=/none"),
        (["--output={root}", "--fast"], "--fast"),
    ],
)
def test_refusals(root, mbt_data, words, message):
    before = contents(root)
    done = mbt_data("verify", *(word.format(root=root) for word in words))
    assert done.returncode == 2 and message in done.stderr
    assert contents(root) == before


def test_a_snapshot_that_is_not_there_is_refused(root):
    shutil.rmtree(root / "snapshots")
    with pytest.raises(RefusedError, match="no snapshot"):
        check(root)


@pytest.mark.parametrize("kind", ["index_path", "path"])
def test_a_pipe_in_the_place_of_a_file_is_a_problem(root, kind):
    path = root / getattr(biggest(root), kind)
    path.unlink()
    os.mkfifo(path)
    assert "it is a folder, a pipe or a device" in {problem.detail for problem in check(root, media=False).problems}


def test_a_decoder_that_is_killed_says_nothing_of_the_dataset(root, mbt_data, tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    done = mbt_data("verify", f"--output={root}", f"--ffmpeg={program}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mbt-data: ")]
    assert "signal 9" in line and "run it again" in line
