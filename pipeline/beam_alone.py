"""Importing this imports Beam, but not pandas, which Beam takes in wherever it is installed: 1.2 s of each start.

Nothing here has to do with data frames, and who imports pandas afterwards gets it.
"""

import sys

if "apache_beam" not in sys.modules and "pandas" not in sys.modules:
    sys.modules["pandas"] = None  # type: ignore[assignment]  # an import of it fails, which Beam is prepared for
    try:
        import apache_beam  # noqa: F401
    finally:
        del sys.modules["pandas"]
