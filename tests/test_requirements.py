"""requirements.txt, for installing with pip, matches what pyproject.toml resolves to."""

import re
import shutil
import subprocess

import pytest

from tests.runs import ROOT

COMMAND = ["uv", "export", "--frozen", "--quiet", "--no-emit-index-url", "--format", "requirements-txt"]


def _pins(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


@pytest.mark.skipif(shutil.which("uv") is None or not (ROOT / "uv.lock").exists(), reason="needs uv and its lock")
def test_requirements_are_current():
    exported = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    committed = (ROOT / "requirements.txt").read_text()
    assert _pins(committed) == _pins(exported), f"run: {' '.join(COMMAND)} -o requirements.txt (without --frozen)"


def test_every_requirement_is_pinned_and_hashed():
    text = (ROOT / "requirements.txt").read_text()
    packages = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert len(packages) > 20
    for package in packages:
        assert "==" in package.splitlines()[0]
        assert "--hash=sha256:" in package
    assert "://" not in text
