"""The order of snapshots: by descent, for a clock may be set back."""

from collections.abc import Iterable

from mbt.schemas.manifest import Manifest


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Snapshots, the oldest first; the last one is the newest.

    None counts as older than its parent, whatever the clock said: the order is that of `created`, where a snapshot
    counts as created no earlier than each of its ancestors; then of the number of ancestors, then of the name. A parent
    that is not there any more, or that descends from its own child, is no parent.
    """
    known = {manifest.snapshot: manifest for manifest in manifests}
    places: dict[str, tuple[str, int]] = {}
    for name in known:
        for descendant in reversed(_line(known, name, places)):
            manifest = known[descendant]
            created, ancestors = places.get(manifest.parent or "", ("", -1))
            places[descendant] = max(manifest.created, created), ancestors + 1
    return sorted(known.values(), key=lambda manifest: (*places[manifest.snapshot], manifest.snapshot))


def _line(known: dict[str, Manifest], name: str, placed: dict[str, tuple[str, int]]) -> list[str]:
    """A snapshot and its ancestors, as far as they are not placed yet."""
    line: dict[str, None] = {}
    step: str | None = name
    while step is not None and step in known and step not in placed and step not in line:
        line[step] = None
        step = known[step].parent
    return list(line)
