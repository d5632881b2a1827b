"""What is said of many records at once: spectrogram moments, lengths, records per class."""

import collections
import dataclasses
from fractions import Fraction

from mbt.schemas.clip import MEL_BINS, MEL_ROWS_PER_SECOND
from mbt.schemas.index import Index
from mbt.schemas.manifest import mean_and_stddev


@dataclasses.dataclass
class Statistics:
    """Sums that can be added up in any order, to the same last bit: what is added is added exactly.

    Attributes:
      mel_rows: valid spectrogram rows, 10 ms each.
      mel_sum: of all valid spectrogram values.
      mel_sum_of_squares: likewise.
      shortest_rows: rows of the shortest record, or None.
      longest_rows: of the longest.
      labels: records by label index.
    """

    mel_rows: int = 0
    mel_sum: Fraction = Fraction(0)
    mel_sum_of_squares: Fraction = Fraction(0)
    shortest_rows: int | None = None
    longest_rows: int | None = None
    labels: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @classmethod
    def of(cls, index: Index) -> "Statistics":
        """Those of a shard."""
        rows = index.records["num_mel_rows"]
        total, total_of_squares = index.mel_sums()
        return cls(
            mel_rows=int(rows.sum()),
            mel_sum=Fraction(total),
            mel_sum_of_squares=Fraction(total_of_squares),
            shortest_rows=int(rows.min()) if len(rows) else None,
            longest_rows=int(rows.max()) if len(rows) else None,
            labels=collections.Counter(index.labels.tolist()),
        )

    def add(self, other: "Statistics") -> None:
        """Adds those of more records."""
        self.mel_rows += other.mel_rows
        self.mel_sum += other.mel_sum
        self.mel_sum_of_squares += other.mel_sum_of_squares
        shortest = [rows for rows in (self.shortest_rows, other.shortest_rows) if rows is not None]
        longest = [rows for rows in (self.longest_rows, other.longest_rows) if rows is not None]
        self.shortest_rows, self.longest_rows = min(shortest, default=None), max(longest, default=None)
        self.labels.update(other.labels)

    def to_json(self) -> dict:
        """As plain JSON."""
        sums = {"mel_sum": str(self.mel_sum), "mel_sum_of_squares": str(self.mel_sum_of_squares)}
        return dataclasses.asdict(self) | sums | {"labels": sorted(self.labels.items())}

    @classmethod
    def from_json(cls, fields: dict) -> "Statistics":
        """From what `to_json` gave."""
        sums = {name: Fraction(fields[name]) for name in ("mel_sum", "mel_sum_of_squares")}
        return cls(**fields | sums | {"labels": collections.Counter(dict(fields["labels"]))})

    def of_split(self, labels: tuple[str, ...]) -> dict:
        """The fields of `Split` that come from here."""
        sums = float(self.mel_sum), float(self.mel_sum_of_squares)
        mean, stddev = mean_and_stddev(*sums, self.mel_rows * MEL_BINS)
        return {
            "mel_mean": mean,
            "mel_stddev": stddev,
            "seconds": self.mel_rows / MEL_ROWS_PER_SECOND,
            "shortest_s": (self.shortest_rows or 0) / MEL_ROWS_PER_SECOND,
            "longest_s": (self.longest_rows or 0) / MEL_ROWS_PER_SECOND,
            "class_counts": {labels[label]: count for label, count in sorted(self.labels.items())},
        }
