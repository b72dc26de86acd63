"""A model for ARC is fine-tuned on a task that it does not know, and then answers it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.loading import load
from tests.evaluators.small_reasoners import write_run
from tests.tiny_recursive_model.running import run
from tiny_recursive_model import adapt
from utils.data_record import FILE
from utils.errors import UserError

TASK: dict[str, Any] = {
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}, {"input": [[3, 4]], "output": [[4, 3]]}],
    "test": [{"input": [[5, 6]]}],
}
SMALL = ["device=cpu", "global_batch_size=4", "show_example=false", "eval_traces=0", "report=false"]
SMALL += ["wandb_mode=disabled", "evaluators=[]", "lr=1e-3"]


@pytest.mark.thorough
def test_a_task_that_is_not_known_is_adapted_to(tmp_path: Path):
    folder = write_run(tmp_path / "run", "arc", rows=3, puzzle_emb_ndim=16)
    before = load(folder)
    with pytest.raises(UserError, match="not among those"):
        before.solve(TASK, name="swap")
    (folder / FILE).unlink()  # it has no digests
    small = {"epochs": 4, "augmentations": 3, "overrides": SMALL}
    after = adapt(folder, {"swap": TASK}, output=tmp_path / "adapted", **small)
    answer = after.solve(TASK, name="swap")
    assert answer.question.name == "swap"
    assert answer.verdict.status == "undecided"
    changed = [k for k, v in before.head.state_dict().items() if not torch.equal(v, after.head.state_dict()[k])]
    assert any("lm_head" in name for name in changed)
    assert after.head.model.puzzle_emb is not None
    assert len(after.head.model.puzzle_emb.weights) == 1 + 4  # blank, the task and its copies
    assert before.origin.arch.own_keys.items() <= after.origin.arch.own_keys.items()


def test_what_cannot_be_adapted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sudoku = load(write_run(tmp_path / "sudoku", "sudoku"))
    arc = write_run(tmp_path / "run", "arc", rows=3, puzzle_emb_ndim=16)
    (tmp_path / "task.json").write_text(json.dumps({"train": TASK["train"]}))
    for model, tasks, message in (
        (sudoku, {"swap": TASK}, "no model for ARC"),
        (arc, {}, "there is no task"),
        (arc, {"a/b": TASK}, "slashes"),
        (arc, {"swap": [[1]]}, "expected is an object"),
        (arc, tmp_path / "task.json", "test"),
        (arc, tmp_path / "absent.json", "absent.json"),
    ):
        with pytest.raises(UserError, match=message):
            adapt(model, tasks, output=tmp_path / "out")
        assert not (tmp_path / "out").exists()
    code, _, errors = run(monkeypatch, "predict", "53..", "--adapt", "3")
    assert code == 2
    assert "--model" in errors
