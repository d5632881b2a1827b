"""Configs by name: `mbt-train train --config=NAME`."""
