"""Small studies: files, and rows of runs that were never made."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from studies.records import Row, pack
from studies.study_file import Budget, Study

ARMS: dict[str, Any] = {"trm": [], "no_ema": ["ema=false"], "wide": ["arch.hidden_size=32"]}
CONTENT: dict[str, Any] = {"base": ["experiment=quickstart"], "arms": ARMS, "seeds": 3, "steps": 100}


def write_study(path: Path, **changes: Any) -> Path:
    """A study file with `CONTENT` and changes to it; those of value None are left out."""
    content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def make_rows(
    study: Study, abilities: dict[str, float], puzzles: int = 200, budgets: tuple[Budget, ...] = ("steps",)
) -> list[Row]:
    """The rows of a study whose arms answer so large a share of the puzzles, but for a few puzzles of each seed."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(puzzles)
    rows: list[Row] = []
    for arm, ability in abilities.items():
        for seed in study.seeds:
            right = difficulty < ability + 0.01 * rng.standard_normal(puzzles)
            curve = [float(right.mean()) * share for share in (0.25, 0.5, 0.75, 1.0)]
            rows.append(
                Row(
                    arm=arm,
                    seed=seed,
                    budgets=list(budgets),
                    steps=100,
                    batch_size=8,
                    parameters=1000,
                    training_flops=10**9,
                    pass_flops=10**5,
                    passes=4,
                    puzzles=puzzles,
                    puzzles_digest="00000000",
                    right=pack(right),
                    exact_accuracy=float(right.mean()),
                    cell_accuracy=0.9,
                    exact_accuracy_after_pass=curve,
                    seconds=50.0,
                )
            )
    return rows
