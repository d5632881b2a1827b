"""What earlier runs took, by the ledger: bytes in the media store, and clips a second."""

import dataclasses

import pyarrow.compute as pc

from mbt.pipeline import ledger, media, standing
from mbt.pipeline.forecast.rates import Rates
from mbt.schemas.clip import MICROSECONDS, Outcome


def rates(found: Rates, root: str) -> Rates:
    """The rates with what the ledger in ROOT knows better."""
    attempts = ledger.read(root, ["start_us", "end_us", "outcome", "bytes", "media"])
    stored = attempts.filter(
        pc.and_(
            pc.and_(pc.equal(attempts["outcome"], Outcome.OK.value), pc.greater(attempts["bytes"], 0)),
            pc.starts_with(attempts["media"], f"{media.FOLDER}/"),
        )
    )
    if not len(stored):
        return found
    seconds = pc.sum(pc.subtract(stored["end_us"], stored["start_us"])).as_py() / MICROSECONDS
    return dataclasses.replace(
        found,
        media_bytes=pc.sum(stored["bytes"]).as_py() / seconds,
        media_source=f"the ledger, {len(stored):,} files",
        clips_per_second=standing.rate(root),
    )
