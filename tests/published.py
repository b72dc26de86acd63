"""The commands that README.md and the documents print, as a reader would type them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.runs import ROOT

_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def documents() -> list[Path]:
    """README.md, the other documents of the repository, and the model cards."""
    return [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "weights").glob("*/README.md"))]


def commands(document: Path) -> Iterator[list[str]]:
    """The commands of a document as words, without comments and a leading `uv run`, and with variables filled in."""
    variables: dict[str, str] = {}
    for block in _BLOCK.findall(document.read_text()):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            while words and (assigned := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
                variables[assigned[1]] = assigned[2]
                words.pop(0)
            if words[:2] == ["uv", "run"]:
                words = words[2:]
            if words:
                yield words
