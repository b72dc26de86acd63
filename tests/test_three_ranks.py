"""Three processes train and evaluate as one does: every architecture, accumulation, early halting, uneven batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from evaluators.answers import HaltRule
from evaluators.evaluation import evaluate_split
from evaluators.language import evaluate_language
from models.losses import ACTLossHead
from models.training import TrainState
from tests.models.small import ARCHITECTURES, small_model, spread_q, train_state
from tests.models.small_text import TEXT_ARCHITECTURES, small_text, small_text_head
from tests.ranks import on_ranks
from tests.runs import write_sudoku
from utils.distributed import Ranks, broadcast_module

RANKS, STEPS, BATCH = 3, 9, 12
CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "global_batch_size": BATCH,
    "grad_accum_steps": 2,
    "grad_clip_norm": 1.0,
    "lr": 1e-4,  # the optimizer is close to a sign, so a larger rate blows up what processors round differently
    "lr_warmup_steps": 3,
    "weight_decay": 0.1,
    "ema": True,
    "ema_rate": 0.9,
}
Found = dict[str, Any]


def train(state: TrainState, batches: Any) -> list[dict[str, float]]:
    broadcast_module(state.head)
    return [
        state.train_step({name: torch.as_tensor(value) for name, value in batches(step).items()})
        for step in range(1, STEPS + 1)
    ]


def weights(state: TrainState) -> Found:
    assert state.ema is not None
    return {**state.head.state_dict(), **{f"average of {name}": value for name, value in state.ema.shadow.items()}}


def puzzles(architecture: str, folder: Path, ranks: Ranks) -> Found:
    """Training and an evaluation in which answers stop early and the last batch is not full."""
    split = PuzzleSplit([folder / "data"], "train")  # 19 groups: batches begin and end in the middle of epochs
    shape = split.metadata
    sizes = {"seq_len": shape.seq_len, "vocab_size": shape.vocab_size}
    model = small_model(
        architecture, **sizes, num_puzzle_identifiers=split.num_puzzle_identifiers, halt_exploration_prob=0.3
    )
    head = ACTLossHead(spread_q(model))
    state = train_state(head, SETTINGS | {"puzzle_emb_lr": 1e-3, "puzzle_emb_weight_decay": 0.1}, ranks, STEPS)
    batches = TrainBatches(split, BATCH, 0, ranks.rank, ranks.world_size)
    metrics = train(state, lambda step: batches[step])
    halts = evaluate_split(
        head,
        PuzzleSplit([folder / "data"], "test"),
        [],
        device=CPU,
        ranks=ranks,
        global_batch_size=6,
        halting=HaltRule(0.5),
    )
    return {"train": metrics, "evaluation": {name: vars(result) for name, result in halts.items()}, **weights(state)}


def text(architecture: str, ranks: Ranks) -> Found:
    """Training, and an evaluation of rows that are not filled alike."""
    head = small_text_head(architecture)
    # the experts' regulariser balances each micro-batch of all ranks, so with experts the parts of a batch matter
    parts = 1 if architecture == "moeut" else 2
    state = train_state(head, SETTINGS | {"grad_accum_steps": parts}, ranks, STEPS)
    local = BATCH // ranks.world_size
    rows = slice(ranks.rank * local, (ranks.rank + 1) * local)
    metrics = train(state, lambda step: {key: x[rows] for key, x in small_text(BATCH, step // 4).items()})
    held_out = [{key: x[rows].numpy() for key, x in small_text(BATCH, 100 + seed).items()} for seed in range(2)]
    return {"train": metrics, "evaluation": evaluate_language(head, held_out, CPU), **weights(state)}


def all_architectures(ranks: Ranks, folder: Path) -> Found:
    found = {f"puzzles, {name}": puzzles(name, folder, ranks) for name in ARCHITECTURES}
    return found | {f"text, {name}": text(name, ranks) for name in TEXT_ARCHITECTURES}


def one_of_three(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    found = all_architectures(Ranks(rank, RANKS), Path(folder))
    torch.save(found, Path(folder) / f"found-{rank}")


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Numbers and tensors by the path to them."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for number, item in enumerate(value) for k, v in flat(item, f"{name}/{number}").items()}
    return {name: value}


@pytest.mark.thorough
def test_three_ranks_are_one(tmp_path: Path):
    write_sudoku(tmp_path / "data", groups=19, tests=7)
    on_ranks(one_of_three, tmp_path, RANKS)
    expected = flat(all_architectures(Ranks(), tmp_path))
    for rank in range(RANKS):
        found = flat(torch.load(tmp_path / f"found-{rank}", weights_only=False))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                torch.as_tensor(found[name]).double(),
                torch.as_tensor(value).double(),
                rtol=1e-5,
                atol=1e-5,
                msg=lambda m, name=name: f"{name}: {m}",
            )
    steps = {name: value for name, value in expected.items() if name.endswith("/steps") and "train" in name}
    assert len({round(value, 3) for value in steps.values()}) > 10  # slots halt at different steps
