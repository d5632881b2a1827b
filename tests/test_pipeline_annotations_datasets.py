"""The official files of the named datasets, as they are, to clip rows."""

import collections
import csv
import itertools
import pathlib

import pytest

from mbt.pipeline.annotations import audioset
from mbt.pipeline.annotations.read import Selection, read
from mbt.pipeline.annotations.rows import AnnotationsError

pytestmark = pytest.mark.quick

MEDIA = "/media/videos"


@pytest.fixture(scope="session")
def official(shared) -> pathlib.Path:
    return shared / "annotations"


def found(dataset, *files, media_root=MEDIA, **rest):
    return read(
        Selection(dataset=dataset, files=tuple(str(file) for file in files), media_root=str(media_root), **rest)
    )


def rows(dataset, *files, **rest):
    return list(found(dataset, *files, **rest).rows())


@pytest.mark.parametrize(
    ("dataset", "name", "split", "count"),
    [
        ("audioset", "audioset/balanced_train_segments.csv", "balanced_train", 22_160),
        ("audioset", "audioset/eval_segments.csv", "eval", 20_371),
        ("audioset", "audioset/excel_mangled/balanced_train_segments.other_header.csv", "balanced_train", 22_160),
        ("kinetics", "kinetics/kinetics-400_val.csv", "val", 19_906),
        ("kinetics", "kinetics/kinetics-400_test.csv", "test", 38_685),
        ("kinetics", "kinetics/kinetics-600_val.csv", "val", 30_000),
        ("kinetics", "kinetics/kinetics-600_test.csv", "test", 72_924),
        ("vggsound", "vggsound/test.csv", "test", 15_446),
        ("vggsound", "vggsound/AStest.csv", "AStest", 6_927),
        ("epic_kitchens", "epic100/EPIC_100_validation.csv", "validation", 9_668),
        ("epic_kitchens", "epic100/EPIC_100_uda_source_train.csv", "train", 16_115),
        ("epic_kitchens", "epic100/EPIC_100_test_timestamps.csv", "test", 13_092),
        ("moments", "moments/MIT16_train.csv", "train", 20_240),
        ("moments", "moments/MIT16_validation.csv", "validation", 2_256),
        ("moments", "moments/AVMIT_test_set.csv", "test", 960),
    ],
)
def test_every_row_of_an_official_file_is_a_clip(official, dataset, name, split, count):
    read_rows = rows(dataset, official / name)
    assert len(read_rows) == count == len({row.clip.id for row in read_rows})
    assert {(row.reason, row.file, row.clip.split) for row in read_rows} == {("", pathlib.Path(name).name, split)}


def test_audioset_clips_are_those_of_the_file(official):
    """Against a reading of our own of file and label map."""
    with open(official / "audioset" / "class_labels_indices.csv", newline="", encoding="utf-8") as file:
        names = {row["mid"]: row["display_name"] for row in csv.DictReader(file)}
    with open(official / "audioset" / "eval_segments.csv", newline="", encoding="utf-8") as file:
        wanted = [line for line in csv.reader(file, skipinitialspace=True) if not line[0].startswith("#")]
    files = [official / "audioset" / name for name in ("eval_segments.csv", "class_labels_indices.csv")]
    annotations = found("audioset", *files)
    assert annotations.labels == tuple(names.values())
    assert annotations.notes == ()
    for row, (youtube_id, start, end, mids) in zip(annotations.rows(), wanted, strict=True):
        clip = row.clip
        assert clip.id == f"{youtube_id}_{round(float(start) * 1000)}"
        assert clip.source == f"https://www.youtube.com/watch?v={youtube_id}"
        assert (clip.start_us, clip.end_us) == (round(float(start) * 1e6), round(float(end) * 1e6))
        assert sorted(clip.labels) == sorted(names[mid] for mid in mids.split(","))


def test_audioset_labels_stand_in_index_order_and_are_built_in(official):
    annotations = found("audioset", official / "audioset" / "balanced_train_segments.csv")
    assert annotations.labels == found("audioset", *(official / "audioset").glob("[bc]*.csv")).labels
    order = {name: index for index, name in enumerate(annotations.labels)}
    labels = [[order[label] for label in row.clip.labels] for row in annotations.rows()]
    assert labels == [sorted(set(each)) for each in labels]
    assert sum(map(len, labels)) == 52_882  # the file's own num_positive_labels
    assert len(order) == 527 and annotations.labels[:1] == ("Speech",)


def test_the_built_in_label_map_is_the_official_one(official):
    assert audioset.LABELS.read_bytes() == (official / "audioset" / "class_labels_indices.csv").read_bytes()


def test_audioset_splits_come_from_names_or_words(tmp_path):
    text = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r"\n'
    for name in ("unbalanced_train_segments.csv", "my_unbalanced_train.csv", "eval_segments.csv", "medieval.csv"):
        (tmp_path / name).write_text(text)
    splits = [rows("audioset", tmp_path / name)[0].clip.split for name in sorted(p.name for p in tmp_path.glob("*_*"))]
    assert splits == ["eval", "unbalanced_train", "unbalanced_train"]
    with pytest.raises(AnnotationsError, match=r"does not tell the split; say --annotations=eval=medieval.csv"):
        rows("audioset", tmp_path / "medieval.csv")
    assert rows("audioset", f"strong={tmp_path}/medieval.csv")[0].clip.split == "strong"


def test_classes_are_names_or_mids_and_limits_count_what_is_taken(official):
    path = official / "audioset" / "balanced_train_segments.csv"
    by_name, by_mid = (rows("audioset", path, classes=(each,)) for each in ("Dog", "/m/0bt9lr"))
    assert by_name == by_mid
    assert by_name == [row for row in rows("audioset", path) if "Dog" in row.clip.labels]
    assert rows("audioset", path, classes=("Dog",), limit=5) == by_name[:5]
    with pytest.raises(AnnotationsError, match=r"no class 'dgo' among 527; near it are .*'Dog'"):
        found("audioset", path, classes=("dgo",))


def test_vggsound_forms_give_the_same_clips(official):
    folder = official / "vggsound"
    main = found("vggsound", folder / "vggsound.derived_subset.csv", folder / "stat.csv")
    main_rows = list(main.rows())
    assert collections.Counter(row.clip.split for row in main_rows) == {"test": 15_446, "train": 2_048}
    split_list = rows("vggsound", folder / "test.csv")
    assert [row.clip for row in main_rows if row.clip.split == "test"] == [row.clip for row in split_list]
    first = split_list[0].clip
    assert (first.id, first.start_us, first.end_us) == ("glLQrEijrKg_000300", 300_000_000, 310_000_000)
    assert first.source == "https://www.youtube.com/watch?v=glLQrEijrKg"
    assert first.labels == ("playing hammond organ",)
    assert len(main.labels) == 309 and list(main.labels) == sorted(main.labels) and main.notes == ()


def test_vggsound_says_which_classes_are_missing(official):
    folder = official / "vggsound"
    part = found("vggsound", folder / "AStest.csv", limit=1)
    assert len(part.labels) == 155
    assert part.notes[0].startswith("only 155 of VGGSound's 309 classes occur")
    whole = found("vggsound", folder / "AStest.csv", folder / "stat.csv")
    assert len(whole.labels) == 309 and whole.notes == ()


def test_kinetics_labels_splits_and_ids(official):
    folder = official / "kinetics"
    annotations = found("kinetics", *(folder / f"kinetics-400_{split}.csv" for split in ("val", "test")))
    assert annotations.labels == tuple(sorted((folder / "label_map_k400.txt").read_text().split("\n")[:400]))
    assert "kinetics-400_test.csv has no labels" in annotations.notes[0]
    last_val, first_test = list(itertools.islice(annotations.rows(), 19_905, 19_907))
    assert (last_val.clip.split, first_test.clip.split) == ("val", "test")
    assert (first_test.clip.id, first_test.clip.labels) == ("--6bJUbfpnQ_000017_000027", ())
    assert (first_test.clip.start_us, first_test.clip.end_us) == (17_000_000, 27_000_000)


def test_kinetics_takes_the_label_map_in_its_own_order(official, tmp_path):
    names = (official / "kinetics" / "label_map_k600.txt").read_text().split("\n")[:600]
    (tmp_path / "map.txt").write_text("\n".join(reversed(names)))
    annotations = found("kinetics", official / "kinetics" / "kinetics-600_val.csv", tmp_path / "map.txt")
    assert list(annotations.labels) == names[::-1] and annotations.notes == ()
    with pytest.raises(AnnotationsError, match=r"line 52, column 1 \(label\): 'acting in play' is none of the label"):
        rows("kinetics", *(official / "kinetics" / name for name in ("kinetics-600_val.csv", "label_map_k400.txt")))


@pytest.mark.parametrize(
    "text",
    [
        "label,youtube_id,time_start,time_end,split,is_cc\nriding a bike,--6bJUbfpnQ,17,27,train,0\n",
        '"label","youtube_id","time_start","time_end","split"\r\n"riding a bike","--6bJUbfpnQ","17","27","train"\r\n',
        "split,time_end,time_start,youtube_id,label\ntrain,27,17,--6bJUbfpnQ,riding a bike\n",
        "label,youtube_id,time_start,time_end\nriding a bike,--6bJUbfpnQ,17.0,27.0\n",
    ],
)
def test_kinetics_forms(tmp_path, text):
    path = tmp_path / "kinetics700_train.csv"
    path.write_text(text)
    annotations = found("kinetics", path)
    ((row),) = annotations.rows()
    assert (row.clip.id, row.clip.split) == ("--6bJUbfpnQ_000017_000027", "train")
    assert row.clip.labels == annotations.labels == ("riding a bike",)
    assert "only 1 classes occur" in annotations.notes[0]


def test_epic_segments_share_videos_and_have_verb_and_noun(official):
    folder = official / "epic100"
    names = ("EPIC_100_validation.csv", "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv")
    annotations = found("epic_kitchens", *(folder / name for name in names))
    assert len(annotations.labels) == 97 + 300
    assert (annotations.labels[0], annotations.labels[96:98]) == ("verb/take", ("verb/unfreeze", "noun/tap"))
    clips = [row.clip for row in annotations.rows()]
    with open(folder / names[0], newline="", encoding="utf-8") as file:
        segments = list(csv.DictReader(file))
    for clip, segment in zip(clips, segments, strict=True):
        verb, noun = int(segment["verb_class"]), int(segment["noun_class"])
        assert clip.id == segment["narration_id"]
        assert clip.labels == (annotations.labels[verb], annotations.labels[97 + noun])
        assert clip.source == f"{MEDIA}/{segment['participant_id']}/videos/{segment['video_id']}.MP4"
        hours, minutes, seconds = segment["stop_timestamp"].split(":")
        assert clip.end_us == round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1e6)
    assert len({clip.source for clip in clips}) == 138


def test_epic_label_map_is_complete_without_class_files_and_with_later_ones(official):
    folder = official / "epic100"
    bare = found("epic_kitchens", folder / "EPIC_100_validation.csv")
    assert bare.labels == (*(f"verb/{n}" for n in range(97)), *(f"noun/{n}" for n in range(300)))
    classes = [folder / f"EPIC_100_{name}.csv" for name in ("validation", "verb_classes", "noun_classes")]
    later = [*classes[:2], folder / "EPIC_100_noun_classes_v2.csv"]
    assert found("epic_kitchens", *later).labels == found("epic_kitchens", *classes).labels
    chosen = rows("epic_kitchens", *classes, classes=("verb/wash",))
    assert chosen and all("verb/wash" in row.clip.labels for row in chosen)


def test_epic_videos_are_looked_for(official, tmp_path):
    path = official / "epic100" / "EPIC_100_validation.csv"
    for name in ("P01/videos/P01_11.MP4", "P01/P01_12.mp4", "P01_13.MP4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sources = {row.clip.source for row in rows("epic_kitchens", path, media_root=tmp_path)}
    for name in ("P01/videos/P01_11.MP4", "P01/P01_12.mp4", "P01_13.MP4", "P01/videos/P01_14.MP4"):
        assert f"{tmp_path}/{name}" in sources
    (row,) = rows("epic_kitchens", path, media_root="https://example.org/epic", videos="v/{video}.mp4", limit=1)
    assert row.clip.source == "https://example.org/epic/v/P01_11.mp4"
    for videos in ("{0}.mp4", "x.mp4", "/v/{video}", "../{video}", "{video.__class__}"):
        with pytest.raises(AnnotationsError, match="--videos"):
            found("epic_kitchens", path, videos=videos)


def epic_55(folder: pathlib.Path) -> list[pathlib.Path]:
    """The form of EPIC-KITCHENS-55."""
    texts = {
        "EPIC_train_action_labels.csv": "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,"
        "start_frame,stop_frame,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
        "6374,P03,P03_01,close fridge,00:23:43.847,00:23:47.212,85430,85643,close,1,fridge,2,['fridge'],[2]\n",
        "EPIC_verb_classes.csv": "verb_id,class_key,verbs\n0,take,\"['take', 'grab']\"\n1,close,['close']\n",
        "EPIC_noun_classes.csv": "noun_id,class_key,nouns\n0,pan,['pan']\n2,fridge,['fridge']\n1,cup,['cup']\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def test_epic_55(tmp_path, shared):
    paths = epic_55(tmp_path)
    annotations = found("epic_kitchens", *paths)
    ((row),) = annotations.rows()
    assert (row.clip.id, row.clip.split, row.clip.labels) == ("6374", "train", ("verb/close", "noun/fridge"))
    assert (row.clip.start_us, row.clip.end_us) == (1_423_847_000, 1_427_212_000)
    assert annotations.labels == ("verb/take", "verb/close", "noun/pan", "noun/cup", "noun/fridge")
    with pytest.raises(AnnotationsError, match=r"wants EPIC_verb_classes.csv and EPIC_noun_classes.csv"):
        found("epic_kitchens", paths[0])
    with pytest.raises(AnnotationsError, match="two datasets"):
        found("epic_kitchens", *paths, shared / "annotations" / "epic100" / "EPIC_100_validation.csv")


def test_moments_official_form_and_folders_name_the_same_files(tmp_path):
    names = ["clapping/yt-a_8.mp4", "clapping/b.mp4", "playing+music/c.mp4"]
    for name in names:
        (tmp_path / "training" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "training" / name).touch()
    (tmp_path / "training" / "clapping" / "notes.txt").touch()
    (tmp_path / "trainingSet.csv").write_text("".join(f"{name},{name.split('/')[0]},3,1\n" for name in names))
    (tmp_path / "moments_categories.txt").write_text("playing+music,1\nclapping,0\nhugging,2\n")
    listed = found("moments", tmp_path / "trainingSet.csv", tmp_path / "moments_categories.txt", media_root=tmp_path)
    walked = found("moments", tmp_path / "training", tmp_path / "moments_categories.txt", media_root=tmp_path)
    assert listed.labels == walked.labels == ("clapping", "playing+music", "hugging")
    clips = {row.clip.id: row.clip for row in listed.rows()}
    assert clips == {row.clip.id: row.clip for row in walked.rows()}
    assert list(clips) == ["clapping/yt-a_8", "clapping/b", "playing+music/c"]
    assert [row.line for row in walked.rows()] == [1, 2, 3]
    clip = clips["clapping/b"]
    assert (clip.source, clip.split) == (f"{tmp_path}/training/clapping/b.mp4", "train")
    assert (clip.start_us, clip.end_us, clip.labels) == (0, 3_000_000, ("clapping",))


def test_moments_videos_lie_where_their_class_folder_is(official, tmp_path):
    path = official / "moments" / "AVMIT_test_set.csv"
    (tmp_path / "training" / "inflating").mkdir(parents=True)
    (tmp_path / "mowing").mkdir()
    sources = {row.clip.source for row in rows("moments", path, media_root=tmp_path)}
    assert f"{tmp_path}/training/inflating/yt-vRmldM5Wcs4_37.mp4" in sources
    others = {source for source in sources if not source.startswith(f"{tmp_path}/training/inflating/")}
    assert others and all(source.count("/") == f"{tmp_path}/x/y".count("/") for source in others)
    (row,) = rows("moments", path, media_root="gs://bucket/mit", limit=1)
    assert row.clip.source == "gs://bucket/mit/inflating/yt-vRmldM5Wcs4_37.mp4"


def test_moments_labels_are_the_dataset_s_own(official):
    folder = official / "moments"
    with_map = found("moments", folder / "MIT16_train.csv", folder / "mit_label_map.txt")
    assert len(with_map.labels) == 339 and with_map.notes == ()
    assert all(row.clip.id.startswith(f"{row.clip.labels[0]}/") for row in with_map.rows())
    assert "26 classes that occur" in found("moments", folder / "MIT16_train.csv").notes[0]


@pytest.mark.parametrize("dataset", ["audioset", "as500k", "vggsound", "kinetics", "moments"])
def test_videos_is_for_epic_kitchens(dataset):
    with pytest.raises(AnnotationsError, match="--videos is for epic_kitchens only"):
        found(dataset, "x", videos="{video}.mp4")
