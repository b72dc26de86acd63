"""docs/demo.ipynb: plain JSON without outputs, whose code runs from top to bottom."""

import ast
import json
import sys
from typing import Any

import pytest

from tests.runs import ROOT

NOTEBOOK = ROOT / "docs" / "demo.ipynb"


def code_cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    return ["".join(cell["source"]) for cell in cells]


def execute(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression, which a notebook would show."""
    tree = ast.parse(cell)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "cell", "exec"), names)
        return None
    del tree.body[-1]
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.thorough
def test_the_notebook_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    names: dict[str, Any] = {}
    shown = [execute(cell, names) for cell in code_cells()]
    pictures = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert len(pictures) == 2
    assert all("data:image/png;base64," in picture for picture in pictures)
    assert names["answer"].solved
    assert names["hard"].solved
    output = capsys.readouterr().out
    assert "undecided: it has no solution, because the digit 5 is in row 1 more than once" in output
    assert "as one of several solutions" in output
    assert "the same answer: True" in output


def test_the_cells_are_python_without_magic_commands():
    cells = code_cells()
    assert len(cells) >= 6
    for cell in cells:
        ast.parse(cell)
