"""What the user wants of a dataset."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What the user wants of a dataset.

    Attributes:
      dataset: one of `read.DATASETS`.
      files: `FILE` or `SPLIT=FILE`; every kind of file of the dataset, in any order.
      media_root: local folder, or http(s), gs or s3 URL, where relative paths of videos start.
      videos: where below it a video lies, with `{participant}` and `{video}`; None for the official layout.
      limit: take only so many rows of each file, or None for all.
      classes: take only clips with at least one of these labels; all where empty.
      max_bad_rows: how many damaged rows to admit; None for the dataset's default, all for `csv`, none for the others.
    """

    dataset: str
    files: tuple[str, ...]
    media_root: str
    videos: str | None = None
    limit: int | None = None
    classes: tuple[str, ...] = ()
    max_bad_rows: int | None = None
