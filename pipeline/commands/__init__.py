"""The commands of `mbt-data`, one to a module: its flags, and the way to its work."""
