"""Statistics come out the same to the last bit, however a Beam job cuts and orders its shards."""

import json
import random

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from mbt.pipeline.build import AddUp
from mbt.schemas import index as shard_index
from mbt.schemas.statistics import Statistics

pytestmark = pytest.mark.quick


def statistics(sums: list[float], rows: list[int], labels: list[int]) -> Statistics:
    """Those of a shard with a record for each sum."""
    records = np.zeros(len(sums), shard_index.RECORD)
    records["mel_sum"], records["mel_sum_of_squares"] = sums, np.square(sums)
    records["num_mel_rows"] = rows
    ids = tuple(map(str, range(len(sums))))
    pieces = np.zeros(0, shard_index.PIECE)
    return Statistics.of(
        shard_index.Index(records=records, pieces=pieces, labels=np.array(labels, np.int32), ids=ids, absent=())
    )


record = st.tuples(st.floats(-1e9, 1e9), st.integers(1, 1000), st.integers(0, 3))
shards = st.lists(st.lists(record, max_size=4), min_size=1, max_size=8)


@given(shards, st.randoms(use_true_random=False), st.integers(1, 4))
def test_neither_order_nor_bundles_matter(shards, chance, bundles):
    combine = AddUp()
    parts = [statistics(*([row[field] for row in rows] for field in range(3))) for rows in shards]
    expected = combine.merge_accumulators(parts).of_split(("a", "b", "c", "d"))
    shuffled = chance.sample(parts, len(parts))
    accumulators = []
    for start in range(bundles):
        accumulator = combine.create_accumulator()
        for part in shuffled[start::bundles]:
            accumulator = combine.add_input(accumulator, Statistics.from_json(json.loads(json.dumps(part.to_json()))))
        accumulators.append(accumulator)
    found = combine.extract_output(combine.merge_accumulators(accumulators))
    assert found.of_split(("a", "b", "c", "d")) == expected


def test_a_job_adds_up_each_split():
    """Sums of which an addition of floats would lose all but the largest."""
    parts = [("train", statistics([value], [10], [0])) for value in (1e17, 1.0, -1e17, 3.0)]
    parts += [("test", statistics([2.0, 4.0], [10, 20], [1, 1])), ("test", statistics([], [], []))]
    random.Random(0).shuffle(parts)
    with beam.Pipeline() as pipeline:
        found = pipeline | beam.Create(parts) | beam.CombinePerKey(AddUp()) | beam.MapTuple(means)
        assert_that(
            found, equal_to([("train", 4 / (40 * 128), 0.4, {"a": 4}), ("test", 6 / (30 * 128), 0.3, {"b": 2})])
        )


def means(split: str, each: Statistics) -> tuple:
    fields = each.of_split(("a", "b"))
    return split, fields["mel_mean"], fields["seconds"], fields["class_counts"]


def test_shortest_and_longest_are_of_records_only():
    added = AddUp().merge_accumulators([statistics([], [], []), statistics([1.0, 2.0], [70, 30], [0, 0])])
    fields = added.of_split(("a",))
    assert (fields["shortest_s"], fields["longest_s"]) == (0.3, 0.7)
    assert Statistics().of_split(()) == {
        **{"mel_mean": 0.0, "mel_stddev": 1.0, "seconds": 0.0, "shortest_s": 0.0, "longest_s": 0.0, "class_counts": {}}
    }
    assert added.of_split(("a",))["mel_mean"] == pytest.approx(3 / (100 * 128))
