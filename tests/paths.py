"""Where the tests find data that is not part of the program. Tests that need it are skipped if it is absent."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
