"""Writes the tables anew."""

from pathlib import Path

from mbt.pipeline.curves import CURVES

for curve in CURVES:
    Path(curve.path).write_text(curve.table())
