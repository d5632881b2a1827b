import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbt.pipeline import plan
from mbt.pipeline.annotations import AnnotationsError, read_csv

HEADER = "video_path,start,end,label,split,id\n"


def read(tmp_path, text: str | bytes):
    path = tmp_path / "clips.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_csv(str(path), "/videos"))


def test_reads_clips_with_spaces_quotes_several_labels_bom_and_crlf(tmp_path):
    text = '\ufeffLabel , start,end,video_path,id,split\r\n"dog, big;cat",1.5,2.25, a b.mp4 ,-q0_x,eval\r\n\r\n'
    (row,) = read(tmp_path, text)
    assert row.reason == "" and row.line == 2
    clip = row.clip
    assert (clip.source, clip.id, clip.split) == ("/videos/a b.mp4", "-q0_x", "eval")
    assert (clip.start_us, clip.end_us, clip.labels) == (1_500_000, 2_250_000, ("cat", "dog, big"))


def test_split_and_id_have_defaults(tmp_path):
    (row,) = read(tmp_path, "video_path,start,end,label\ndogs/1.mp4,0,1,dog\n")
    assert (row.clip.split, row.clip.id) == ("train", "dogs/1_0_1000")


def test_absolute_paths_and_urls_stay_as_they_are(tmp_path):
    text = HEADER + "/x/y.mp4,0,1,a,,1\nhttps://example.org/y.mp4?z=1,0,1,a,,2\n"
    assert [row.clip.source for row in read(tmp_path, text)] == ["/x/y.mp4", "https://example.org/y.mp4?z=1"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("v.mp4,x,1,a,train,1", "bad_time"),
        ("v.mp4,nan,1,a,train,1", "bad_time"),
        ("v.mp4,-1,1,a,train,1", "bad_time"),
        ("v.mp4,0,inf,a,train,1", "bad_time"),
        ("v.mp4,2,1,a,train,1", "empty_span"),
        ("v.mp4,1,1,a,train,1", "empty_span"),
        ("v.mp4,0,1000,a,train,1", "span_too_long"),
        ("v.mp4,0,1, ; ,train,1", "no_label"),
        (",0,1,a,train,1", "no_video_path"),
        ("v.mp4,0,1,a,../x,1", "bad_split"),
        ("../../etc/passwd,0,1,a,train,1", "outside_media_root"),
        ("ftp://host/v.mp4,0,1,a,train,1", "unknown_scheme"),
        ("v.mp4,0,1,a,train", "wrong_number_of_cells"),
        ("v.mp4,0,1,a,train,1,extra", "wrong_number_of_cells"),
        ('"v.mp4,0,1,a,train,1', "bad_quotes"),
        ("v\0.mp4,0,1,a,train,1", "control_character"),
        ("v\x1b[31m.mp4,0,1,a,train,1", "control_character"),
    ],
)
def test_a_bad_row_has_a_reason_and_costs_only_itself(tmp_path, line, reason):
    rows = read(tmp_path, f"{HEADER}{line}\ngood.mp4,0,1,a,train,2\n")
    assert [(row.line, row.reason) for row in rows] == [(2, reason), (3, "")]
    assert rows[0].detail


def test_not_utf8_is_a_reason(tmp_path):
    rows = read(tmp_path, HEADER.encode() + b"v.mp4,0,1,caf\xe9,train,1\nv.mp4,0,1,caf\xc3\xa9,train,1\n")
    assert [row.reason for row in rows] == ["not_utf8", ""]


def test_of_two_rows_with_one_id_the_first_valid_one_stays(tmp_path):
    lines = [
        "v.mp4,5,1,a,train,1",
        "v.mp4,0,1,a,train,1",
        "v.mp4,1,2,a,train,1",
        "v.mp4,1,2,a,train,2",
        "w.mp4,1,2,a,x,1",
    ]
    table = plan.clip_table(read(tmp_path, HEADER + "\n".join(lines)), "salt")
    assert table["reason"].to_pylist() == ["empty_span", "", "duplicate_id", "", "duplicate_id"]
    assert table["outcome"].to_pylist() == ["invalid", "not_tried", "invalid", "not_tried", "invalid"]
    assert table["detail"].to_pylist()[2:] == ["line 3 has the same id, '1'", "", "line 3 has the same id, '1'"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("video_path,start,stop,label\n", "no column end"),
        ("video_path,start,end,label,start\n", "start is there twice"),
    ],
)
def test_a_file_without_the_columns_is_refused(tmp_path, text, words):
    with pytest.raises(AnnotationsError, match=words):
        read(tmp_path, text)


@given(st.lists(st.text(string.printable + "\u00e9\ud7ff\0", max_size=40), max_size=20))
def test_every_line_of_any_text_is_accounted_for(tmp_path_factory, lines):
    lines = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    rows = read(tmp_path_factory.mktemp("any"), HEADER + "\n".join(lines))
    assert [row.line for row in rows] == [number for number, line in enumerate(lines, 2) if line.strip()]
