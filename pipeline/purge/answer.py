"""What a purge says at its end, for people and for machines."""

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence

from mbt.pipeline import needles, storage
from mbt.pipeline.purge.find import Found
from mbt.pipeline.purge.options import PurgeOptions
from mbt.pipeline.purge.proof import Proof

_OVERLAP = "it shows a part of a clip that went for its overlap alone, and none of the named clips' time"
_LOOKS_SO = "its own source shows the same; name this clip too if it must go"
_KEPT = {
    "gs": "a bucket may keep deleted objects: turn soft delete and object versioning off, or delete the kept "
    "objects too (gcloud storage ls --soft-deleted, and --all-versions, list them)",
    "s3": "the bucket may keep deleted objects: suspend its versioning, and delete the old versions too (aws s3api "
    "list-object-versions lists them); what is replicated to other buckets stays there",
}


def as_json(options: PurgeOptions, found: Found, proof: Proof | None) -> str:
    """What was found and done, for machines."""
    there = dataclasses.asdict(found) | {"shards": {stem: sorted(clips) for stem, clips in found.shards.items()}}
    shown = None if proof is None else dataclasses.asdict(proof) | {"left": proof.left}
    if shown is not None:
        del shown["scan"]["moments"]  # thousands
    said = {"done": proof is not None, "found": there, "proof": shown, "warnings": _warnings(options, found)}
    return json.dumps(said)


def as_text(options: PurgeOptions, found: Found, proof: Proof | None) -> str:
    """What was found and done, for people."""
    records = sum(len(clips) for clips in found.shards.values())
    lines = [
        f"{len(options.clip_ids)} clips named: {records} records in {len(found.shards)} shard files, "
        f"{len(found.media)} media files ({sum(found.media.values()) / 1e6:.1f} MB), {len(found.reports)} reports; "
        f"snapshots to amend: {', '.join(found.snapshots) or 'none'}"
    ]
    if found.unknown:
        lines.append(f"{len(found.unknown)} are not known here, and get a tombstone: {_some(found.unknown)}")
    lines += _overlap_lines(found)
    lines += [f"warning: {warning}" for warning in _warnings(options, found)]
    if proof is None:
        return "\n".join([*lines, f"nothing was changed: add {_lacking(options, found)}"])
    return "\n".join([*lines, *_proof_lines(proof, found.beside)])


def _lacking(options: PurgeOptions, found: Found) -> str:
    """The flags without which nothing is done."""
    lacking = ["--overlapping=drop"] if found.overlapping else []
    return ", then ".join([*lacking, *([] if options.delete else ["--yes"])])


def _warnings(options: PurgeOptions, found: Found) -> list[str]:
    warnings = []
    if found.linked:
        warnings.append(
            f"{len(found.linked)} of these files have other names outside of {options.root}, such as in an export by "
            f"hard links or in the folder they were imported from, where their bytes stay: {_some(found.linked)}"
        )
    if found.outside:
        warnings.append(f"sources on this machine stay where they are: {_some(found.outside)}")
    if found.in_use:
        warnings.append(
            f"{len(found.in_use)} temporary files of processes that may still run can show a part of it until these "
            f"end: {_some(found.in_use)}"
        )
    if storage.keeps_deleted(options.root):
        warnings.append(_KEPT[storage.scheme(options.root) or ""])
    return warnings


def _overlap_lines(found: Found) -> Iterator[str]:
    if found.overlapping:
        yield (
            f"{len(found.overlapping)} other clips show a part of the same time of the same source: "
            f"{_some(found.overlapping)}. They are in the way: --overlapping=drop removes them too"
        )
    if found.dropped:
        yield f"{len(found.dropped)} other clips show a part of the same time, and go too: {_some(found.dropped)}"
    if found.released:
        yield (
            f"{len(found.released)} media files of clips that stay hold a part of that time "
            f"({sum(found.released.values()) / 1e6:.1f} MB) and are released: {_some(tuple(found.released))}"
        )
    if found.events:
        yield f"{len(found.events)} files of training runs lose their pictures: {_some(found.events)}"
    if found.temporary:
        yield f"{len(found.temporary)} temporary files that killed processes left: {_some(found.temporary)}"


def _proof_lines(proof: Proof, beside: Collection[str]) -> Iterator[str]:
    what = ", ".join(f"{count} {name}" for name, count in proof.searched.items() if count) or "nothing"
    yield f"searched {proof.num_files} files, {proof.bytes / 1e6:.1f} MB, for {what}"
    if proof.plain:
        yield f"  not for {proof.plain} pieces that are as uniform as anybody's, such as silence"
    scan = proof.scan
    yield f"decoded {scan.num_files} media files, for {scan.num_frames} frames and {scan.num_sounds} moments of sound"
    if scan.num_skipped:
        yield f"  {scan.num_skipped} media files of other sources were not decoded: --search=all does"
    if scan.unknown:
        yield f"  {len(scan.unknown)} media files do not decode: {_some(scan.unknown)}"
    if proof.released:
        yield f"  {len(proof.released)} more held a part of it, and are released: {_some(proof.released)}"
    for owner, count in sorted(proof.shared.items()):
        why = _OVERLAP if owner in beside else _LOOKS_SO
        yield f"  {owner}, which stays, holds the same bytes in {count} places: {why}"
    for hit in proof.hits:
        yield f"  left: {hit.length} bytes at {hit.offset} of {hit.path} ({needles.NAMES[hit.kind]})"
    yield from (f"  left: {path} shows or plays a part of it" for path in proof.shown)
    none = "none is left but what stays" if proof.shared else "none is left"
    yield none if not proof.left else "delete what is left, and run this again"


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
