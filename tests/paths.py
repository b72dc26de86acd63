"""Where the tests find data that is not part of the program; a test that needs it is skipped where it is absent."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
