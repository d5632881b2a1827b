"""Which times tombstones ban: those of clips that were named, and not those of clips that went along with them."""

import pytest

from mbt.pipeline import tombstones
from mbt.pipeline.purge import ban
from mbt.pipeline.tombstones import Span
from mbt.schemas.manifest import FormatError

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


def test_what_was_found_elsewhere_is_remembered_and_stays(tmp_path):
    """Its time bans as a clip's does; where nobody knows the time, the file and its source are not stored."""
    root = str(tmp_path)
    timed = Span(source="other.webm", start_us=2_000_000, end_us=5_000_000, digest="d1")
    unknown = Span(source="third.webm", start_us=0, end_us=0, digest="d2")
    tombstones.remember(root, [timed, unknown])
    tombstones.add(root, {"named": [NAMED]}, "r")
    tombstones.remember(root, [timed])
    assert set(tombstones.read(root)) == {"named"} and tombstones.found(root) == {timed, unknown}
    purged = tombstones.spans(root)
    assert set(purged) == {NAMED, timed}
    assert [span.start_us for span in purged.of_media("copy.webm", "d1", 1_000_000)] == [3_000_000]
    assert purged.may_hold("copy.webm", "d2") and purged.may_hold("third.webm", "else")
    assert not purged.may_hold("other.webm", "else") and not purged.may_hold("copy.webm", "d1")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[" * 100_000, "null", "[]", "{}", '{"clips": []}', '{"clips": {"a": 1}}', "\udcff"),
        '{"clips": {"a": {"spans": 1}}}',
        '{"clips": {"a": {"spans": [{"source": "a"}]}}}',
        '{"clips": {}, "found": [{"source": 1, "start_us": 0, "end_us": 1}]}',
        '{"clips": {}, "found": [{"source": "a", "start_us": "0", "end_us": 1}]}',
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, text):
    (tmp_path / "tombstones.json").write_text(text, errors="surrogateescape")
    for reader in (tombstones.read, tombstones.found, tombstones.spans):
        with pytest.raises(FormatError, match=r"^\S*tombstones\.json [^\n]* put a copy of it back$"):
            reader(str(tmp_path))


def test_moments_closer_than_a_clip_is_long_are_one_time():
    assert ban.joined([(9, 10), (0, 1), (3, 4), (2, 5)], 3) == [(0, 5), (9, 10)]
    assert ban.joined([], 3) == []
