"""A shard merged from its predecessor has the bytes of one that is built from nothing; the same through the command."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbt.pipeline import assemble, plan
from mbt.pipeline.annotations.rows import Row
from mbt.pipeline.media import digest_of
from mbt.pipeline.shard import COPIED, DECODED, RELABELLED, Builder
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Clip
from mbt.schemas.manifest import Dataset, Manifest, Shard, Split

LABELS = ("a", "b", "c")
MEDIA_ROOT = "/videos"  # the media of each day lie elsewhere
IDS = [f"clip-{number}" for number in range(7)]


@pytest.fixture(scope="module")
def media(make_media, tmp_path_factory) -> list[Path]:
    """Three clips of a fifth of a second, and a file that can never be one."""
    folder = tmp_path_factory.mktemp("media")
    made = [make_media(folder / f"{n}.mp4", seconds=0.2, audio=f"sine=frequency={300 * n + 300}") for n in range(3)]
    (folder / "text.mp4").write_text("not a clip")
    return [*made, folder / "text.mp4"]


@dataclasses.dataclass(frozen=True)
class State:
    """One clip, on one day."""

    media: int
    start_us: int
    labels: tuple[str, ...]


def states(media: list[Path]):
    one = st.builds(
        State,
        st.integers(0, len(media) - 1),
        st.sampled_from([0, 40_000]),
        st.sampled_from([("a",), ("b",), ("a", "c")]),
    )
    return st.dictionaries(st.sampled_from(IDS), one, max_size=len(IDS))


def planned(state: dict[str, State], media: list[Path], num_shards: int) -> tuple[pa.Table, Dataset]:
    """The sorted plan of a day: a clip's source keeps its name, and what lies there may change."""
    dataset = Dataset(name="d", num_shards={"train": num_shards}, salt="s", labels=LABELS, encoder={}, canary="")
    rows = [
        Row(
            file="clips.csv",
            line=line,
            clip=Clip(
                id=clip_id,
                split="train",
                source=f"{MEDIA_ROOT}/{clip_id}.mp4",
                start_us=clip.start_us,
                end_us=160_000,
                labels=clip.labels,
            ),
        )
        for line, (clip_id, clip) in enumerate(state.items(), 2)
    ]
    table = plan.clip_table(rows, dataset.salt)
    files = [str(media[state[clip_id].media]) for clip_id in table["id"].to_pylist()]
    digests = [digest_of(file)[0][:32] for file in files]
    columns = dict(zip(table.column_names, table.columns, strict=True))
    values = {"outcome": ["ok"] * len(table), "media": files, "digest": digests}
    columns |= {name: pa.chunked_array([pa.array(value, pa.string())]) for name, value in values.items()}
    columns["media_start_us"] = pa.chunked_array([pa.repeat(pa.scalar(0, pa.int64()), len(table))])
    return assemble.with_label_indices(plan.with_shards(columns, dataset), dataset), dataset


def builder(root: Path, program: str) -> Builder:
    return Builder(root=str(root), dataset_name="d", media_root=MEDIA_ROOT, program=program, threads=2, time_limit_s=60)


def snapshot_of(tasks: list[plan.Task]) -> Manifest:
    """As much of a manifest as planning reads."""
    sums = {"crc32c": "", "index_crc32c": "", "fingerprint": ""}
    empty = Shard(path="shards/x", index_path="shards/x.index", num_records=0, bytes=0, **sums)
    shards = tuple(dataclasses.replace(empty, path=f"shards/{task.stem}.tfrecord") for task in tasks)
    split = Split(shards=shards, num_clips=0, num_records=0, lost={}, mel_mean=0, mel_stddev=1)
    return Manifest(
        dataset="d",
        snapshot="s",
        parent=None,
        created="",
        labels=LABELS,
        splits={"train": split},
        annotations_sha256="",
        tool_versions={},
    )


def build_all(root: Path, table: pa.Table, tasks: list[plan.Task], program: str) -> list:
    made = builder(root, program)
    built = []
    for task in tasks:
        rows = table.slice(task.first_row, task.num_rows).to_pylist()
        built.append(made.build(task, [plan.with_digests(row, task.identity, MEDIA_ROOT) for row in rows]))
    return built


def shard_bytes(root: Path, stem: str) -> tuple[bytes, bytes]:
    return tuple((root / "shards" / f"{stem}{kind}").read_bytes() for kind in (".tfrecord", ".index"))


def homes(tasks: list[plan.Task], built: list) -> dict[str, int]:
    """Clip id to the number of its shard."""
    return {
        clip_id: task.shard
        for task, shard in zip(tasks, built, strict=True)
        for clip_id in [*shard.index.ids, *(clip["id"] for clip in shard.index.absent)]
    }


@pytest.fixture(scope="module")
def from_nothing(ffmpeg_program, tmp_path_factory):
    """Builds without a predecessor; a shard of the same inputs, which has the same name, is built once."""
    known: dict[str, tuple[bytes, bytes]] = {}

    def reference(table: pa.Table, task: plan.Task) -> tuple[bytes, bytes]:
        if task.stem not in known:
            root = tmp_path_factory.mktemp("fresh")
            alone = dataclasses.replace(task, predecessor=None)
            build_all(root, table, [alone], ffmpeg_program)
            known[task.stem] = shard_bytes(root, task.stem)
            shutil.rmtree(root)
        return known[task.stem]

    return reference


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), num_shards=st.integers(1, 16))
def test_after_every_step_of_a_history_the_bytes_are_those_of_a_build_from_nothing(
    media, ffmpeg_program, from_nothing, tmp_path_factory, data, num_shards
):
    root = tmp_path_factory.mktemp("history")
    parent, homes_before, files_before = None, {}, {}
    for _ in range(data.draw(st.integers(2, 4), label="days")):
        state = data.draw(states(media), label="state")
        table, dataset = planned(state, media, num_shards)
        tasks = list(plan.tasks(table, dataset, MEDIA_ROOT, parent))
        assert len(tasks) == num_shards
        built = build_all(root, table, tasks, ffmpeg_program)
        for task, shard in zip(tasks, built, strict=True):
            assert shard_bytes(root, task.stem) == from_nothing(table, task)
            assert shard_index.dump(shard.index) == shard_bytes(root, task.stem)[1]
        now = homes(tasks, built)
        assert sorted(now) == sorted(state)
        assert all(homes_before.get(clip_id, shard) == shard for clip_id, shard in now.items())
        files = {path.name: path.stat().st_ino for path in (root / "shards").iterdir()}
        assert files_before.items() <= files.items()
        parent, files_before = snapshot_of(tasks), files
        homes_before |= now
    shutil.rmtree(root)


@pytest.fixture
def two_days(media, ffmpeg_program, tmp_path):
    """build(state) builds a day on top of the one before, in one shard, and counts."""
    parents: list[Manifest | None] = [None]

    def build(state: dict[str, State], program: str = ffmpeg_program) -> tuple[plan.Task, dict]:
        table, dataset = planned(state, media, 1)
        (task,) = plan.tasks(table, dataset, MEDIA_ROOT, parents[-1])
        (built,) = build_all(tmp_path, table, [task], program)
        parents.append(snapshot_of([task]))
        return task, dict(built.counts)

    return build


FIVE = {clip_id: State(number % 3, 0, ("a",)) for number, clip_id in enumerate(IDS[:5])}


def test_only_what_is_new_is_decoded(two_days):
    assert two_days(FIVE | {"bad": State(3, 0, ("a",))})[1] == {DECODED: 6}
    _, counts = two_days(FIVE | {"bad": State(3, 0, ("b",)), "new": State(0, 0, ("a",))})
    assert counts == {COPIED: 6, DECODED: 1}  # an unusable file stays so, whatever its label is
    _, counts = two_days(FIVE | {IDS[0]: State(0, 0, ("b",)), IDS[1]: State(1, 40_000, ("a",))})
    assert counts == {COPIED: 3, RELABELLED: 1, DECODED: 1}


def test_neither_copying_nor_relabelling_decodes(two_days):
    two_days(FIVE)
    _, counts = two_days(FIVE | {IDS[0]: State(0, 0, ("c",))}, program="/no/ffmpeg")
    assert counts == {COPIED: 4, RELABELLED: 1}


def test_a_damaged_record_is_decoded_anew_and_not_copied(two_days, media, from_nothing, tmp_path):
    task, _ = two_days(FIVE)
    path = tmp_path / "shards" / f"{task.stem}.tfrecord"
    index = shard_index.load(path.with_suffix(".index").read_bytes())
    flipped = bytearray(path.read_bytes())
    flipped[int(index.records[2]["offset"]) + 5000] ^= 1
    path.write_bytes(flipped)
    state = {clip_id: FIVE[clip_id] for clip_id in index.ids} | {"new": State(0, 0, ("a",))}
    task, counts = two_days(state)
    assert counts == {COPIED: 4, DECODED: 2}
    table, _ = planned(state, media, 1)
    assert shard_bytes(tmp_path, task.stem) == from_nothing(table, task)


@pytest.mark.parametrize("damage", ["index", "shard", "version"])
def test_a_predecessor_that_cannot_be_read_is_as_none(two_days, damage, tmp_path):
    task, _ = two_days(FIVE)
    path = tmp_path / "shards" / f"{task.stem}.{'tfrecord' if damage == 'shard' else 'index'}"
    if damage == "version":
        data = bytearray(path.read_bytes())
        data[8] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    assert two_days({**FIVE, "new": State(0, 0, ("a",))})[1] == {DECODED: 6}


@given(st.integers(100_000, 10_000_000))
def test_on_paper_a_fifth_of_a_percent_of_changes_rewrites_less_than_a_tenth(num_clips):
    """Of clips of 10 s with the default number of shards; as expected of a hash that spreads them evenly."""
    table = pa.table({"split": ["train"], "start_us": [0], "end_us": [num_clips * 10_000_000]})
    shards = plan.num_shards(table)["train"]
    untouched = (1 - 1 / shards) ** (0.002 * num_clips)
    assert shards.bit_count() == 1 and 1 - untouched < 0.1


def newest(root: Path) -> Manifest:
    manifests = [Manifest.from_json(path.read_text()) for path in root.glob("snapshots/*/manifest.json")]
    return max(manifests, key=lambda manifest: manifest.created)


def test_through_the_command(mbt_data, write_csv, clip_folder, six_rows, tmp_path):
    """Counts are printed, unchanged shards are the same files, and the manifest is that of a build from nothing."""
    shutil.copytree(clip_folder, tmp_path / "media")

    def build(output: str, *words: str):
        required = [f"--annotations={tmp_path}/clips.csv", f"--media_root={tmp_path}/media"]
        done = mbt_data("build", *required, f"--output={tmp_path}/{output}", "--num_shards=2", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    write_csv(tmp_path / "clips.csv", six_rows)
    assert "6 clips decoded, 0 copied" in build("out")
    before = {path: path.stat().st_ino for path in (tmp_path / "out/shards").iterdir()}
    rows = [dict(row) for row in six_rows]
    rows[1] |= {"end": 0.6}
    rows[2] |= {"label": "odd"}
    write_csv(tmp_path / "clips.csv", rows)
    result = json.loads(build("out", "--json"))
    assert (result["clips_decoded"], result["clips_relabelled"]) == (1, 1)
    changed = set(os.listdir(tmp_path / "out/shards")) - {path.name for path in before}
    held = sum(
        len(shard_index.load((tmp_path / "out/shards" / name).read_bytes()).ids)
        for name in changed
        if name.endswith(".index")
    )
    assert result["clips_copied"] == held - 2
    assert all(path.stat().st_ino == inode for path, inode in before.items())
    build("fresh")
    merged, fresh = newest(tmp_path / "out"), newest(tmp_path / "fresh")
    assert merged.splits == fresh.splits and merged.clips_sha256 == fresh.clips_sha256
    for split in fresh.splits.values():
        for shard in split.shards:
            for path in (shard.path, shard.index_path):
                assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "fresh" / path).read_bytes()
    table = pq.read_table(tmp_path / "out/snapshots" / merged.snapshot / "clips.parquet").to_pylist()
    assert all(len(row["inputs"]) == shard_index.DIGEST_BYTES for row in table)
