"""Annotation files, as their makers publish them, to clip rows: a module for each dataset, entered by `read.read`."""
