"""What a command that writes was told, checked before anything is done."""

import dataclasses

from mbt.pipeline.annotations.read import Selection
from mbt.pipeline.settings import FetchSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `mbt-data fetch`, `import`, `build`, `status` and `plan` were told; not every command asks everything.

    Attributes:
      root: ROOT of the dataset; of `plan` it may be empty.
      name: of the dataset.
      selection: which annotations.
      fetch: how media are fetched.
      part: of the sources to fetch, as (number, of).
      take_over: from a writer that is known to be dead.
      max_attempts: clips to try in this run, or None for all that are left.
      recheck: outcomes to ask about again, or None: whatever is not settled.
      older_than_s: age of the newest word from which on it is asked again.
      allow_loss: share of a split that may be lost to what may pass, or None for the defaults of `loss_guard`.
      drop_removed: leave clips out that were fetched and are not online any more.
      recut: fetch again what older rules cut out of its source.
      reencode: fetch again what must be made anew by another encoder and has no media.
      num_shards: per split, or None for the default.
      snapshot: name of the snapshot, or None for the time.
      ffmpeg: path of another ffmpeg, or None.
      time_limit_s: of one clip's decoding.
      keep_media: whether fetched media stay once they are in shards.
      json: print the summary as JSON.
      beam: Beam's own flags.
    """

    root: str
    name: str
    selection: Selection
    fetch: FetchSettings = dataclasses.field(default_factory=FetchSettings)
    part: tuple[int, int] = (1, 1)
    take_over: bool = False
    max_attempts: int | None = None
    recheck: frozenset[str] | None = None
    older_than_s: float = 0.0
    allow_loss: float | None = None
    drop_removed: bool = False
    recut: bool = False
    reencode: bool = False
    num_shards: int | None = None
    snapshot: str | None = None
    ffmpeg: str | None = None
    time_limit_s: float = 120.0
    keep_media: bool = True
    json: bool = False
    beam: tuple[str, ...] = ()
