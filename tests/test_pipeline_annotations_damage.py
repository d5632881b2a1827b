"""Damaged files of the named datasets: refused with file, line, column and cause, and never a wrong clip."""

import csv
import pathlib
import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbt.pipeline.annotations.audioset import LABELS
from mbt.pipeline.annotations.read import Selection, read
from mbt.pipeline.annotations.rows import AnnotationsError

COMMENTS = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids={n}, num_segs={n}, num_unique_labels=527\n"
HEADER = "# YTID, start_seconds, end_seconds, positive_labels\n"
AUDIOSET = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"'
EPIC_HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
EPIC = "P01_11_0,P01,P01_11,00:00:00.00,00:00:01.89,0,2"
KINETICS_HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS = "riding a bike,--6bJUbfpnQ,17,27,val"
# Dataset: the file's name, what stands before the rows, a good row.
FORMS = {
    "audioset": ("eval_segments.csv", HEADER, AUDIOSET),
    "vggsound": ("vggsound.csv", "", "--0PQM4-hqg,30,waterfall burbling,train"),
    "kinetics": ("kinetics_val.csv", KINETICS_HEADER, KINETICS),
    "epic_kitchens": ("EPIC_100_validation.csv", EPIC_HEADER, EPIC),
    "moments": ("validationSet.csv", "", "clapping/yt-UqJYPbLwVyc_8.mp4,clapping,3,1"),
}


def rows(dataset, path, **rest):
    return list(read(Selection(dataset=dataset, files=(str(path),), media_root="/media", **rest)).rows())


def written(folder, dataset, *lines):
    name, header, good = FORMS[dataset]
    path = folder / name
    path.write_bytes(b"".join([header.encode(), *((line if line else good).encode() + b"\n" for line in lines)]))
    return path


@pytest.fixture(scope="session")
def mangled(shared) -> pathlib.Path:
    return shared / "annotations" / "audioset" / "excel_mangled"


def test_excel_s_ids_are_refused_with_line_column_and_cause(mangled):
    path = mangled / "balanced_train_segments.mangled.csv"
    with pytest.raises(AnnotationsError) as refusal:
        rows("audioset", path)
    assert str(refusal.value) == (
        f"{path}, line 3, column 1 (YTID): '#NAME?' is no YouTube id: a spreadsheet took an id that begins with '-' "
        "for a formula, and lost it. Download the official file again, or admit N damaged rows with --max_bad_rows=N"
    )


def test_bad_rows_are_admitted_counted_and_listed(mangled):
    path = mangled / "balanced_train_segments.mangled.csv"
    admitted = rows("audioset", path, max_bad_rows=371)
    assert len(admitted) == 22_160
    bad = [row for row in admitted if row.reason]
    assert len(bad) == 371 and {row.reason for row in bad} == {"bad_youtube_id"}
    assert (bad[0].line, bad[0].clip.split) == (3, "balanced_train") and "#NAME?" in bad[0].detail
    with pytest.raises(AnnotationsError, match=r"line 461, .*damaged row 371, more than --max_bad_rows=370 admits"):
        rows("audioset", path, max_bad_rows=370)
    assert len(rows("audioset", path, max_bad_rows=3, limit=3)) == 3


@pytest.mark.parametrize("max_bad_rows", [None, 100_000])
def test_labels_split_over_cells_are_refused_whole(mangled, max_bad_rows):
    path = mangled / "eval_segments.ast_variant.csv"
    with pytest.raises(AnnotationsError, match=r"line 1, column 4 \(positive_labels\): .* split over 11 cells"):
        rows("audioset", path, max_bad_rows=max_bad_rows)


@pytest.mark.parametrize(
    ("line", "place", "cause"),
    [
        ('#VALUE!,30,40,"/m/09x0r"', "column 1 (YTID)", "formula"),
        ('1.2E+05, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "rounded number"),
        ('5-Mar, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "into a date"),
        ('3/5/2017, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "into a date"),
        ('PJHxphWEs, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "characters are missing"),
        ('=-PJHxphWEs, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "formula stands"),
        ('\'--PJHxphWEs, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "keep text"),
        ('https://youtu.be/--PJHxphWEs, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "is a URL"),
        ('../../../etc, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "no YouTube id"),
        ('--PJHxphWE\0, 30.000, 40.000, "/m/09x0r"', "column 1 (YTID)", "no YouTube id"),
        ('--PJHxphWEs, 0:30, 40.000, "/m/09x0r"', "column 2 (start_seconds)", "clock time"),
        ('--PJHxphWEs, 3E+01, 40.000, "/m/09x0r"', "column 2 (start_seconds)", "rounded number"),
        ('--PJHxphWEs, 30, -1, "/m/09x0r"', "column 3 (end_seconds)", "before the video begins"),
        ('--PJHxphWEs, 30, 30, "/m/09x0r"', "column 3 (end_seconds)", "not after the start"),
        ('--PJHxphWEs, 30, 1000, "/m/09x0r"', "column 3 (end_seconds)", "over 300 s"),
        ('--PJHxphWEs, 30, 40, "/m/09x0r,/m/nothing"', "column 4 (positive_labels)", "'/m/nothing' is none"),
        ('--PJHxphWEs, 30, 40, ""', "column 4 (positive_labels)", "empty"),
        ("--PJHxphWEs,30,40,/m/09x0r,/t/dd00088", "column 4 (positive_labels)", "spreadsheet opened"),
        ("--PJHxphWEs;30;40;/m/09x0r", "line 5: ", "semicolons"),
        ("--PJHxphWEs\t30\t40\t/m/09x0r", "line 5: ", "tabs"),
        ('--PJHxphWEs, 30.000, 40.000, "/m/09x0r', "line 5: ", "quotes of this line do not close"),
        ("--PJHxphWEs, 30.0", "line 5: ", "cut off"),
        ("--PJHxphWEs" * 10_000, "line 5: ", "over 65536 bytes"),
        ("," * 60_000, "line 5: ", "60001 cells"),
    ],
)
def test_damage_of_audioset_says_where_and_why(tmp_path, line, place, cause):
    path = tmp_path / "eval_segments.csv"
    path.write_text(COMMENTS.format(n=3) + HEADER + f"{AUDIOSET}\n{line}\n{AUDIOSET}\n")
    with pytest.raises(AnnotationsError) as refusal:
        rows("audioset", path)
    message = str(refusal.value)
    assert message.startswith(f"{path}, line 5") and place in message and cause in message
    assert len(message) < 500 and message.isprintable()
    bad = rows("audioset", path, max_bad_rows=1)
    assert [bool(row.reason) for row in bad] == [False, True, False]


def test_a_file_that_is_cut_off_or_has_grown_is_refused(tmp_path):
    path = tmp_path / "eval_segments.csv"
    for promised, there in ((3, 2), (2, 3)):
        path.write_text(COMMENTS.format(n=promised) + HEADER + f"{AUDIOSET}\n" * there)
        with pytest.raises(AnnotationsError, match=rf"line 2: it promises num_segs={promised}, but {there} segments"):
            rows("audioset", path)
    path.write_text(COMMENTS.format(n=3) + HEADER + f"{AUDIOSET}\n" * 3)
    assert len(rows("audioset", path)) == 3
    path.write_text(COMMENTS.format(n=9) + HEADER + f"{AUDIOSET}\n" * 3)
    assert len(rows("audioset", path, limit=3)) == 3  # what follows was not asked for


@pytest.mark.parametrize(
    "comments", ["", HEADER, COMMENTS.format(n=1), "YTID,start_seconds,end_seconds,positive_labels\n"]
)
def test_any_of_the_first_lines_may_be_missing(tmp_path, comments):
    path = tmp_path / "eval_segments.csv"
    path.write_text(f"\ufeff{comments}{AUDIOSET}\r\n\r\n")
    ((row),) = rows("audioset", path)
    assert (row.clip.id, row.clip.labels) == ("--PJHxphWEs_30000", ("Speech", "Gush"))


@pytest.mark.parametrize("dataset", FORMS)
def test_no_rows_and_rows_of_another_kind_are_refused_at_once(tmp_path, dataset):
    name, header, _ = FORMS[dataset]
    path = tmp_path / name
    for text in (header + "\n\n", header + "a;b\n", header + '"a,b\n', header + "a,b,c,d,e,f,g,h,i\n"):
        path.write_text(text)
        with pytest.raises(AnnotationsError, match=re.escape(str(path))):
            read(Selection(dataset=dataset, files=(str(path),), media_root="/media", max_bad_rows=99))


@pytest.mark.parametrize(
    ("dataset", "line", "words"),
    [
        ("vggsound", "#NAME?,30,waterfall burbling,train", r"line 2, column 1 \(YTID\): .*formula"),
        ("vggsound", "--0PQM4-hqg,30.5,waterfall burbling,train", r"column 2 \(start_seconds\): '30.5' is no whole"),
        ("vggsound", "--0PQM4-hqg,0:30,waterfall burbling,train", "clock time"),
        ("vggsound", "--0PQM4-hqg,30,,train", r"column 3 \(label\): the label is empty"),
        ("vggsound", "--0PQM4-hqg,30,people, talking,train", "lost its quotes"),
        ("vggsound", "--0PQM4-hqg,30,people talking,../train", r"column 4 \(split\)"),
        ("kinetics", "riding a bike,#NAME?,17,27,val", r"line 3, column 2 \(youtube_id\): .*formula"),
        ("kinetics", "riding a bike,--6bJUbfpnQ,0:17,27,val", r"column 3 \(time_start\): .*clock time"),
        ("kinetics", "riding a bike,--6bJUbfpnQ,27,17,val", r"column 4 \(time_end\): .*not after"),
        ("kinetics", "riding a bike,--6bJUbfpnQ,17,27,", r"column 5 \(split\)"),
        ("kinetics", ",--6bJUbfpnQ,17,27,val", r"column 1 \(label\): the label is empty"),
        ("kinetics", "riding\x1b[2J,--6bJUbfpnQ,17,27,val", "control character"),
        (
            "epic_kitchens",
            "P01_11_0,P01,P01_11,00:00.0,00:00:01.89,0,2",
            r"column 4 \(start_timestamp\): .*spreadsheet",
        ),
        ("epic_kitchens", "P01_11_0,P01,P01_11,00:00:00.00,00:00:61.89,0,2", r"column 5 \(stop_timestamp\)"),
        ("epic_kitchens", "P01_11_0,P01,P01_11,00:00:00.00,00:00:01.89,97,2", r"'97' is no number from 0 to 96"),
        ("epic_kitchens", "P01_11_0,P01,P01_11,00:00:00.00,00:00:01.89,0,300", r"'300' is no number from 0 to 299"),
        ("epic_kitchens", "P01_11_0,P01,P02_11,00:00:00.00,00:00:01.89,0,2", r"column 3 \(video_id\)"),
        ("epic_kitchens", "P01_11_0,P01,P01_1/../x,00:00:00.00,00:00:01.89,0,2", r"column 3 \(video_id\)"),
        ("epic_kitchens", "P01_12_0,P01,P01_11,00:00:00.00,00:00:01.89,0,2", r"column 1 \(narration_id\)"),
        ("moments", "../../etc/passwd.mp4,clapping,3,1", r"line 2, column 1 \(filename\)"),
        ("moments", "/etc/passwd.mp4,clapping,3,1", r"column 1 \(filename\)"),
        ("moments", "clapping/.mp4,clapping,3,1", r"column 1 \(filename\)"),
        ("moments", "clapping/passwd,clapping,3,1", r"column 1 \(filename\)"),
        ("moments", "clapping/a.mp4,,3,1", r"column 2 \(label\): the label is empty"),
    ],
)
def test_damage_of_other_datasets_says_where_and_why(tmp_path, dataset, line, words):
    path = written(tmp_path, dataset, "", line, "")
    with pytest.raises(AnnotationsError, match=words):
        rows(dataset, path)
    assert [bool(row.reason) for row in rows(dataset, path, max_bad_rows=1)] == [False, True, False]


@pytest.mark.parametrize(
    ("dataset", "text", "words"),
    [
        ("audioset", "index,mid,display_name\n0,/m/09x0r,Speech\n", "has 1 classes, AudioSet 527"),
        ("audioset", "index,mid,display_name\n0,/m/09x0r\n", "line 2: wanted index,mid,display_name"),
        ("audioset", "index,mid,display_name\n0,/m/1,A\n1,/m/1,B\n", "line 3: '/m/1' is there twice"),
        ("kinetics", "riding a bike\nriding a bike\n", "line 2: 'riding a bike' is there twice"),
        ("kinetics", "riding a bike,x\n", "line 1: neither"),
        ("moments", "clapping,0\nhugging,2\n", "indices are not 0 to 1"),
        ("moments", "clapping,0\nhug\0ging,1\n", "line 2: the line holds a control character"),
        ("epic_kitchens", "id,key,instances\n0,take,x\n", "has 1 classes, EPIC-KITCHENS-100 97"),
        ("epic_kitchens", "id,key,instances\nx,take,x\n", "line 2: wanted id,key,instances"),
        ("vggsound", "air horn,197,vehicle\nair horn,197,vehicle\n", "line 2: 'air horn' is there twice"),
    ],
)
def test_damaged_label_maps_are_refused(tmp_path, dataset, text, words):
    label_map = tmp_path / "verb_map.csv"
    label_map.write_text(text)
    files = (str(written(tmp_path, dataset, "")), str(label_map))
    with pytest.raises(AnnotationsError, match=rf"verb_map.csv.*{words}"):
        read(Selection(dataset=dataset, files=files, media_root="/media"))


def test_two_label_maps_are_one_too_many(tmp_path):
    maps = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in maps:
        path.write_text("riding a bike\n")
    for dataset in ("kinetics", "moments"):
        files = tuple(map(str, (written(tmp_path, dataset, ""), *maps)))
        with pytest.raises(AnnotationsError, match=r"a.txt and .*b.txt are both label maps"):
            read(Selection(dataset=dataset, files=files, media_root="/media"))
    copies = [tmp_path / name for name in ("c.csv", "d.csv")]
    for path in copies:
        path.write_bytes(LABELS.read_bytes())
    with pytest.raises(AnnotationsError, match="both label maps"):
        read(Selection(dataset="audioset", files=tuple(map(str, copies)), media_root="/media"))


def mutations(line: str) -> st.SearchStrategy[str]:
    """The line with some of its characters replaced, removed or doubled, and things put in."""
    hostile = st.sampled_from(
        [*'",;\t\0\r\\/.-#=\u00e9\u0661\x1b ', "..", "/../", "\ufeff", "E+05", "0:30", "#NAME?", '""']
    )
    edit = st.tuples(st.integers(0, len(line)), st.integers(0, 3), st.one_of(hostile, st.text(max_size=3)))

    def edited(edits: list[tuple[int, int, str]]) -> str:
        text = line
        for place, removed, put in edits:
            text = text[:place] + put + text[place + removed :]
        return text.replace("\n", " ")

    return st.lists(edit, min_size=1, max_size=4).map(edited)


def sound(dataset: str, line: str, clip) -> None:
    """A clip says what its line says, read by csv, and nothing that could lead elsewhere."""
    assert 0 <= clip.start_us < clip.end_us <= clip.start_us + 300_000_000
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", clip.split)
    assert {unicodedata.category(each) for label in clip.labels for each in label}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    cells = [cell.strip() for cell in next(csv.reader([line.replace("\r", " ")], skipinitialspace=True))]
    if dataset in ("audioset", "vggsound", "kinetics"):
        youtube_id = clip.source.removeprefix("https://www.youtube.com/watch?v=")
        assert re.fullmatch(r"[A-Za-z0-9_-]{11}", youtube_id) and clip.id.startswith(youtube_id + "_")
        assert cells[1 if dataset == "kinetics" else 0] == youtube_id
    if dataset in ("audioset", "vggsound"):
        assert float(cells[1]) * 1e6 == pytest.approx(clip.start_us, abs=1)
    if dataset == "kinetics":
        assert [float(cell) * 1e6 for cell in cells[2:4]] == pytest.approx([clip.start_us, clip.end_us], abs=1)
    if dataset == "epic_kitchens":
        assert clip.source == f"/media/{cells[1]}/videos/{cells[2]}.MP4" and clip.id == cells[0]
        assert clip.labels == (f"verb/{int(cells[5])}", f"noun/{int(cells[6])}")
    if dataset == "moments":
        assert clip.source == f"/media/{cells[0]}" and ".." not in cells[0].split("/")
        assert clip.labels == (cells[1],)


@pytest.mark.parametrize("dataset", FORMS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_makes_a_wrong_clip(tmp_path, dataset, data):
    good = FORMS[dataset][2]
    damaged = data.draw(mutations(good))
    path = written(tmp_path, dataset, good, damaged, good)
    with path.open("ab") as file:
        file.write(data.draw(st.binary(max_size=30)).replace(b"\n", b" ") + b"\n")
    read_rows = rows(dataset, path, max_bad_rows=4)
    assert 2 <= len(read_rows) <= 4 and not read_rows[0].reason
    for row in read_rows:
        assert row.reason or row.clip.labels
        if not row.reason and row.line < read_rows[0].line + 3:
            sound(dataset, [good, damaged, good][row.line - read_rows[0].line], row.clip)


@pytest.mark.parametrize("dataset", FORMS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path, dataset, content):
    path = tmp_path / FORMS[dataset][0]
    path.write_bytes(content)
    try:
        read_rows = rows(dataset, path, max_bad_rows=1_000)
    except AnnotationsError:
        return
    assert read_rows and all(row.reason or row.clip.source for row in read_rows)
