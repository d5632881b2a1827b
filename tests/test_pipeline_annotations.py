"""`csv`: every physical line ends up as one row; and what all datasets share: limits, classes, hostile files."""

import gzip
import os
import string
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbt.pipeline import plan
from mbt.pipeline.annotations import lines
from mbt.pipeline.annotations.read import DATASETS, Selection
from mbt.pipeline.annotations.read import read as read_annotations
from mbt.pipeline.annotations.rows import AnnotationsError

pytestmark = pytest.mark.quick

HEADER = "video_path,start,end,label,split,id\n"


def annotations(*files, media_root="/videos", **rest):
    return read_annotations(
        Selection(dataset="csv", files=tuple(str(file) for file in files), media_root=media_root, **rest)
    )


def written(path, text: str | bytes):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(tmp_path, text: str | bytes, **rest):
    return list(annotations(written(tmp_path / "clips.csv", text), **rest).rows())


def test_reads_clips_with_spaces_quotes_several_labels_bom_and_crlf(tmp_path):
    text = '\ufeffLabel , start,end,video_path,id,split\r\n"dog, big;cat",1.5,2.25, a b.mp4 ,-q0_x,eval\r\n\r\n'
    (row,) = read(tmp_path, text)
    assert row.reason == "" and row.line == 2 and row.file == "clips.csv"
    clip = row.clip
    assert (clip.source, clip.id, clip.split) == ("/videos/a b.mp4", "-q0_x", "eval")
    assert (clip.start_us, clip.end_us, clip.labels) == (1_500_000, 2_250_000, ("cat", "dog, big"))


def test_split_and_id_have_defaults(tmp_path):
    (row,) = read(tmp_path, "video_path,start,end,label\ndogs/1.mp4,0,1,dog\n")
    assert (row.clip.split, row.clip.id) == ("train", "dogs/1_0_1000")


def test_absolute_paths_and_urls_stay_as_they_are(tmp_path):
    wanted = ["/x/y.mp4", "https://example.org/y.mp4?z=1", "gs://bucket/y.mp4", "S3://bucket/a/y.mp4"]
    text = HEADER + "".join(f"{source},0,1,a,,{number}\n" for number, source in enumerate(wanted))
    assert [row.clip.source for row in read(tmp_path, text)] == wanted


@pytest.mark.parametrize(
    ("media_root", "source"),
    [
        ("gs://bucket/videos/", "gs://bucket/videos/a #1.mp4"),
        ("https://example.org/v", "https://example.org/v/a%20%231.mp4"),
    ],
)
def test_the_media_root_may_be_a_url(tmp_path, media_root, source):
    (row,) = read(tmp_path, HEADER + "a #1.mp4,0,1,a,,1\n", media_root=media_root)
    assert row.clip.source == source


# A scheme without a place, a bucket without an object, and what no bucket can be called.
PLACES = ("", "/", "/v.mp4", "x", "x/", "x y/v.mp4")
NOTHINGS = ["http://", "https:///v.mp4", *(f"{store}://{place}" for store in ("gs", "s3", "GS") for place in PLACES)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("v.mp4,x,1,a,train,1", "bad_time"),
        ("v.mp4,nan,1,a,train,1", "bad_time"),
        ("v.mp4,-1,1,a,train,1", "bad_time"),
        ("v.mp4,0,inf,a,train,1", "bad_time"),
        ("v.mp4,0,1_0,a,train,1", "bad_time"),
        ("v.mp4,0,\u0661,a,train,1", "bad_time"),
        ("v.mp4,2,1,a,train,1", "empty_span"),
        ("v.mp4,1,1,a,train,1", "empty_span"),
        ("v.mp4,0,1000,a,train,1", "span_too_long"),
        ("v.mp4,0,1, ; ,train,1", "no_label"),
        (",0,1,a,train,1", "no_video_path"),
        ("v.mp4,0,1,a,../x,1", "bad_split"),
        ("../../etc/passwd,0,1,a,train,1", "outside_media_root"),
        ("ftp://host/v.mp4,0,1,a,train,1", "unknown_scheme"),
        ("file:///etc/passwd,0,1,a,train,1", "unknown_scheme"),
        *((f"{url},0,1,a,train,1", "bad_url") for url in NOTHINGS),
        ("v.mp4,0,1,a,train", "wrong_number_of_cells"),
        ("v.mp4,0,1,a,train,1,extra", "wrong_number_of_cells"),
        ("," * 60_000, "wrong_number_of_cells"),
        ("v.mp4,0,1,a,train," + "1" * lines.MAX_LINE_BYTES, "line_too_long"),
        ('"v.mp4,0,1,a,train,1', "bad_quotes"),
        ("v\0.mp4,0,1,a,train,1", "control_character"),
        ("v\x1b[31m.mp4,0,1,a,train,1", "control_character"),
    ],
)
def test_a_bad_row_has_a_reason_and_costs_only_itself(tmp_path, line, reason):
    rows = read(tmp_path, f"{HEADER}{line}\ngood.mp4,0,1,a,train,2\n")
    assert [(row.line, row.reason) for row in rows] == [(2, reason), (3, "")]
    assert 0 < len(rows[0].detail) < 300


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("https://me:hunter2@example.org/v.mp4,0,1,a,,1", "credentials_in_url"),
        ("https://hunter2@example.org/v.mp4,0,1,a,,1", "credentials_in_url"),
        ("gs://me:hunter2@bucket/v.mp4,x,1,a,,1", "credentials_in_url"),
        ("https://me:hunter2@example.org/v.mp4,0,1,a", "wrong_number_of_cells"),
        ("ftp://me:hunter2@example.org/v.mp4,0,1,a,,1", "credentials_in_url"),
    ],
)
def test_a_password_in_a_url_goes_nowhere(tmp_path, line, reason):
    (row,) = read(tmp_path, f"{HEADER}{line}\n")
    assert row.reason == reason
    assert "hunter2" not in str(row)
    with pytest.raises(AnnotationsError, match="--media_root") as refusal:
        read(tmp_path, HEADER, media_root="https://me:hunter2@example.org/")
    assert "hunter2" not in str(refusal.value)


def test_not_utf8_is_a_reason(tmp_path):
    rows = read(tmp_path, HEADER.encode() + b"v.mp4,0,1,caf\xe9,train,1\nv.mp4,0,1,caf\xc3\xa9,train,1\n")
    assert [row.reason for row in rows] == ["not_utf8", ""]


def test_of_two_rows_with_one_id_the_first_valid_one_stays(tmp_path):
    clips = [
        "v.mp4,5,1,a,train,1",
        "v.mp4,0,1,a,train,1",
        "v.mp4,1,2,a,train,1",
        "v.mp4,1,2,a,train,2",
        "w.mp4,1,2,a,x,1",
    ]
    table = plan.clip_table(read(tmp_path, HEADER + "\n".join(clips)), "salt")
    assert table["reason"].to_pylist() == ["empty_span", "", "duplicate_id", "", "duplicate_id"]
    assert table["outcome"].to_pylist() == ["invalid", "not_tried", "invalid", "not_tried", "invalid"]
    assert table["detail"].to_pylist()[2:] == ["line 3 has the same id, '1'", "", "line 3 has the same id, '1'"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("video_path,start,stop,label\n", "no column end"),
        ("video_path,start,end,label,start\n", "'start' is there twice"),
        ("video_path;start;end;label\n", "semicolons"),
        ("video_path\tstart\tend\tlabel\n", "tabs"),
        ("a" * 70_000, "line 1: the line has over"),
        ("video_path,start,end,label\na.mp4,0,1,a\n".encode("utf-16"), "UTF-16"),
        ("video_path,start,end,label\na.mp4,0,1,a\n".encode("utf-16-le"), "UTF-16"),
        ("<!DOCTYPE html>\n<html>", "web page"),
        ('{"database": {}}', "JSON"),
        (gzip.compress(HEADER.encode(), mtime=0), "gunzip"),
        (b"PK\x03\x04rest", "spreadsheet's own format"),
        ("video_path,start,end,label\ra.mp4,0,1,a\r", "carriage returns only"),
        ("video_path,start,end,label\r" + "a.mp4,0,1,a\r" * 1000, "carriage returns only"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b'video_path,"start,end,label\n', "quotes"),
    ],
)
def test_a_file_without_the_columns_is_refused(tmp_path, text, words):
    with pytest.raises(AnnotationsError, match=words) as refusal:
        read(tmp_path, text)
    assert str(tmp_path / "clips.csv") in str(refusal.value)


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_file_no_dataset(tmp_path, dataset):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").mkdir()
    for name, words in (("absent", "No such file"), ("fifo", "not a file"), ("empty", "folder|does not tell|no rows")):
        with pytest.raises(AnnotationsError, match=words):
            list(read_annotations(Selection(dataset=dataset, files=(str(tmp_path / name),), media_root="/v")).rows())
    with pytest.raises(AnnotationsError, match="null byte"):
        read_annotations(Selection(dataset=dataset, files=("a\0b",), media_root="/v"))
    with pytest.raises(AnnotationsError, match="known are csv"):
        read_annotations(Selection(dataset=dataset + "?", files=(), media_root="/v"))


def test_unused_columns_are_told(tmp_path):
    path = written(tmp_path / "clips.csv", "video_path,start,end,label,fps,\na.mp4,0,1,a,25,\n")
    found = annotations(path)
    assert found.labels is None
    assert found.notes == (f"{path}: not used: column 'fps', ''",)


def test_limits_classes_and_splits_of_several_files(tmp_path):
    text = "video_path,start,end,label\n" + "".join(f"{n}.mp4,0,1,{'odd' if n % 2 else 'even'}\n" for n in range(9))
    (tmp_path / "b").mkdir()
    one, two = (written(tmp_path / name, text) for name in ("c.csv", "b/c.csv"))
    found = annotations(one, f"test={two}", limit=2, classes=("odd",))
    rows = [(row.file, row.line, row.clip.split, row.clip.labels) for row in found.rows()]
    assert rows == [
        (str(file), line, split, ("odd",)) for file, split in ((one, "train"), (two, "test")) for line in (3, 5)
    ]
    assert rows == [(row.file, row.line, row.clip.split, row.clip.labels) for row in found.rows()]
    with pytest.raises(AnnotationsError, match="no class 'ode' among 2; near it are 'odd'"):
        annotations(one, classes=("ode",))
    with pytest.raises(AnnotationsError, match="named twice"):
        annotations(one, one)


def test_any_number_of_bad_rows_is_admitted_unless_said_otherwise(tmp_path):
    text = HEADER + "v.mp4,5,1,a,train,1\n" * 3
    assert len(read(tmp_path, text)) == 3
    assert len(read(tmp_path, text, max_bad_rows=3)) == 3
    with pytest.raises(AnnotationsError, match=r"clips.csv, line 4: .* not after .*row 3, more than --max_bad_rows=2"):
        read(tmp_path, text, max_bad_rows=2)


@given(st.lists(st.text(string.printable + "\u00e9\ud7ff\0", max_size=40), max_size=20))
def test_every_line_of_any_text_is_accounted_for(tmp_path_factory, texts):
    texts = [line.replace("\n", " ").replace("\r", " ") for line in texts]
    rows = read(tmp_path_factory.mktemp("any"), HEADER + "\n".join(texts))
    assert [row.line for row in rows] == [number for number, line in enumerate(texts, 2) if line.strip()]


def test_a_line_of_any_length_takes_bounded_memory(tmp_path):
    path = tmp_path / "long.csv"
    with open(path, "wb") as file:
        file.write(HEADER.encode() + b"v.mp4,0,1,a,train,0\n" * 300)
        file.seek(500_000_000, os.SEEK_CUR)  # a hole: half a gigabyte of NULs in one line
        file.write(b"\nv.mp4,0,1,a,train,2\n")
    tracemalloc.start()
    rows = list(annotations(path).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.line, row.reason) for row in rows[300:]] == [(302, "line_too_long"), (303, "")]
    assert peak < 10_000_000


@pytest.mark.parametrize("length", [lines.MAX_LINE_BYTES - 1, lines.MAX_LINE_BYTES, lines.MAX_LINE_BYTES + 1])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_is_whole_or_refused_at_the_very_limit(tmp_path, length, end):
    path = written(tmp_path / "x", b"a" * length + end)
    ((_, line),) = lines.lines(str(path))
    assert len(line) > lines.MAX_LINE_BYTES or line == b"a" * length
    assert (len(line) > lines.MAX_LINE_BYTES) == (length + len(end.strip(b"\n")) > lines.MAX_LINE_BYTES)
