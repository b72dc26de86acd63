"""The votes in a trace, compared with those that the evaluator of ARC counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.build_arc_dataset import Config, build
from dataset.puzzle_dataset import EvalBatches, PuzzleSplit
from dataset.tasks.arc.task import Arc
from evaluators.answers import HaltRule, answer_batches
from evaluators.arc import ARC
from evaluators.trace.choose import trace_examples
from evaluators.trace.page import page
from evaluators.trace.votes import find_votes
from tests.evaluators.small_reasoners import small_head

COPIES = 12
TASKS = {
    name: {"train": [{"input": [[1, 2], [3, number]], "output": [[number, 2]]}], "test": [{"input": [[5, number, 1]]}]}
    for name, number in (("first", 4), ("second", 7))
}


def write_data(folder: Path) -> Path:
    """Two tasks with augmented copies."""
    (folder / "tasks").mkdir(parents=True)
    prefix = folder / "tasks" / "arc"
    Path(f"{prefix}_evaluation_challenges.json").write_text(json.dumps(TASKS))
    Path(f"{prefix}_evaluation_solutions.json").write_text(json.dumps({name: [[[1, 1]]] for name in TASKS}))
    build(
        Config(
            input_file_prefix=str(prefix),
            output_dir=folder / "data",
            subsets=["evaluation"],
            test_set_name="evaluation",
            num_aug=COPIES,
        )
    )
    return folder / "data"


def test_votes_are_those_of_the_evaluator(tmp_path: Path):
    root = write_data(tmp_path)
    split = PuzzleSplit([str(root)], "test")
    source = split.sources[0]
    shard = source.shards[0]
    head = small_head("arc", rows=source.metadata.num_puzzle_identifiers, puzzle_emb_ndim=16, H_cycles=1).eval()
    submission = attempts(head, source, shard, root, tmp_path / "before")
    votes = find_votes(head, source, shard, range(len(shard.inputs)), None, 2).votes
    assert sorted(vote["title"] for vote in votes) == ["test input 1 of first", "test input 1 of second"]
    assert sum(vote["copies"] for vote in votes) == len(shard.inputs)
    for vote in votes:
        name = vote["title"].split()[-1]
        for place, candidate in enumerate(vote["candidates"][:2], start=1):
            grid = np.array(candidate["tokens"]).reshape(candidate["height"], candidate["width"]) - 2
            assert grid.tolist() == submission[name][0][f"attempt_{place}"]
            assert candidate["place"] == place
            assert not candidate["right"]

    # with the second candidate as the solution, the right answer was there and lost the vote
    vote = next(vote for vote in votes if len(vote["candidates"]) > 1 and vote["candidates"][1]["height"])
    second = vote["candidates"][1]
    solution = (np.array(second["tokens"]) - 2).reshape(second["height"], second["width"]).tolist()
    tasks = json.loads((root / "test_puzzles.json").read_text())
    tasks[vote["title"].split()[-1]]["test"][0]["output"] = solution
    (root / "test_puzzles.json").write_text(json.dumps(tasks))
    options: dict[str, Any] = {"rule": HaltRule(), "early_halting": False, "max_steps": 2}
    about = {"name": "small", "task_options": {}}
    trace = trace_examples(head, source, shard, Arc(900, 12), about, 1, [vote["examples"][0]], **options)
    assert trace is not None
    (found,) = trace.votes
    assert [candidate["right"] for candidate in found["candidates"][:2]] == [False, True]
    carried = {example for candidate in found["candidates"] for example in candidate["examples"]}
    assert carried <= set(trace["index"].tolist()) <= set(found["examples"])
    assert "test input 1 of" in page([trace])


def attempts(head: Any, source: Any, shard: Any, root: Path, folder: Path) -> dict[str, Any]:
    """The submission of the evaluator."""
    arc = ARC(str(root), source.metadata)
    arc.begin_eval()
    batches = [
        {key: torch.from_numpy(value) for key, value in batch.items()} for batch in EvalBatches(source, shard, 64)
    ]
    with torch.inference_mode():
        for batch, answers in answer_batches(head, batches, 64, max_steps=2):
            arc.update_batch({**batch, "puzzle_identifiers": batch["own_identifiers"]}, answers.predictions)
    arc.result(str(folder), 0, 1)
    return json.loads((folder / "submission.json").read_text())
