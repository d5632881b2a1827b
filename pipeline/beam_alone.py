"""Importing this imports Beam and Arrow, but not pandas, which both take in where it is: 1.2 s of a command's start.

Nothing here has to do with data frames, and who wants one afterwards gets it.
"""

import sys


class _Hidden:
    """An import of pandas fails, which Beam and Arrow are prepared for."""

    def find_spec(self, name: str, *_: object) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        if name == "pandas":
            raise ImportError(name)


if "apache_beam" not in sys.modules and "pandas" not in sys.modules:
    sys.meta_path.insert(0, _Hidden())  # type: ignore[arg-type]
    try:
        import apache_beam  # noqa: F401
        import pyarrow

        pyarrow.array([0])  # looks for pandas, once
    finally:
        del sys.meta_path[0]
