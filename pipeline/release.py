"""Media that go while what was made of them stays: the ledger says so first, so that it is true after a kill."""

from collections.abc import Iterable, Mapping

from mbt.pipeline import fetch, fetching, ledger, storms
from mbt.schemas.clip import Outcome


def mark(root: str, run: int, words: Iterable[Mapping]) -> None:
    """Writes to the ledger that the media of clips are not in the store any more; all else stays as it was said.

    Args:
      root: of the dataset.
      run: this one.
      words: the ledger's newest on each clip, with its `id` and span.
    """
    with ledger.Writer(root, run) as writer:
        for word in words:
            fetched = fetch.Fetched(
                outcome=Outcome(word["outcome"]),
                reason=word["reason"],
                detail=word["detail"],
                digest=word["digest"],
                media=word["media"],
                media_start_us=word["media_start_us"],
                signature=ledger.RELEASED,
            )
            fetching.append(writer, dict(word), storms.AFTER, fetched)
