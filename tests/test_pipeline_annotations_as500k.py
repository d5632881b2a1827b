"""AS500k: the draw against a plain one, and through the files."""

import collections
import hashlib
import importlib.util
import pathlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbt.pipeline.annotations import as500k
from mbt.pipeline.annotations.read import Selection, read
from mbt.pipeline.annotations.rows import AnnotationsError, Row
from mbt.schemas.clip import Clip

NAMES = tuple(f"class {number}" for number in range(as500k.NUM_CLASSES))


def pool_of(clips: list[tuple[str, tuple[int, ...]]]) -> as500k.Pool:
    pool = as500k.Pool(NAMES)
    rows = (
        Row(line=line, clip=Clip(id=id_, split="", source="", start_us=0, end_us=1, labels=tuple(NAMES[n] for n in ns)))
        for line, (id_, ns) in enumerate(clips)
    )
    pool.add(rows)
    return pool


def plainly(balanced, candidates, wanted) -> set[str]:
    """docs/datasets.md, word for word, as slowly as can be."""
    inside = {id_ for id_, _ in balanced}
    counts = collections.Counter(label for labels in dict(reversed(balanced)).values() for label in labels)
    left = dict(reversed([clip for clip in candidates if clip[0] not in inside]))
    drawn: set[str] = set()
    while len(inside) + len(drawn) < wanted and left:
        label = min({label for labels in left.values() for label in labels}, key=lambda each: (counts[each], each))
        having = [id_ for id_, labels in left.items() if label in labels]
        id_ = min(having, key=lambda each: hashlib.sha256(each.encode()).digest())
        counts.update(left.pop(id_))
        drawn.add(id_)
    return drawn


CLIPS = st.lists(
    st.tuples(st.integers(0, 60).map("clip {}".format), st.sets(st.integers(0, 8), min_size=1, max_size=4).map(tuple)),
    max_size=50,
)


@settings(max_examples=300, deadline=None)
@given(balanced=CLIPS, candidates=CLIPS, share=st.floats(0, 1))
def test_the_draw_is_the_one_that_is_documented(balanced, candidates, share):
    inside = {id_ for id_, _ in balanced}
    different = len(inside | {id_ for id_, _ in candidates})
    wanted = len(inside) + int(share * (different - len(inside)))
    pool = pool_of(balanced + candidates)
    drawn = as500k.draw(pool, len(balanced), wanted)
    assert not drawn[: len(balanced)].any()
    ids = [candidates[place][0] for place in np.flatnonzero(drawn[len(balanced) :])]
    assert len(ids) == len(set(ids)) == wanted - len(inside)
    assert set(ids) == plainly(balanced, candidates, wanted)
    with pytest.raises(AnnotationsError, match=f"hold only {different} different ones"):
        as500k.draw(pool, len(balanced), different + 1)


@pytest.fixture
def lists(tmp_path) -> list[pathlib.Path]:
    """A balanced, an unbalanced and an eval list, in the form of AudioSet; written by the benchmark's own writer."""
    path = pathlib.Path(__file__).parents[1] / "benchmarks" / "annotations.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_annotations", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    sizes = {"balanced_train_segments.csv": 500, "unbalanced_train_segments.csv": 5_000, "eval_segments.csv": 50}
    for seed, (name, rows) in enumerate(sizes.items()):
        benchmark.write(tmp_path / name, rows, seed)
    return [tmp_path / name for name in sizes]


def read_rows(*files, **rest):
    annotations = read(Selection(dataset="as500k", files=tuple(map(str, files)), media_root="/m", **rest))
    return list(annotations.rows())


def test_as500k_holds_the_balanced_list_and_does_not_depend_on_the_order_of_lines(lists, monkeypatch):
    monkeypatch.setattr(as500k, "NUM_CLIPS", 2_000)
    balanced, unbalanced, evaluation = lists
    rows = read_rows(*lists)
    splits = collections.Counter(row.clip.split for row in rows)
    assert splits == {"train": 2_000, "eval": 50}
    by_file = collections.Counter(row.file for row in rows)
    assert by_file == {balanced.name: 500, unbalanced.name: 1_500, evaluation.name: 50}
    assert len({row.clip.id for row in rows}) == 2_050 and not any(row.reason for row in rows)
    drawn = [row for row in rows if row.file == unbalanced.name]
    assert common_classes(drawn) > 1.4 * common_classes(read_all([unbalanced])[:1_500])
    lines = unbalanced.read_text().splitlines(keepends=True)
    shuffled = random.Random(7).sample(lines[3:], len(lines) - 3)
    unbalanced.write_text("".join(lines[:3] + shuffled))
    assert {row.clip.id for row in read_rows(*reversed(lists))} == {row.clip.id for row in rows}
    assert len(read_rows(*lists, limit=3)) == 9


def common_classes(rows: list[Row]) -> int:
    counts = collections.Counter(label for row in rows for label in row.clip.labels)
    return sum(count >= 5 for count in counts.values())


def read_all(files) -> list[Row]:
    return list(read(Selection(dataset="audioset", files=tuple(map(str, files)), media_root="/m")).rows())


def test_damage_counts_and_missing_lists_are_named(lists, monkeypatch):
    monkeypatch.setattr(as500k, "NUM_CLIPS", 2_000)
    balanced, unbalanced, _ = lists
    with pytest.raises(AnnotationsError, match=r"wants unbalanced_train_segments.csv too"):
        read_rows(balanced)
    text = unbalanced.read_text().splitlines(keepends=True)
    text[100] = "#NAME?" + text[100][11:]
    unbalanced.write_text("".join(text))
    with pytest.raises(AnnotationsError, match=r"unbalanced_train_segments.csv, line 101, column 1 \(YTID\)"):
        read_rows(*lists)
    rows = read_rows(*lists, max_bad_rows=1)
    assert collections.Counter(row.reason for row in rows) == {"": 2_050, "bad_youtube_id": 1}
    unbalanced.write_text("".join(text[:-1]))
    with pytest.raises(AnnotationsError, match=r"promises num_segs=5000, but 4999 segments"):
        read_rows(*lists, max_bad_rows=1)


def test_half_a_million_are_wanted(lists):
    with pytest.raises(AnnotationsError, match=r"wants 500000 clips, and the lists hold only 5500 different ones"):
        read_rows(*lists)
