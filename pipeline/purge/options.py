"""What `mbt-data purge` was told."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurgeOptions:
    """What `mbt-data purge` was told.

    Attributes:
      root: of the dataset.
      clip_ids: to remove.
      reason: for tombstones and manifests.
      delete: False to say only what would be done.
      take_over: from a writer that crashed.
    """

    root: str
    clip_ids: frozenset[str]
    reason: str
    delete: bool
    take_over: bool = False
