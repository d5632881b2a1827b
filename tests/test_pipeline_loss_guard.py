"""What is not published: splits that would lose too much to what may pass, and nothing at all."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from mbt.pipeline import loss_guard, lost_source
from mbt.pipeline.errors import IncompleteError
from mbt.pipeline.loss_guard import Loss


def loss(**fields: int) -> Loss:
    return Loss(split="train", **({"clips": 1000, "new": 0} | fields))


@pytest.mark.parametrize(
    ("found", "allowed", "expected"),
    [
        # Of a list that no snapshot has accounted for: a tenth.
        (loss(clips=100, new=10), None, False),
        (loss(clips=100, new=11), None, True),
        (loss(clips=4, new=1), None, True),
        (loss(clips=10, new=1), None, False),
        # Of the records before: 2 %, or three clips where those are no more than a tenth.
        (loss(records=1000, old=20), None, False),
        (loss(records=1000, old=21), None, True),
        (loss(records=30, old=3), None, False),
        (loss(records=30, old=4), None, True),
        (loss(records=29, old=3), None, True),
        (loss(records=10, old=1), None, False),
        (loss(records=2, old=1), None, True),
        (loss(records=1, old=1), None, True),
        # Both.
        (loss(new=100, records=1000, old=20), None, False),
        (loss(new=101, records=1000, old=20), None, True),
        # What was allowed takes the place of the defaults, also where it is less.
        (loss(clips=100, new=29), 0.29, False),
        (loss(clips=100, new=30), 0.29, True),
        (loss(clips=100, new=1), 0.0, True),
        (loss(records=1000, old=29), 0.029, False),
        (loss(clips=2, new=2, records=2, old=2), 1.0, False),
    ],
)
def test_how_much_may_be_lost(found, allowed, expected):
    assert found.is_excessive(allowed) is expected
    assert not found.is_excessive(found.share)  # what the message says is enough


MOSTLY_GONE = "http_410"  # here: of a host that said so of most


def rows(*words: str) -> pa.Table:
    """Clips with an outcome and reason each."""
    made = []
    for number, word in enumerate(words):
        outcome, _, reason = word.partition("/")
        source = f"http://host/{number}.mp4" if reason != "missing" else f"/videos/{number}.mp4"
        fields = {"id": f"clip-{number}", "split": "train", "file": "clips.csv", "line": number + 2, "detail": "why"}
        fields |= {"source": source, "outcome": outcome, "reason": reason, "digest": "d" * (word == "ok")}
        made.append(fields | {"mostly_gone": reason == MOSTLY_GONE})
    return pa.Table.from_pylist(made)


@pytest.mark.parametrize(
    "word",
    [
        *("transient/http_503", "transient/missing", "transient/internal_error", "blocked/http_429", "not_tried"),
        f"gone/{MOSTLY_GONE}",
    ],
)
def test_what_may_pass_counts(tmp_path, word):
    with pytest.raises(IncompleteError, match=r"train would lack 2 of 12 clips \(over 10 %\).*--allow_loss=0.17"):
        check(rows(*["ok"] * 10, word, word), tmp_path)
    check(rows(*["ok"] * 10, word, word), tmp_path, allowed=0.17)
    check(rows(*["ok"] * 9, word), tmp_path)


@pytest.mark.parametrize("word", ["gone/http_404", "restricted/private", "unusable/no_audio"])
def test_what_is_lost_for_good_does_not(tmp_path, word):
    check(rows("ok", *[word] * 9), tmp_path)


def test_a_clip_that_decodes_too_slowly_blocks_only_itself(tmp_path):
    """One that came; a server that is too slow is another thing, of the same name."""
    slow = rows("ok", "transient/too_slow")
    with pytest.raises(IncompleteError):
        check(slow, tmp_path)
    check(slow.set_column(slow.column_names.index("digest"), "digest", pa.array(["d", "d"])), tmp_path)


@pytest.mark.parametrize("allowed", [None, 1.0])
@pytest.mark.parametrize("word", ["gone/http_404", "unusable/no_audio", "transient/http_503"])
def test_no_record_is_no_success(tmp_path, word, allowed):
    with pytest.raises(IncompleteError, match="nothing was published"):
        check(rows(word, word), tmp_path, allowed=allowed)


def check(table: pa.Table, root: Path, allowed: float | None = None) -> None:
    loss_guard.check(table, str(root), allowed=allowed, media_root="/videos")


@pytest.mark.parametrize(
    ("path", "likely"),
    [
        ("/data/x.mp4", "is --media_root=/data right, and is its disk mounted?"),
        ("/mnt/nas/a.mp4", "is the path right, and is its disk mounted?"),
        (r"/data/.\sub\x.mp4", "it is written with backslashes; write /."),
        (r"/data/C:\Users\me\vid.mp4", "C: is a drive of Windows; write the path as this machine has it."),
        ("/data/C:/Users/me/vid.mp4", "C: is a drive of Windows; write the path as this machine has it."),
        ("/data/~/x.mp4", "~ is taken as it stands; write the whole path."),
        ("/data/$HOME/x.mp4", "$HOME is taken as it stands; write the whole path."),
    ],
)
def test_the_likely_cause(path, likely):
    table = rows("transient/missing")
    table = table.set_column(table.column_names.index("source"), "source", pa.array([path]))
    said = lost_source.said(table, table, "/data")
    assert said == f"None of 1 files is there; first tried {path}: {likely}"


def test_the_first_one_is_the_first_of_the_list():
    table = rows("ok", "transient/http_503", "transient/missing", "transient/missing")
    lost = table.slice(1).take([2, 1, 0])
    assert "The first is 'clip-1', http://host/1.mp4 (transient, http_503: why)" in lost_source.said(lost, table, "/x")
    assert "2 of 3 files are not there; first tried /videos/2.mp4" in lost_source.said(
        lost.filter(pa.array([True, True, False])), pa.concat_tables([rows("transient/missing"), table.slice(2)]), "/x"
    )


CLIPS = [
    {"video_path": "0.mp4", "start": 0, "end": 1, "label": "a", "split": "train", "id": "zero"},
    {"video_path": "1.mp4", "start": 0, "end": 1, "label": "a", "split": "test", "id": "one"},
]


@pytest.fixture(scope="module")
def built(mbt_data, write_csv, clip_folder, tmp_path_factory) -> Path:
    """A folder with `clips.csv` and, in `out`, the dataset of it."""
    folder = tmp_path_factory.mktemp("built")
    write_csv(folder / "clips.csv", CLIPS)
    done = build(mbt_data, folder, clip_folder)
    assert done.returncode == 0, done.stderr
    return folder


def build(mbt_data, folder: Path, media: Path, *words: str, command: str = "build"):
    return mbt_data(
        command, f"--annotations={folder}/clips.csv", f"--media_root={media}", f"--output={folder}/out", *words
    )


def snapshots(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (folder / "out").glob("snapshots/**/*") if path.is_file()}


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def other(clip_folder, tmp_path) -> Path:
    """A media root with one of the two files."""
    (tmp_path / "other").mkdir()
    shutil.copy(clip_folder / "0.mp4", tmp_path / "other")
    return tmp_path / "other"


@pytest.mark.parametrize("command", ["build", "refresh"])
def test_a_wrong_media_root_replaces_no_snapshot(mbt_data, copy, other, command):
    (other / "0.mp4").rename(other / "README.txt")
    before = snapshots(copy)
    done = build(mbt_data, copy, other, command=command)
    assert done.returncode == 1 and done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert said.startswith("mbt-data: nothing was published") and "test would lack 1 of 1 records" in said
    assert f"None of 2 files is there; first tried {other}/0.mp4: is --media_root={other} right" in said
    assert "--allow_loss=1.00" in said and snapshots(copy) == before
    none = build(mbt_data, copy, other, "--allow_loss=1", command=command)
    assert none.returncode == 1 and "no clip would be a record (2 transient/missing)" in none.stderr
    assert snapshots(copy) == before
    status = json.loads(build(mbt_data, copy, other, "--json", command="status").stdout)
    assert status["left"] == 2 and any(f"first tried {other}/0.mp4" in note for note in status["notes"])


def test_a_file_that_is_away_empties_no_split(mbt_data, copy, other):
    before = snapshots(copy)
    done = build(mbt_data, copy, other)
    assert done.returncode == 1 and "test would lack 1 of 1 records" in done.stderr, done.stderr
    assert "train would" not in done.stderr and f"1 of 2 files are not there; first tried {other}/1.mp4" in done.stderr
    assert snapshots(copy) == before
    allowed = build(mbt_data, copy, other, "--allow_loss=1", "--json")
    assert allowed.returncode == 0, allowed.stderr
    assert {name: split["records"] for name, split in json.loads(allowed.stdout)["splits"].items()} == {
        "test": 0,
        "train": 1,
    }


def test_rows_that_left_the_list_are_no_loss(mbt_data, write_csv, copy, clip_folder):
    write_csv(copy / "clips.csv", CLIPS[:1])
    assert build(mbt_data, copy, clip_folder).returncode == 0
    write_csv(copy / "clips.csv", CLIPS)
    done = build(mbt_data, copy, clip_folder, "--limit=1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "likely"),
    [
        ("x.mp4", "right, and is its disk mounted?"),
        ("/mnt/nas/a.mp4", "is the path right, and is its disk mounted?"),
        (r".\sub\x.mp4", "backslashes"),
        (r"C:\Users\me\vid.mp4", "drive of Windows"),
        ("~/x.mp4", "~ is taken as it stands"),
    ],
)
def test_a_first_build_of_nothing_is_no_success(mbt_data, write_csv, other, tmp_path, path, likely):
    write_csv(tmp_path / "clips.csv", [CLIPS[0] | {"video_path": path}])
    done = build(mbt_data, tmp_path, other)
    assert done.returncode == 1, done.stdout
    said = done.stderr.splitlines()[-1]
    assert "None of 1 files is there; first tried /" in said and likely in said
    assert not (tmp_path / "out" / "snapshots").exists()
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_files_that_are_all_unusable_are_no_success(mbt_data, write_csv, tmp_path):
    """Which only decoding finds."""
    (tmp_path / "0.mp4").write_text("not a film")
    (tmp_path / "1.mp4").touch()
    write_csv(tmp_path / "clips.csv", CLIPS)
    done = build(mbt_data, tmp_path, tmp_path, "--allow_loss=1")
    assert done.returncode == 1, done.stdout
    said = done.stderr.splitlines()[-1]
    assert "no clip would be a record (1 unusable/empty, 1 unusable/not_media)" in said and "'zero'" in said
    assert not (tmp_path / "out" / "snapshots").exists()
