"""Records that turn out damaged: named, listed, replaced."""

import hashlib
import struct
import sys
import threading

from mbt.train.errors import RunError

# So many damaged records in turn are no accident.
ATTEMPTS = 20


class DamagedRecordError(RunError):
    """Bytes of a record are not what was written."""

    def __init__(self, shard: str, clip: str, reason: str):
        super().__init__(f"shard {shard}, clip {clip}: {reason}; delete the shard and run `mbt-data build` again")
        self.shard = shard
        self.clip = clip
        self.reason = reason


def replacement(seed: int, epoch: int, slot: int, attempt: int, num_records: int) -> int:
    """The record that takes the slot of a damaged one.

    It depends on nothing else, not even on what was found damaged before: so a resumed run draws the same.
    """
    key = struct.pack("<4q", seed, epoch, slot, attempt)
    return int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little") % num_records


class DamageList:
    """The damaged records found so far, each once; filled by any thread.

    Attributes:
      entries: dicts with `record` (its number), `shard`, `clip` and `reason`, in the order of finding.
    """

    def __init__(self) -> None:
        self.entries: list[dict] = []
        self._known: set[int] = set()
        self._lock = threading.Lock()

    def add(self, record: int, error: DamagedRecordError) -> None:
        """Lists a record, and says so on stderr, unless it is listed."""
        with self._lock:
            if record in self._known:
                return
            self._known.add(record)
            self.entries.append({"record": record, "shard": error.shard, "clip": error.clip, "reason": error.reason})
        print(f"damaged record, left out: {error}", file=sys.stderr, flush=True)
