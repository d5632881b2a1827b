"""The order of snapshots: by descent, whatever the clock said."""

import dataclasses
import itertools

import pytest

from mbt.schemas.lineage import in_order
from mbt.schemas.manifest import Manifest

pytestmark = pytest.mark.quick

EMPTY = Manifest(
    dataset="d",
    snapshot="",
    parent=None,
    created="",
    labels=(),
    splits={},
    annotations_sha256="",
    tool_versions={},
)


def order(*snapshots: tuple[str, str | None, int]) -> str:
    """The names of snapshots (name, parent, day of creation), in order; that of the input must not matter."""
    manifests = [
        dataclasses.replace(EMPTY, snapshot=name, parent=parent, created=f"2026-01-{day:02d}T00:00:00+00:00")
        for name, parent, day in snapshots
    ]
    (found,) = {"".join(each.snapshot for each in in_order(some)) for some in itertools.permutations(manifests)}
    return found


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        ([("a", None, 1), ("b", "a", 2), ("c", "b", 3)], "abc"),
        ([("a", None, 9), ("b", "a", 8), ("c", "b", 1)], "abc"),  # the clock was set back, twice
        ([("z", None, 5), ("a", "z", 5)], "za"),  # at the same moment
        ([("a", None, 1), ("b", "a", 2), ("d", "c", 4)], "abd"),  # c was deleted
        ([("b", None, 2), ("a", None, 1), ("c", None, 3)], "abc"),  # of one that tells no parents
        ([("a", None, 1), ("b", "a", 3), ("c", "a", 2)], "acb"),  # two children: the one created last
        ([("a", None, 1), ("b", "a", 2), ("c", "a", 2)], "abc"),  # at once: by name
        ([("a", None, 1), ("b", "a", 2), ("c", "b", 2), ("d", "a", 2)], "abdc"),  # the one with more ancestors
        ([("a", "b", 2), ("b", "a", 1)], None),  # a circle has some end
        ([("a", "a", 1)], "a"),
        ([], ""),
    ],
)
def test_order(snapshots, expected):
    if expected is None:
        assert len(in_order(dataclasses.replace(EMPTY, snapshot=name, parent=parent) for name, parent, _ in snapshots))
    else:
        assert order(*snapshots) == expected


def test_a_long_line_is_no_recursion():
    line = [dataclasses.replace(EMPTY, snapshot=f"{n:05d}", parent=f"{n - 1:05d}", created="") for n in range(5000)]
    assert [manifest.snapshot for manifest in in_order(reversed(line))] == [manifest.snapshot for manifest in line]
