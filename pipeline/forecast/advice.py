"""What a forecast suggests to do."""

import math
from collections.abc import Iterator

from mbt.pipeline.forecast import sheet
from mbt.pipeline.forecast.counts import Counts
from mbt.pipeline.forecast.losses import Losses
from mbt.pipeline.forecast.rates import GUEST_VIDEOS_PER_HOUR, Rates


def of(counts: Counts, losses: Losses, rates: Rates, wishes: sheet.Wishes) -> Iterator[str]:
    """Sentences for the user."""
    if not rates.measured:
        yield (
            "no clip was measured: CPU and bytes are documented averages, which other films miss by half; fetch some, "
            "and plan again"
        )
    if counts.left and not losses.known:
        yield "how many clips are lost is not known: fetch some (mbt-data fetch --max_attempts=200), and plan again"
    granted = GUEST_VIDEOS_PER_HOUR * wishes.addresses / wishes.machines
    pace = sheet.pace(counts, rates, wishes).per_second * sheet.HOUR_S if counts.youtube else 0.0
    if pace > granted:
        yield (
            f"at {pace:,.0f} videos an hour from each machine YouTube will refuse us: guests are granted about "
            f"{GUEST_VIDEOS_PER_HOUR} an hour and address; --sleep={math.ceil(sheet.HOUR_S / granted)} keeps to that"
        )
