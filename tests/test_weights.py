"""The models in weights/ solve as many puzzles as their cards say, judged by a sample of the held-out ones."""

import csv
import re
from pathlib import Path

import pytest

from evaluators.loading import load
from tests.runs import ROOT
from utils.statistics import wilson

LARGEST = 3_000_000  # bytes of a file of weights
SAMPLE = "held_out.csv"
MODELS = sorted(path.parent for path in (ROOT / "weights").glob(f"*/{SAMPLE}"))


def stated(folder: Path) -> tuple[int, int, float, float]:
    """What the card says: puzzles solved, of how many, and the interval in percent."""
    pattern = r"\| result \| ([\d,]+) of ([\d,]+) .*?([\d.]+) to ([\d.]+) %"
    found = re.search(pattern, (folder / "README.md").read_text())
    assert found is not None, f"{folder}: the card states no result"
    solved, total = (int(text.replace(",", "")) for text in found.groups()[:2])
    return solved, total, float(found[3]), float(found[4])


def test_there_are_models():
    assert "sudoku_newspaper" in [folder.name for folder in MODELS]


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_card_states_the_interval_of_its_result(folder: Path):
    solved, total, low, high = stated(folder)
    assert total >= 300
    assert [low, high] == [round(100 * bound, 1) for bound in wilson(solved, total)]
    assert (folder / "model.safetensors").stat().st_size <= LARGEST


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_model_solves_as_many_as_its_card_says(folder: Path):
    """The interval of the sample meets that of the card; a sample of 100 shows a loss of some 10 % of the puzzles."""
    with (folder / SAMPLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 100
    answers = load(folder).solve([row["question"] for row in rows], attempts=None)
    right = [answer.written == row["answer"] for answer, row in zip(answers, rows, strict=True)]
    if folder.name.startswith("sudoku"):  # with one solution, the rules and the label agree
        assert [answer.solved for answer in answers] == right
    low, high = wilson(sum(answer.solved for answer in answers), len(answers))
    solved, total, *_ = stated(folder)
    card_low, card_high = wilson(solved, total)
    assert low <= card_high
    assert card_low <= high
