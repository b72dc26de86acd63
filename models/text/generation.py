"""Going on from a text, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from models.text.model import TextModel


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float  # 0: the most probable token
    top_k: int | None  # among the k most probable ones; None: among all
    seed: int


@dataclass
class Continuation:
    """What came after a prompt."""

    tokens: list[int] = field(default_factory=list)  # without the end token
    steps: list[int] = field(default_factory=list)  # ACT steps behind each token, that of the end token included
    ended: Literal["eos", "length"] = "length"


@torch.inference_mode()
def continue_texts(
    model: TextModel,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
    *,
    eos_id: int,
    seq_len: int,
    max_new_tokens: int,
    halting: bool,
    device: torch.device,
) -> list[Continuation]:
    """Continue each prompt until it ends or is long enough.

    A continuation depends on its own prompt and sampling alone: each has a random stream of its own, and the rows of a
    batch do not see one another (so other rows can change it only where they change the rounding of a sum).
    The model reads the last `seq_len` tokens anew for every token.

    Args:
        model: in evaluation mode, on `device`.
        prompts: tokens to go on from, at least one each.
        samplings: how to draw, one for each prompt.
        eos_id: the token that ends a text.
        seq_len: tokens that the model can see.
        max_new_tokens: length at which a continuation is cut.
        halting: take each token from the ACT step at which its position halts, instead of the last.
        device: where the model is.
    """
    found = [Continuation() for _ in prompts]
    streams = [torch.Generator().manual_seed(sampling.seed) for sampling in samplings]
    going = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        if not going:
            break
        texts = [[*prompts[row], *found[row].tokens][-seq_len:] for row in going]
        logits, steps = _next_logits(model, texts, eos_id, halting, device)
        for row, row_logits, row_steps in zip(going, logits, steps.tolist(), strict=True):
            token = draw(row_logits, samplings[row], streams[row])
            found[row].steps.append(row_steps)
            if token == eos_id:
                found[row].ended = "eos"
            else:
                found[row].tokens.append(token)
        going = [row for row in going if found[row].ended != "eos"]
    return found


def draw(logits: Tensor, sampling: Sampling, stream: torch.Generator) -> int:
    """The next token by its logits, fp64 [vocab] on the CPU; takes as many numbers from `stream` every time."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    if sampling.top_k is not None and sampling.top_k < len(logits):
        kept = logits.topk(sampling.top_k).indices
        logits = torch.full_like(logits, -torch.inf).index_copy_(0, kept, logits[kept])
    probabilities = ((logits - logits.max()) / sampling.temperature).softmax(0)
    return int(torch.multinomial(probabilities, 1, generator=stream))


def _next_logits(
    model: TextModel, texts: Sequence[Sequence[int]], padding: int, halting: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What comes after each text: (logits fp64 [texts, vocab], ACT steps [texts]), on the CPU."""
    last = torch.tensor([len(text) - 1 for text in texts], device=device)
    # padding stands behind the text, where no position of the text sees it
    inputs = torch.full((len(texts), int(last.max()) + 1), padding, dtype=torch.int32)
    for row, text in zip(inputs, texts, strict=True):
        row[: len(text)] = torch.tensor(text, dtype=torch.int32)
    state, steps = model.answers(inputs.to(device), None, halting=halting)
    rows = torch.arange(len(texts), device=device)
    return model.logits(state[rows, last]).float().cpu().double(), steps[rows, last].cpu()
