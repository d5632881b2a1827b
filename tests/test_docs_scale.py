"""What docs/scale.md says of AudioSet is what `mbt-data plan` computes, and each of its other lines adds up."""

import pathlib
import re

import numpy as np
import pyarrow as pa
import pytest
from formulas import evaluate, lines, number

from mbt.pipeline import plan
from mbt.pipeline.forecast import Forecast, losses, rates, sheet
from mbt.pipeline.forecast.counts import Counts

pytestmark = pytest.mark.quick

TEXT = (pathlib.Path(__file__).parents[1] / "docs/scale.md").read_text()
BLOCKS = re.findall(r"^```text\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
CLIPS = {"balanced_train": 22_160, "eval": 20_371, "unbalanced_train": 2_041_789}
SECONDS = 10


def shards() -> dict[str, int]:
    """By the rule of a build."""
    splits = pa.array(list(CLIPS)).take(pa.array(np.repeat(np.arange(len(CLIPS)), list(CLIPS.values()))))
    starts = pa.array(np.zeros(len(splits), np.int64))
    ends = pa.array(np.full(len(splits), SECONDS * 1_000_000))
    return plan.num_shards(pa.table({"split": splits, "start_us": starts, "end_us": ends}))


def audioset() -> Forecast:
    """With the inputs that the document states."""
    total = sum(CLIPS.values())
    counts = Counts(
        splits=CLIPS,
        shards=dict(sorted(shards().items())),
        invalid=0,
        seconds=float(total * SECONDS),
        local=0,
        missing=0,
        there=0,
        lost={},
        tried={},
        attempts=0,
        left=total,
        videos=total,
        youtube=total,
        built=0,
    )
    found = rates.Rates(
        cpu_s=0.045, cpu_source=rates.DOCUMENTED, start_cpu_s=2.5, start_source=rates.DOCUMENTED, measured=()
    )
    wishes = sheet.Wishes(machines=20, addresses=20, interval_s=12.0, cores=2)
    return Forecast(sections=sheet.sections(counts, losses.of("audioset", {}), found, wishes), measured=(), notes=())


def test_the_plan_is_what_is_printed():
    assert audioset().to_text() + "\n" == BLOCKS[0]


def test_every_line_of_the_document_adds_up():
    """Each number by its formula, with the numbers above it."""
    names: dict[str, float] = {}
    count = 0
    for block in BLOCKS:
        for name, value, formula in lines(block):
            if formula:
                assert number(value) == pytest.approx(evaluate(formula, names), rel=0.05), (name, formula)
                count += 1
            names[name] = number(value)
    for section in audioset().sections:  # unrounded
        names |= {line.name: line.value for line in section.lines}
    assert count > 30
