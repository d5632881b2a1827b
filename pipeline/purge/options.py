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
      drop_overlapping: removes clips that share any time with one of these too; else they are in the way.
      every_source: decodes all media in the store for the proof, and not only those of the clips' sources.
      workdirs: of training runs, whose pictures of batches go.
      reports: that were written elsewhere, and go.
    """

    root: str
    clip_ids: frozenset[str]
    reason: str
    delete: bool
    take_over: bool = False
    drop_overlapping: bool = False
    every_source: bool = True
    workdirs: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
