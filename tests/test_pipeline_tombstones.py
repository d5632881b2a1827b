"""Which times tombstones ban: those of clips that were named, and not those of clips that went along with them."""

import pytest

from mbt.pipeline import tombstones
from mbt.pipeline.tombstones import Span

pytestmark = pytest.mark.quick

NAMED = Span(source="film.mp4", start_us=0, end_us=5_000_000)
ALONG = Span(source="film.mp4", start_us=4_000_000, end_us=12_000_000)


def test_a_clip_that_nobody_named_bans_its_id_and_no_other_clips_time(tmp_path):
    root = str(tmp_path)
    tombstones.add(root, {"named": [NAMED], "along": [ALONG]}, "first", frozenset({"along"}))
    assert set(tombstones.read(root)) == {"named", "along"}
    assert list(tombstones.spans(root)) == [NAMED]


def test_it_bans_it_once_it_is_named_itself(tmp_path):
    root = str(tmp_path)
    tombstones.add(root, {"named": [NAMED], "along": [ALONG]}, "first", frozenset({"along"}))
    tombstones.add(root, {"named": [NAMED], "along": []}, "second")
    dead = tombstones.read(root)
    assert "overlaps" not in dead["along"] and dead["along"]["reason"] == "second"
    assert dead["named"]["reason"] == "first"
    assert set(tombstones.spans(root)) == {NAMED, ALONG}
