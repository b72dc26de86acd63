"""An evaluation that is interrupted goes on where it was, and finds what it would have found."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evaluators.evaluation
import evaluators.unfinished
from dataset.puzzle_dataset import PuzzleSplit
from evaluators.answers import answer_batches
from evaluators.evaluation import EvaluationResult, evaluate_split
from evaluators.unfinished import FOLDER, Unfinished
from evaluators.votes import Candidate, Votes, pack_votes, unpack_votes
from tests.evaluators.test_evaluation import agree, head_of, write_random
from tests.ranks import on_two_ranks
from utils.distributed import Ranks
from utils.stop_signals import Interrupted


@pytest.fixture
def split(tmp_path: Path) -> PuzzleSplit:
    return PuzzleSplit([write_random(tmp_path / "data", sets=2)], "test")


def evaluate(split: PuzzleSplit, folder: Path, of: str = "mine", **options: Any) -> dict[str, EvaluationResult]:
    """An evaluation in six batches a set, which writes what it has after each of them."""
    unfinished = Unfinished(folder, of, Ranks(), seconds=0)
    settings: dict[str, Any] = {"device": torch.device("cpu"), "ranks": Ranks(), "global_batch_size": 4, **options}
    return evaluate_split(head_of(), split, [], unfinished=unfinished, save_path=folder, **settings)


def interrupted_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> list[int]:
    """Interrupt after so many batches of a set; returns the list to which the size of each batch is added."""
    sizes: list[int] = []

    def answer(*arguments: Any) -> Iterator[Any]:
        for number, answered in enumerate(answer_batches(*arguments)):
            if number == batches:
                raise KeyboardInterrupt
            sizes.append(len(answered[0]["inputs"]))
            yield answered

    monkeypatch.setattr(evaluators.evaluation, "answer_batches", answer)
    return sizes


def test_it_goes_on_after_the_last_batch(
    split: PuzzleSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(evaluators.unfinished, "_SHARE", 0)  # after each batch, however long that takes
    expected = evaluate(split, tmp_path / "whole")
    sizes = interrupted_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(split, tmp_path / "run")
    assert sizes == [4] * 4
    sizes = interrupted_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(split, tmp_path / "run")  # to the end of the first set and into the second
    assert sizes == [4, 3, *[4] * 4]
    assert "all: going on after batch 4 of 6" in capsys.readouterr().out
    sizes = interrupted_after(monkeypatch, 9)
    found = evaluate(split, tmp_path / "run")
    assert sizes == [4, 3]
    assert found.keys() == expected.keys() == {"all", "more"}
    assert all(agree(found[name], expected[name]) for name in found)
    Unfinished(tmp_path / "run", "mine", Ranks()).remove()
    assert not (tmp_path / "run" / FOLDER).exists()


@pytest.mark.parametrize("change", ["other", "damaged", "cut", "outputs"])
def test_what_does_not_fit_is_left_alone(
    split: PuzzleSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    interrupted_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(split, tmp_path)
    path = tmp_path / FOLDER / "all.0.npz"
    content = bytearray(path.read_bytes())
    if change == "damaged":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    if change == "cut":
        path.write_bytes(content[: len(content) // 2])
    sizes = interrupted_after(monkeypatch, 9)
    options = {"save_outputs": ["preds"]} if change == "outputs" else {}
    evaluate(split, tmp_path, "other" if change == "other" else "mine", **options)
    assert sizes[:6] == [4, 4, 4, 4, 4, 3]


def stopped(folder: str, ranks: Ranks, after: int | None, goes_on: bool) -> dict[str, EvaluationResult]:
    """An evaluation of which this rank breaks off after so many batches; None: it does not."""
    split = PuzzleSplit([Path(folder) / "data"], "test")
    unfinished = Unfinished(Path(folder), "mine", ranks, seconds=math.inf, goes_on=goes_on)
    asked = iter(range(1, 1000))
    return evaluate_split(
        head_of(), split, [], unfinished=unfinished, stops=lambda: next(asked) == after,
        device=torch.device("cpu"), ranks=ranks, global_batch_size=4,
    )  # fmt: skip


def break_off_on_one_rank(rank: int, folder: str) -> None:
    ranks = Ranks(rank, 2)
    for goes_on in (False, True):
        with pytest.raises(Interrupted):
            stopped(folder, ranks, 2 if rank == 1 else None, goes_on)
    with np.load(Path(folder) / FOLDER / "all.1.npz") as kept:
        assert int(kept["batches"]) == 4  # two of each call
    found = stopped(folder, ranks, None, goes_on=True)
    torch.save({name: vars(result) for name, result in found.items()}, Path(folder) / f"found-{rank}")


@pytest.mark.thorough
def test_ranks_break_off_together(tmp_path: Path):
    write_random(tmp_path / "data", sets=2)
    on_two_ranks(break_off_on_one_rank, tmp_path)
    expected = stopped(str(tmp_path), Ranks(), None, goes_on=False)
    for rank in range(2):
        found = torch.load(tmp_path / f"found-{rank}")
        assert all(agree(EvaluationResult(**found[name]), expected[name]) for name in expected)


def random_votes(seed: int, questions: int = 3, candidates: int = 5) -> Votes:
    rng = np.random.default_rng(seed)
    votes: Votes = {("none", b"\1\1\0"): {}}
    for question in range(questions):
        of_question = votes.setdefault((f"task-{question % 2}", bytes([1, 1, question])), {})
        for _ in range(candidates):
            candidate = Candidate((int(rng.integers(9)), int(rng.integers(3)), int(rng.integers(99))))
            for _ in range(int(rng.integers(1, 9))):
                candidate.add(float(rng.random()))
            of_question[rng.bytes(int(rng.integers(2, 30)))] = candidate
    return votes


@pytest.mark.parametrize("votes", [{}, *map(random_votes, range(3))])
def test_votes_in_arrays_are_the_votes(votes: Votes, tmp_path: Path):
    with (tmp_path / "votes.npz").open("wb") as file:
        np.savez(file, **pack_votes(votes))  # pyright: ignore[reportArgumentType]
    with np.load(tmp_path / "votes.npz", allow_pickle=False) as packed:
        found = unpack_votes(packed)
    assert found == votes
    assert [list(of) for of in found.values()] == [list(of) for of in votes.values()]  # in the same order
