"""What commands say at their end, for people and for machines."""

import json

from mbt.pipeline.assemble import Result
from mbt.pipeline.exchange import PRIVATE_HOST
from mbt.pipeline.hosts import FLAG
from mbt.pipeline.options import Options
from mbt.pipeline.shard import COPIED, DECODED, RELABELLED
from mbt.pipeline.standing import Status
from mbt.pipeline.terminal import by_count, size
from mbt.schemas.clip import Outcome

_SHOWN = ("ok", "gone", "restricted", "blocked", "transient", "unusable", "invalid", "not_tried")


def of_build(result: Result, options: Options) -> str:
    """The end of `mbt-data build`."""
    return json.dumps(_build_json(result), indent=1) if options.json else _build_text(result, options)


def of_status(status: Status, *, as_json: bool) -> str:
    """The end of `mbt-data fetch`, and `mbt-data status`."""
    return json.dumps(_status_json(status), indent=1) if as_json else "\n".join(_status_lines(status))


def of_import(found: int, status: Status, *, as_json: bool) -> str:
    """The end of `mbt-data import`."""
    if as_json:
        return json.dumps({"copies": found} | _status_json(status), indent=1)
    return "\n".join([f"{found} clips have a copy in the folder", *_status_lines(status)])


def _build_json(result: Result) -> dict:
    return {
        "snapshot": result.manifest.snapshot,
        "new": result.is_new,
        "shards_built": result.num_built,
        "shards_reused": result.num_reused,
        "clips_decoded": result.clips[DECODED],
        "clips_copied": result.clips[COPIED],
        "clips_relabelled": result.clips[RELABELLED],
        "seconds": round(result.seconds, 3),
        "clips": result.clips_path,
        "notes": result.notes,
        "splits": {
            name: {"clips": split.num_clips, "records": split.num_records, "lost": split.lost}
            for name, split in result.manifest.splits.items()
        },
        "treatments": {name: split.treatments for name, split in result.manifest.splits.items() if split.treatments},
        "unassigned": result.manifest.unassigned,
    }


def _build_text(result: Result, options: Options) -> str:
    manifest = result.manifest
    lines = list(result.notes)
    for name, split in manifest.splits.items():
        lines.append(
            f"{name}: {split.num_clips} clips, {split.num_records} records, "
            f"{len(split.shards)} shards, {size(split.bytes)}"
        )
        lines += [f"  {count:>8}  {reason}" for reason, count in by_count(split.lost)]
        lines += [f"  {count} clips {word}" for word, count in by_count(split.treatments)]
    if manifest.unassigned:
        lines.append("rows whose split could not be read:")
        lines += [f"  {count:>8}  {reason}" for reason, count in by_count(manifest.unassigned)]
    if result.num_built:
        relabelled = f", {result.clips[RELABELLED]} relabelled" if result.clips[RELABELLED] else ""
        lines.append(f"{result.clips[DECODED]} clips decoded, {result.clips[COPIED]} copied{relabelled}")
    news = "snapshot" if result.is_new else "nothing changed; still snapshot"
    lines.append(
        f"{result.num_built} shards built, {result.num_reused} already there, {result.seconds:.1f} s; "
        f"{news} {manifest.snapshot}"
    )
    if any(split.lost for split in manifest.splits.values()) or manifest.unassigned:
        lines.append(f"why each clip is missing: {result.clips_path}")
    lines.append(f"train on it: mbt-train train --config=demo --workdir=run --config.data.root={options.root}")
    return "\n".join(lines)


def _status_json(status: Status) -> dict:
    return {
        "splits": {name: {"annotated": sum(split.values())} | split for name, split in status.splits.items()},
        "reasons": {
            name: [{"outcome": outcome, "reason": reason, "clips": count} for outcome, reason, count in rows]
            for name, rows in status.reasons.items()
        },
        "no_longer_online": status.num_removed,
        "not_answered": status.num_unanswered,
        "media_missing": status.num_missing,
        "refused_by_older_rules": status.num_outdated,
        "cut_by_older_rules": status.num_old_cuts,
        "left": status.num_left,
        "clips_per_second": status.clips_per_second,
        "seconds_left": status.seconds_left,
        "notes": list(status.notes),
    }


def _status_lines(status: Status) -> list[str]:
    lines = list(status.notes)
    for name, split in status.splits.items():
        total = sum(split.values())
        lines.append(f"{name or 'rows whose split could not be read'}: {total} annotated")
        lines += [
            f"  {split[outcome]:>9} {100 * split[outcome] / total:6.2f} %  {_WORDS[outcome]}"
            for outcome in _SHOWN
            if split[outcome]
        ]
        if reasons := status.reasons.get(name):
            lines.append("  commonest reasons:")
            lines += [f"  {count:>9} {100 * count / total:6.2f} %  {kind}/{reason}" for kind, reason, count in reasons]
    if any(reason == PRIVATE_HOST for rows in status.reasons.values() for _, reason, _ in rows):
        lines.append(f"{PRIVATE_HOST}: {FLAG} lets rows name hosts of your own network")
    if status.num_removed:
        lines.append(f"{status.num_removed} clips are kept that were not online when they were last asked for")
    if status.num_unanswered:
        lines.append(f"{status.num_unanswered} clips are kept whose sources did not answer when they were last asked")
    if status.num_missing:
        lines.append(f"{status.num_missing} clips were fetched, but their media are not in the store any more")
    if status.num_outdated:
        lines.append(f"{status.num_outdated} clips refused by older rules will be tried again by the next build")
    if status.num_old_cuts:
        lines.append(
            f"{status.num_old_cuts} clips have media that an older rule cut, which may be wrong: "
            "mbt-data fetch --recut fetches them again"
        )
    if status.num_left:
        time_left = "" if status.seconds_left is None else f", about {_duration(status.seconds_left)} at the last rate"
        lines.append(f"{status.num_left} clips left to try{time_left}")
    else:
        lines.append("nothing is left to try")
    return lines


_WORDS = {str(outcome): str(outcome) for outcome in Outcome} | {"not_tried": "never tried"}


def _duration(seconds: float) -> str:
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
