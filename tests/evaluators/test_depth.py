"""Depth stability, compared with a count of single answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.puzzle_dataset import PuzzleSplit
from evaluators.depth import depth_stability, report_depth
from evaluators.rollouts.curve import powers
from tests.evaluators.small_reasoners import small_head
from tests.runs import write_sudoku


def test_depths_are_the_powers_of_two_and_the_last():
    assert powers(1) == [1]
    assert powers(20) == [1, 2, 4, 8, 16, 20]
    assert powers(1024)[-2:] == [512, 1024]


@pytest.mark.parametrize("rows", [None, 4])
def test_points_are_means_over_single_examples(tmp_path: Path, rows: int | None):
    head = small_head("sudoku").eval()
    split = PuzzleSplit([str(write_sudoku(tmp_path / "data", groups=2, tests=7))], "test")
    source, shard = split.sources[0], split.sources[0].shards[0]
    inputs = torch.from_numpy(np.array(shard.inputs).astype(np.int32))
    steps = list(head.model.answer_steps({"inputs": inputs, "puzzle_identifiers": torch.zeros(7).int()}, 5))
    answers = torch.stack([outputs["logits"].argmax(-1) for _, outputs in steps])
    # the answers of some steps are taken as the solutions, so that some are right for a while
    taken = torch.tensor([0, 1, 2, 3, 4, 4, 0])
    labels = answers[taken, torch.arange(7)]
    shard = replace(shard, labels=labels.numpy())
    asked = labels > 0  # in the files, label 0 means that nothing is asked for
    assert asked.any(1).sum() > 4
    answers, labels, asked = answers[:, asked.any(1)], labels[asked.any(1)], asked[asked.any(1)]
    cells = (answers == labels) & asked
    right = cells.sum(-1) == asked.sum(-1)
    points = depth_stability(head, source, shard, 5, rows=rows)
    assert [point.steps for point in points] == [1, 2, 4, 5]
    for point in points:
        now, ever = right[point.steps - 1], right[: point.steps].any(0)
        assert point.exact_accuracy == pytest.approx(float(now.float().mean()))
        assert point.ever_right == pytest.approx(float(ever.float().mean()))
        assert point.lost == pytest.approx(float((ever & ~now).float().mean()))
        share = (cells[point.steps - 1].sum(-1) / asked.sum(-1)).mean()
        assert point.accuracy == pytest.approx(float(share))
    assert points[0].state_change is None
    assert points[1].state_change is not None
    assert points[1].state_change > 0
    lines: list[str] = []
    report = report_depth(points, 6, tmp_path / "depth.png", lines.append)
    assert [point["steps"] for point in report] == [1, 2, 4, 5]
    assert len(lines) == 5
    assert (tmp_path / "depth.png").stat().st_size > 1000
