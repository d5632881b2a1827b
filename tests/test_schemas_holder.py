"""What stands in the file of a lock, whoever wrote it."""

import json

import pytest

from mbt.schemas.holder import Holder

pytestmark = pytest.mark.quick


def test_what_is_written_is_read():
    holder = Holder.this_process()
    assert Holder.from_json(holder.to_json()) == holder and not holder.is_dead()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("process", value) for value in (0, -1, 1 << 31, 1 << 70, True, 1.5, "1", None)),
        *((name, 7) for name in ("host", "started", "command", "token", "system", "born")),
        *(("by_kernel", value) for value in (1, "yes", None)),
        ("unknown", "field"),
    ],
)
def test_what_no_holder_wrote_is_none(name, value):
    values = json.loads(Holder.this_process().to_json()) | {name: value}
    assert Holder.from_json(json.dumps(values).encode()) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_not_whole_is_none(text):
    assert Holder.from_json(text) is None
