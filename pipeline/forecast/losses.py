"""How many of the clips that are left will be lost: by the ledger's own word, or by what others found."""

import dataclasses

from mbt.schemas.clip import Outcome

# Shares of clips that could not be fetched, which nobody reports by reason: all count as gone. docs/scale.md.
_PUBLISHED = {
    "audioset": (0.15, "github.com/edsonroteia/cav-mae-sync/issues/4, 2025-07"),
    "as500k": (0.15, "AudioSet: github.com/edsonroteia/cav-mae-sync/issues/4, 2025-07"),
    "vggsound": (0.20, "github.com/hche11/VGGSound/issues/12, 2021-11"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Losses:
    """Expected losses.

    Attributes:
      shares: by outcome, of the clips that are left to fetch.
      source: where the shares are from.
      known: whether anything is known at all.
    """

    shares: dict[str, float]
    source: str
    known: bool = True


def of(dataset: str, tried: dict[str, int]) -> Losses:
    """From what was tried, as `Counts.tried` has it; else what is published of the dataset; else none."""
    if total := sum(tried.values()):
        shares = {name: count / total for name, count in tried.items() if count and name != Outcome.OK}
        return Losses(shares=shares, source=f"the ledger, {total:,} clips tried")
    if dataset in _PUBLISHED:
        share, source = _PUBLISHED[dataset]
        return Losses(shares={Outcome.GONE.value: share}, source=source)
    return Losses(shares={}, source="none are published", known=False)
