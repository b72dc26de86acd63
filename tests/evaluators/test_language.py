"""Held-out metrics against a naive loop that keeps all logits and counts token by token."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from evaluators.language import evaluate_language, perplexity
from models.recursive_reasoning.text_trm import TextRecursiveModel
from models.text.loss import TextLossHead
from tests.ranks import on_two_ranks
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError

CPU = torch.device("cpu")
VOCAB, SEQ = 11, 12


def small_head(halt_max_steps: int = 3) -> TextLossHead:
    """A small model whose positions halt at different steps."""
    config = {
        "vocab_size": VOCAB,
        "seq_len": SEQ,
        "hidden_size": 16,
        "num_heads": 2,
        "inner_size": 32,
        "L_layers": 1,
        "L_cycles": 2,
        "halt_max_steps": halt_max_steps,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = TextLossHead(TextRecursiveModel(config), "softmax_cross_entropy")
        with torch.no_grad():
            head.model.inner.embed_tokens.embedding_weight.mul_(6)  # predictions far from uniform
            head.model.inner.q_head.weight.normal_()
            assert head.model.inner.q_head.bias is not None
            head.model.inner.q_head.bias.fill_(0.3)
    return head


def batches(count: int, rows: int = 4) -> list[dict[str, np.ndarray]]:
    """Rows of two documents and padding, of different lengths; the last row of the last batch is padding alone."""
    rng = np.random.default_rng(1)
    found = []
    for index in range(count):
        inputs = rng.integers(VOCAB, size=(rows, SEQ), dtype=np.int32)
        labels = rng.integers(VOCAB, size=(rows, SEQ), dtype=np.int32)
        documents = np.zeros((rows, SEQ), np.int32)
        for row in range(rows):
            first, end = sorted(rng.choice(np.arange(2, SEQ), 2, replace=False))
            documents[row, first:] = 1
            documents[row, end:] = -1
        if index == count - 1:
            documents[-1] = -1
        labels[documents == -1] = IGNORE_LABEL_ID
        labels[:, 1] = IGNORE_LABEL_ID
        found.append({"inputs": inputs, "labels": labels, "documents": documents})
    return found


@torch.no_grad()
def naive(head: TextLossHead, data: list[dict[str, np.ndarray]], max_steps: int | None = None) -> dict[str, float]:
    """Position by position from full logits. One document at a time: each is a row of its own."""
    head.eval()
    losses, right, halted, steps = [], [], [], []
    for batch in data:
        for row in range(len(batch["inputs"])):
            for document in (0, 1):
                where = np.flatnonzero(batch["documents"][row] == document)
                if not len(where):
                    continue
                # rotary angles depend on differences of positions alone, so a document may be moved to the start
                inputs = torch.from_numpy(batch["inputs"][row, where][None])
                labels = batch["labels"][row, where]
                for halting in (False, True):
                    state, made = head.model.answers(inputs, None, halting, max_steps)
                    logits = head.model.logits(state)[0].double()
                    for position, label in enumerate(labels):
                        if label == IGNORE_LABEL_ID:
                            continue
                        loss = -float(F.log_softmax(logits[position], 0)[int(label)])
                        if halting:
                            halted.append(loss)
                            steps.append(int(made[0, position]))
                        else:
                            losses.append(loss)
                            right.append(int(logits[position].argmax()) == label)
    return {
        "eval/lm_loss": float(np.mean(losses)),
        "eval/perplexity": float(np.exp(np.mean(losses))),
        "eval/accuracy": float(np.mean(right)),
        "eval/perplexity_halted": float(np.exp(np.mean(halted))),
        "eval/steps": float(np.mean(steps)),
    }


def test_against_a_naive_loop():
    head, data = small_head(), batches(3)
    expected = naive(head, data)
    assert 1.2 < expected["eval/steps"] < 2.8
    assert expected["eval/perplexity_halted"] != pytest.approx(expected["eval/perplexity"], rel=1e-3)
    head.train()
    found = evaluate_language(head, data, CPU)
    assert head.training
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_halting_both_perplexities_are_one():
    head, data = small_head(halt_max_steps=1), batches(2)
    found = evaluate_language(head, data, CPU)
    assert found == pytest.approx(naive(head, data), rel=1e-5)
    assert found["eval/perplexity"] == found["eval/perplexity_halted"]
    assert found["eval/steps"] == 1


def test_tokens_count_the_same_however_they_are_batched():
    head, data = small_head(), batches(2)
    rows = [{key: values[row : row + 1] for key, values in batch.items()} for batch in data for row in range(4)]
    assert evaluate_language(head, rows, CPU) == pytest.approx(evaluate_language(head, data, CPU), rel=1e-6)


def test_more_steps_than_in_training():
    head, data = small_head(), batches(2)
    assert evaluate_language(head, data, CPU, max_steps=6) == pytest.approx(naive(head, data, 6), rel=1e-5)


def halves(rank: int, folder: str) -> None:
    """Each rank evaluates half of the rows; both must find what one process finds."""
    own = [{key: values[2 * rank : 2 * rank + 2] for key, values in batch.items()} for batch in batches(3)]
    found = evaluate_language(small_head(), own, CPU)
    together: list[dict[str, float] | None] = [None, None]
    dist.all_gather_object(together, found)
    assert together[0] == together[1]
    torch.save(found, Path(folder) / f"found-{rank}")


@pytest.mark.thorough
def test_two_ranks_find_what_one_process_finds(tmp_path: Path):
    on_two_ranks(halves, tmp_path)
    assert torch.load(tmp_path / "found-0") == pytest.approx(evaluate_language(small_head(), batches(3), CPU), rel=1e-6)


def test_nothing_held_out():
    data = batches(1)
    data[0]["labels"][:] = IGNORE_LABEL_ID
    with pytest.raises(UserError, match="no held-out token"):
        evaluate_language(small_head(), data, CPU)


def test_perplexity_of_a_hopeless_model_is_infinite():
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(5000.0) == math.inf
