"""Where the tests find data that is not part of the program. Tests that need it are skipped if it is absent."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("SHARED_DATA") or Path(__file__).resolve().parents[1].parent / "shared")
