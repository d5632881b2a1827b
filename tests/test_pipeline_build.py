"""`mbt-data build`, as a user runs it: real processes on real media."""

import collections
import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from media_server import PRIVATE, serving

from mbt.pipeline import ffmpeg, plan
from mbt.schemas import index as shard_index
from mbt.schemas.example import KEYS
from mbt.schemas.manifest import Dataset, Manifest
from mbt.schemas.tfrecord import read_records

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def digests(root: Path, pattern: str = "*") -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "shards").glob(pattern)}


def newest(root: Path) -> Manifest:
    manifests = [Manifest.from_json(path.read_text()) for path in root.glob("snapshots/*/manifest.json")]
    return max(manifests, key=lambda manifest: manifest.created)


def read_shard(path: Path) -> list[bytes]:
    with open(path, "rb") as file:
        return list(read_records(file))


def clip_rows(root: Path) -> dict[str, dict]:
    """By id; rows without one by line."""
    rows = pq.read_table(root / "snapshots" / newest(root).snapshot / "clips.parquet").to_pylist()
    return {row["id"] or f"line {row['line']}": row for row in rows}


@pytest.fixture(scope="module")
def built(mbt_data, write_csv, clip_folder, six_rows, tmp_path_factory) -> Path:
    """A dataset of the six clips, 2 shards a split; the CSV is `clips.csv` in its parent."""
    folder = tmp_path_factory.mktemp("built")
    write_csv(folder / "clips.csv", six_rows)
    done = build(mbt_data, folder, clip_folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def build(mbt_data, folder: Path, media_root: Path, *words: str, output: str = "out", **options):
    required = [f"--annotations={folder}/clips.csv", f"--media_root={media_root}", f"--output={folder}/{output}"]
    return mbt_data("build", *required, "--num_shards=2", *words, **options)


def test_layout_on_disk(built):
    dataset = Dataset.from_json((built / "dataset.json").read_text())
    manifest = newest(built)
    assert dataset.num_shards == {"train": 2, "test": 2} and manifest.labels == ("all", "even", "odd")
    assert not (built / "tmp").exists()
    for name, split in manifest.splits.items():
        assert split.num_records == split.num_clips == (4 if name == "train" else 2)
        for number, shard in enumerate(split.shards):
            assert shard.path == f"shards/{name}-{number:05d}-of-00002-{shard.fingerprint}.tfrecord"
            records = read_shard(built / shard.path)
            assert len(records) == shard.num_records
            assert (built / shard.path).stat().st_size == shard.bytes
            index = shard_index.load((built / shard.index_path).read_bytes())
            for place, payload in enumerate(records):
                row = index.records[place]
                assert (built / shard.path).read_bytes()[row["offset"] :][: row["length"]] == payload
    rows = clip_rows(built)
    assert rows["clip-0"]["outcome"] == "ok" and rows["clip-0"]["labels"] == ["all", "even"]


def test_encoder_settings_are_all_in_dataset_json(built):
    encoder = json.loads((built / "dataset.json").read_text())["encoder"]
    assert encoder["decode"]["frame_rate_hz"] == 25 and encoder["decode"]["shorter_side"] == 256
    assert encoder["logmel"]["mel_bins"] == 128 and encoder["logmel"]["hop_ms"] == 10
    assert "scale" in " ".join(encoder["decode"]["ffmpeg_arguments"])
    assert encoder["ffmpeg"].startswith("n")


def test_plain_tensorflow_reads_the_shards(built):
    files = sorted(str(path) for path in (built / "shards").glob("*.tfrecord"))
    seen = []
    for payload in tf.data.TFRecordDataset(files):
        example = tf.train.SequenceExample.FromString(payload.numpy())
        named = set(example.context.feature) | set(example.feature_lists.feature_list)
        assert named == {key.name for key in KEYS}
        frames = example.feature_lists.feature_list["image/encoded"].feature
        assert [len(tf.io.decode_jpeg(frame.bytes_list.value[0]).shape) for frame in frames] == [3] * 25
        assert len(example.feature_lists.feature_list["melspec/feature/floats"].feature) == 1
        seen.append(example.context.feature["example/id"].bytes_list.value[0].decode())
    assert sorted(seen) == [f"clip-{number}" for number in range(6)]


def test_again_builds_nothing(built, mbt_data, clip_folder):
    before = {path: path.stat().st_mtime_ns for path in (built / "shards").iterdir()}
    done = build(mbt_data, built.parent, clip_folder, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["new"], result["shards_built"], result["shards_reused"]) == (False, 0, 4)
    assert {path: path.stat().st_mtime_ns for path in (built / "shards").iterdir()} == before


def damaged(path: Path, how: str) -> None:
    if how == "flipped":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        path.unlink()
    if how == "a pipe":
        os.mkfifo(path)


@pytest.mark.parametrize("how", ["flipped", "missing", "a pipe"])
def test_again_mends_the_clip_table(built, mbt_data, clip_folder, how):
    path = built / "snapshots" / newest(built).snapshot / "clips.parquet"
    before = path.read_bytes()
    damaged(path, how)
    done = build(mbt_data, built.parent, clip_folder, "--json", timeout=120)
    assert done.returncode == 0, done.stderr
    assert not json.loads(done.stdout)["new"] and path.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (PROCESSES, {}),
        (("--direct_running_mode=multi_threading", "--direct_num_workers=2"), {"OPENBLAS_NUM_THREADS": "1"}),
        ((), {"OPENBLAS_NUM_THREADS": "2", "PATH": "/nowhere"}),
    ],
)
def test_bytes_do_not_depend_on_workers_threads_or_path(built, mbt_data, clip_folder, tmp_path, flags, env):
    shutil.copy(built.parent / "clips.csv", tmp_path)
    command = str(Path(sys.executable).with_name("mbt-data"))
    words = [f"--annotations={tmp_path}/clips.csv", f"--media_root={clip_folder}", f"--output={tmp_path}/out"]
    done = subprocess.run(
        [command, "build", *words, "--num_shards=2", *flags],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(built)


def wrapper(path: Path, text: str) -> Path:
    """An executable shell script; `$FFMPEG` is the embedded ffmpeg."""
    path.write_text(f"#!/bin/sh\nFFMPEG={ffmpeg.executable()}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_bytes_do_not_depend_on_one_worker_or_more(built, mbt_data, clip_folder, tmp_path):
    shutil.copy(built.parent / "clips.csv", tmp_path)
    done = build(mbt_data, tmp_path, clip_folder, "--direct_num_workers=1")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(built)


def test_cpu_flags_before_ours_change_nothing(built, mbt_data, clip_folder, tmp_path):
    shutil.copy(built.parent / "clips.csv", tmp_path)
    program = wrapper(tmp_path / "ffmpeg", 'exec "$FFMPEG" -cpuflags -avx2 "$@"')
    done = build(mbt_data, tmp_path, clip_folder, f"--ffmpeg={program}")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(built)


def test_another_ffmpeg_is_named_before_all_is_decoded_again(own_copy, mbt_data):
    """Also where it is the embedded one, since nobody said --ffmpeg; shards that it made before are still there."""
    folder, media = own_copy
    newer = wrapper(folder / "ffmpeg", '[ "$1" = -version ] && echo ffmpeg version newer && exit\nexec "$FFMPEG" "$@"')
    embedded = ffmpeg.version()
    for words, was, now, decoded in (([f"--ffmpeg={newer}"], embedded, "newer", 6), ([], "newer", embedded, 0)):
        made_by = newest(folder / "out").snapshot
        done = build(mbt_data, folder, media, "--json", *words)
        assert done.returncode == 0, done.stderr
        said = f"snapshot {made_by} was made by another encoder (ffmpeg {was}, and this is {now}: --ffmpeg=PATH names"
        assert done.stderr.startswith(f"mbt-data: {said} the one to use): 6 clips are to be re-encoded"), done.stderr
        assert json.loads(done.stdout)["clips_decoded"] == decoded
        assert "re-encoded" not in build(mbt_data, folder, media, *words).stderr


def test_the_canary_refuses_other_bytes(built, mbt_data, clip_folder, tmp_path):
    """An ffmpeg of the same version whose sound comes out by other instructions."""
    program = wrapper(
        tmp_path / "ffmpeg",
        'for word; do shift; case "$word" in -avx512icl*) word=-avx512icl;; esac; set -- "$@" "$word"; done\n'
        'exec "$FFMPEG" "$@"',
    )
    before = digests(built)
    done = build(mbt_data, built.parent, clip_folder, f"--ffmpeg={program}")
    if "fma" in Path("/proc/cpuinfo").read_text():
        assert done.returncode == 2 and "canary" in done.stderr
    assert digests(built) == before


@pytest.fixture
def own_copy(built, clip_folder, tmp_path):
    """A dataset of its own, to change: (folder with clips.csv and out/, media folder)."""
    shutil.copytree(built.parent, tmp_path / "own")
    shutil.copytree(clip_folder, tmp_path / "media")
    return tmp_path / "own", tmp_path / "media"


@pytest.mark.parametrize("change", ["start", "label", "file"])
def test_one_corrected_row_rebuilds_exactly_its_shard(own_copy, mbt_data, write_csv, make_media, six_rows, change):
    folder, media = own_copy
    assert build(mbt_data, folder, media).returncode == 0  # another media root, the same relative paths and bytes
    before = digests(folder / "out")
    rows = [dict(row) for row in six_rows]
    if change == "start":
        rows[2]["start"] = 0.2
    elif change == "label":
        rows[2]["label"] = "odd"
    else:
        make_media(media / "2.mp4", audio="sine=frequency=2000")
    write_csv(folder / "clips.csv", rows)
    done = build(mbt_data, folder, media, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["shards_built"], result["shards_reused"]) == (1, 3)
    after = digests(folder / "out")
    assert set(before.items()) < set(after.items()) and len(after) == len(before) + 2
    from_nothing = build(mbt_data, folder, media, output="fresh")
    assert from_nothing.returncode == 0, from_nothing.stderr
    current = {
        name
        for split in newest(folder / "out").splits.values()
        for shard in split.shards
        for name in shard_names(shard)
    }
    assert {name: after[name] for name in current} == digests(folder / "fresh")


def shard_names(shard) -> tuple[str, str]:
    return os.path.basename(shard.path), os.path.basename(shard.index_path)


def test_a_media_root_elsewhere_gives_the_same_bytes(own_copy, mbt_data, built):
    folder, media = own_copy
    shutil.rmtree(folder / "out")
    assert build(mbt_data, folder, media).returncode == 0
    assert digests(folder / "out") == digests(built)


def test_a_decode_that_times_out_once_is_tried_again(own_copy, mbt_data, built):
    """The third decode of the run (the first two are canaries) hangs; the shard is whole all the same."""
    folder, media = own_copy
    shutil.rmtree(folder / "out")
    text = f'case "$*" in *2.mp4*) if mkdir "{folder}/hung" 2>/dev/null; then sleep 600; fi;; esac\nexec "$FFMPEG" "$@"'
    program = wrapper(folder / "ffmpeg", text)
    done = build(mbt_data, folder, media, f"--ffmpeg={program}", "--clip_time_limit=2")
    assert done.returncode == 0, done.stderr
    assert (folder / "hung").exists()
    assert digests(folder / "out") == digests(built)


@pytest.mark.parametrize("text", ["exec sleep 600", "while :; do :; done"])
def test_a_clip_that_is_too_slow_is_left_out_and_tried_again_by_the_next_run(own_copy, mbt_data, built, text):
    """No shard's name ever has two contents: without the clip its shard has another one."""
    folder, media = own_copy
    shutil.rmtree(folder / "out")
    program = wrapper(folder / "ffmpeg", f'case "$*" in *2.mp4*) {text};; esac\nexec "$FFMPEG" "$@"')
    done = build(mbt_data, folder, media, f"--ffmpeg={program}", "--clip_time_limit=1")
    assert done.returncode == 0, done.stderr
    rows = clip_rows(folder / "out")
    assert (rows["clip-2"]["outcome"], rows["clip-2"]["reason"]) == ("transient", "too_slow")
    assert {row["outcome"] for clip, row in rows.items() if clip != "clip-2"} == {"ok"}
    without, whole = digests(folder / "out"), digests(built)
    assert len(without) == len(whole) and len(set(without.items()) - set(whole.items())) == 2  # a shard, its index
    assert not set(without) - set(whole) & set(whole)
    before = newest(folder / "out").snapshot
    assert build(mbt_data, folder, media).returncode == 0
    assert newest(folder / "out").snapshot != before and clip_rows(folder / "out")["clip-2"]["outcome"] == "ok"
    assert set(digests(folder / "out").items()) == set(whole.items()) | set(without.items())


def test_the_media_of_a_clip_that_is_left_out_are_kept(mbt_data, write_csv, clip_folder, tmp_path):
    with serving() as server:
        for number in range(3):
            server.files[f"{number}.mp4"] = (clip_folder / f"{number}.mp4").read_bytes()
        rows = [{"video_path": f"{server.url}/{n}.mp4", "start": 0, "end": 1, "label": "a", "id": n} for n in range(3)]
        write_csv(tmp_path / "clips.csv", rows)
        words = (f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", PRIVATE)
        assert mbt_data("fetch", *words).returncode == 0
    (kept,) = [
        path for path in (tmp_path / "out" / "media").rglob("*.mp4") if path.read_bytes() == server.files["1.mp4"]
    ]
    slow = f'case "$*" in *{kept.name}*) while :; do :; done;; esac'
    program = wrapper(tmp_path / "ffmpeg", f'{slow}\nexec "$FFMPEG" "$@"')
    words = (f"--ffmpeg={program}", "--clip_time_limit=1", "--keep_media=no")
    done = build(mbt_data, tmp_path, clip_folder, *words)
    assert done.returncode == 0, done.stderr
    assert [path for path in (tmp_path / "out" / "media").rglob("*") if path.is_file()] == [kept]
    done = build(mbt_data, tmp_path, clip_folder)  # nobody is asked again: the server is gone
    assert done.returncode == 0, done.stderr
    assert {row["outcome"] for row in clip_rows(tmp_path / "out").values()} == {"ok"}


def test_a_decoder_that_is_killed_each_time_publishes_no_snapshot(own_copy, mbt_data, built):
    folder, media = own_copy
    shutil.rmtree(folder / "out")
    program = wrapper(folder / "ffmpeg", 'case "$*" in *2.mp4*) kill -9 $$;; esac\nexec "$FFMPEG" "$@"')
    done = build(mbt_data, folder, media, f"--ffmpeg={program}")
    assert done.returncode == 1 and "clip-2" in done.stderr and "run the same command again" in done.stderr
    assert not (folder / "out" / "snapshots").exists()
    assert set(digests(folder / "out").items()) < set(digests(built).items())
    assert build(mbt_data, folder, media).returncode == 0
    assert digests(folder / "out") == digests(built)


def test_an_interrupt_while_modules_load_is_said_in_one_line(tmp_path):
    """A module that is half loaded when the signal comes has none of its functions yet."""
    code = (
        "import os, signal, sys, types\n"
        "from mbt.pipeline import main\n"
        "sys.modules['mbt.pipeline.dataflow'] = types.ModuleType('mbt.pipeline.dataflow')\n"
        "sys.modules['mbt.pipeline.writer'] = types.ModuleType('mbt.pipeline.writer')\n"
        "signal.signal(signal.SIGINT, main._end_at_once)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130
    assert done.stderr.strip() == "mbt-data: interrupted; the same command goes on from here"


def test_every_bad_input_has_a_reason_and_the_rest_is_built(mbt_data, write_csv, make_media, clip_folder, tmp_path):
    media = tmp_path / "media"
    shutil.copytree(clip_folder, media)
    whole = make_media(media / "whole.mp4", seconds=6, options=("-movflags", "+faststart")).read_bytes()
    make_media(media / "mute.mp4", audio=None)
    make_media(media / "blind.mp4", video=None)
    make_media(media / "8k.mkv", size="7680x4320", seconds=0.04)
    (media / "empty.mp4").touch()
    (media / "text.mp4").write_text("<html>not found</html>")
    (media / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (media / "folder.mp4").mkdir()
    good = {"start": 0, "end": 1, "label": "a", "colour": "red"}
    names = ["whole", "mute", "blind", "8k", "empty", "text", "cut", "folder", "none"]
    ends = collections.defaultdict(lambda: 1, cut=6)
    files = {name: f"{name}.mkv" if name == "8k" else f"{name}.mp4" for name in names}
    rows = [good | {"id": name, "video_path": files[name], "end": ends[name]} for name in names]
    rows += [good | {"id": name, "video_path": "0.mp4"} for name in ("-q0_x", "../../x", "-rf", "a" * 300, "whole")]
    rows.append(good | {"id": "late", "video_path": "1.mp4", "start": 50, "end": 51})
    write_csv(tmp_path / "clips.csv", rows)
    done = build(mbt_data, tmp_path, media)
    assert done.returncode == 0, done.stderr
    assert "not used: column 'colour'" in done.stdout
    lost = {
        (row["id"], row["line"]): row["reason"] for row in clip_rows_list(tmp_path / "out") if row["outcome"] != "ok"
    }
    assert lost == {
        ("mute", 3): "no_audio",
        ("blind", 4): "no_video",
        ("8k", 5): "too_many_pixels",
        ("empty", 6): "empty",
        ("text", 7): "not_media",
        ("cut", 8): "truncated",
        ("folder", 9): "not_a_file",
        ("none", 10): "missing",
        ("whole", 15): "duplicate_id",
        ("late", 16): "start_past_end",
    }
    kept = {row["id"] for row in clip_rows_list(tmp_path / "out") if row["outcome"] == "ok"}
    assert kept == {"whole", "-q0_x", "../../x", "-rf", "a" * 300}
    assert {path.name for path in tmp_path.iterdir()} == {"clips.csv", "media", "out"}


def clip_rows_list(root: Path) -> list[dict]:
    return pq.read_table(root / "snapshots" / newest(root).snapshot / "clips.parquet").to_pylist()


def test_an_ffmpeg_that_is_too_old_is_refused_in_one_line(write_csv, clip_folder, mbt_data, tmp_path):
    old = tmp_path / "ffmpeg"
    says = "echo ffmpeg version 4.2.2 && exit 0"
    old.write_text(f"#!/bin/sh\ncase $1 in -version) {says};; esac\necho Unrecognized option 'fps_mode'. >&2\nexit 1\n")
    old.chmod(0o755)
    write_csv(tmp_path / "clips.csv", [{"video_path": "0.mp4", "start": 0, "end": 1, "label": "x"}])
    done = mbt_data(
        "build",
        *(f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", f"--media_root={clip_folder}"),
        f"--ffmpeg={old}",
    )
    assert done.returncode == 2
    assert "cannot make records" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--annotations=none.csv", "--output=o"], "none.csv: No such file"),
        (["--output=o"], "--annotations"),
        (["--anotations=clips.csv", "--output=o"], "--anotations: did you mean --annotations?"),
        (["--annotations=clips.csv", "--output=o", "--num_shard=2"], "num_shard"),
        (["--annotations=clips.csv", "--output=o", "--num_shards=0"], "num_shards"),
        (["--annotations=clips.csv", "--output=o", "--num_shards=two"], "num_shards"),
        (["--annotations=clips.csv", "--output=o", "--media_root=none"], "--media_root=none: no such folder"),
        (["--annotations=clips.csv", "--output=o", "--media_root=empty"], "is its disk mounted?"),
        (["--annotations=clips.csv", "--output=o", "--direct_num_workers=x"], "direct_num_workers"),
        (["--annotations=clips.csv", "--output=o", "--ffmpeg=/none"], "--ffmpeg=/none"),
        (["--annotations=clips.csv", "--output=o", "--ffmpeg=/bin/true"], "is not ffmpeg"),
        (["--annotations=clips.csv", "--output=o", "--name=../x"], "--name"),
        (["--annotations=bad.csv", "--output=o"], "no column start"),
        (["--annotations=headeronly.csv", "--output=o"], "no valid clip"),
        (["--annotations=clips.csv", "--output=full"], "holds no dataset"),
        (["--annotations=clips.csv", "--output=clips.csv"], "is not a folder"),
        (["--annotations=clips.csv", "--output=other"], "holds the dataset 'other'"),
        (["--annotations=clips.csv", "--output=damaged"], "is not JSON"),
        (["--annotations=clips.csv", "--output=o", "stray"], "stray"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(mbt_data, built, tmp_path, words, message):
    shutil.copy(built.parent / "clips.csv", tmp_path)
    (tmp_path / "bad.csv").write_text("video_path,label\n")
    (tmp_path / "headeronly.csv").write_text("video_path,start,end,label\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    for name, text in (("other", (built / "dataset.json").read_text().replace('"clips"', '"other"')), ("damaged", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    done = mbt_data("build", *words, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert message in line and done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_another_shard_count_is_refused(mbt_data, built, clip_folder):
    words = [f"--annotations={built.parent}/clips.csv", f"--media_root={clip_folder}", f"--output={built}"]
    done = mbt_data("build", *words, "--num_shards=4")
    assert done.returncode == 2 and "fixed" in done.stderr


def test_a_snapshot_is_never_overwritten(own_copy, mbt_data, write_csv, six_rows):
    folder, media = own_copy
    write_csv(folder / "clips.csv", six_rows[:-1])
    first = build(mbt_data, folder, media, "--snapshot=mine")
    assert first.returncode == 0, first.stderr
    before = (folder / "out/snapshots/mine/manifest.json").read_bytes()
    assert build(mbt_data, folder, media, "--snapshot=mine").returncode == 0  # nothing changed
    write_csv(folder / "clips.csv", six_rows)
    refused = build(mbt_data, folder, media, "--snapshot=mine")
    assert refused.returncode == 2 and "there is one of that name" in refused.stderr
    assert (folder / "out/snapshots/mine/manifest.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["no_shard", "no_index", "cut_shard", "flipped_index"])
def test_a_damaged_shard_is_made_again(own_copy, mbt_data, built, damage):
    folder, media = own_copy
    kind = "index" if damage.endswith("index") else "tfrecord"
    path = min((folder / "out/shards").glob(f"train-*.{kind}"))
    data = path.read_bytes()
    path.unlink()
    if damage == "cut_shard":
        path.write_bytes(data[:-1])
    elif damage == "flipped_index":
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    done = build(mbt_data, folder, media)
    assert done.returncode == 0, done.stderr
    assert digests(folder / "out") == digests(built)


def test_too_little_disk_is_said_before(mbt_data, write_csv, clip_folder, tmp_path):
    """A million clips of five minutes: more than any disk here; nothing of it is built."""
    rows = [{"video_path": "0.mp4", "start": k, "end": k + 299, "label": "a", "id": k} for k in range(5000)]
    write_csv(tmp_path / "clips.csv", rows)
    if shutil.disk_usage(tmp_path).free > 5000 * 299 * plan.BYTES_PER_SECOND:
        pytest.skip("this disk would hold it")
    done = build(mbt_data, tmp_path, clip_folder)
    assert done.returncode == 2 and "GiB free" in done.stderr
    assert not (tmp_path / "out" / "shards").exists() and not (tmp_path / "out" / "dataset.json").exists()


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # a moment ago it was
        return False


def start_build(folder: Path, media: Path, *flags: str) -> subprocess.Popen:
    words = [f"--annotations={folder}/clips.csv", f"--media_root={media}", f"--output={folder}/out", "--num_shards=2"]
    return subprocess.Popen(
        [Path(sys.executable).with_name("mbt-data"), "build", *words, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(condition, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this should have happened by now"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("flags", "how"),
    [
        ((), signal.SIGKILL),
        ((), signal.SIGINT),
        (PROCESSES, signal.SIGKILL),
        pytest.param(PROCESSES, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_killed_and_run_again(own_copy, mbt_data, built, flags, how):
    """A clip that hangs holds the build in its middle; then the process is killed."""
    folder, media = own_copy
    shutil.rmtree(folder / "out")
    text = f'case "$*" in *2.mp4*) touch "{folder}/reached"; sleep 600;; esac\nexec "$FFMPEG" "$@"'
    program = wrapper(folder / "ffmpeg", text)
    running = start_build(folder, media, f"--ffmpeg={program}", *flags)
    wait_for((folder / "reached").exists)
    processes = family(psutil.Process(running.pid))
    assert len(processes) >= 3
    running.send_signal(how)
    status = running.wait(300)
    wait_for(lambda: not any(map(is_alive, processes)))
    if how == signal.SIGINT:
        assert status == 130
    assert not (folder / "out" / "snapshots").exists()
    survivors = digests(folder / "out", "*.tfrecord")
    assert set(survivors.items()) <= set(digests(built).items())
    done = build(mbt_data, folder, media)
    assert done.returncode == 0, done.stderr
    assert digests(folder / "out") == digests(built)
    assert not (folder / "out" / "tmp").exists()


@pytest.mark.slow
def test_killed_at_many_moments(own_copy, mbt_data, built):
    folder, media = own_copy
    shutil.rmtree(folder / "out")
    for attempt in range(8):
        running = build(mbt_data.start, folder, media)
        time.sleep(0.2 + 0.3 * attempt)
        processes = []
        with contextlib.suppress(psutil.NoSuchProcess):  # it came to its end
            processes = family(psutil.Process(running.pid))
        running.kill()
        running.wait()
        wait_for(lambda: not any(map(is_alive, processes)))  # noqa: B023
        for path in folder.glob("out/shards/*.tfrecord"):
            read_shard(path)
    assert build(mbt_data, folder, media).returncode == 0
    assert digests(folder / "out") == digests(built)


def test_workers_never_import_tensorflow(built, mbt_data, clip_folder, tmp_path):
    """The process has all modules of the pipeline behind it, and builds."""
    code = (
        "import sys; from mbt.pipeline.main import main; "
        f"assert main(['build', '--annotations={built.parent}/clips.csv', '--media_root={clip_folder}', "
        f"'--output={tmp_path}/out']) == 0; "
        "heavy = {'tensorflow', 'jax', 'flax', 'torch', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    done = mbt_data.python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_shared_collection(mbt_data, shared, write_csv, tmp_path, every):
    """All 133 files, whole, 10 s at most: each a record or a reason, and all clips of av/ are records."""
    with open(shared / "clips" / "index.csv", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))[::every]
    lengths = {entry["file"]: min(float(entry["duration_s"] or 10), 10) or 10 for entry in entries}
    rows = [
        {"video_path": name, "start": 0, "end": seconds, "label": name.split("/")[0], "id": name}
        for name, seconds in lengths.items()
    ]
    write_csv(tmp_path / "clips.csv", rows)
    done = build(mbt_data, tmp_path, shared / "clips")
    assert done.returncode == 0, done.stderr
    found = clip_rows(tmp_path / "out")
    assert len(found) == len(entries)
    assert all(row["outcome"] == "ok" or row["reason"] for row in found.values())
    assert sum(row["outcome"] == "ok" for row in found.values()) >= 75 // every
    for shard in newest(tmp_path / "out").splits["train"].shards:
        index = shard_index.load((tmp_path / "out" / shard.index_path).read_bytes())
        for clip_id, record in zip(index.ids, index.records, strict=True):
            if clip_id.startswith("av/"):
                assert abs(int(record["num_frames"]) - round(25 * lengths[clip_id])) <= 1
                assert abs(int(record["num_mel_rows"]) - 100 * lengths[clip_id]) <= 1
    assert {name for name in lengths if name.startswith("av/")} <= {
        name for name, row in found.items() if row["outcome"] == "ok"
    }
