"""The commands of `mbt-train`, one to a module: its flags, and the way to its work."""
