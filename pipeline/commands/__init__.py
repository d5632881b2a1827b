"""The commands of `mbt-data`, a module each."""
