"""Generates text, token by token."""

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
    top_k: int | None  # draw from the k most probable tokens; None: from all
    seed: int


@dataclass
class Continuation:
    """The text generated after a prompt."""

    tokens: list[int] = field(default_factory=list)  # without the end token
    steps: list[int] = field(default_factory=list)  # ACT steps taken for each token, including the end token
    ended: Literal["eos", "length"] = "length"

    def add(self, token: int, steps: int, eos_id: int) -> None:
        """Append the next token, for which `steps` ACT steps were taken; `eos_id` ends the continuation."""
        self.steps.append(steps)
        if token == eos_id:
            self.ended = "eos"
        else:
            self.tokens.append(token)


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
    max_steps: int | None = None,
) -> list[Continuation]:
    """Continue each prompt until the end token or `max_new_tokens`.

    A continuation depends only on its own prompt and sampling: each has its own random stream, and the rows of a batch
    do not see one another (so other rows can change it only by changing the rounding of a sum). For every new token the
    model reads the last `seq_len` tokens again.

    Args:
        model: in evaluation mode, on `device`.
        prompts: tokens to continue, at least one per prompt.
        samplings: how to draw, one for each prompt.
        eos_id: the token that ends a text.
        seq_len: most tokens that the model can read.
        max_new_tokens: length at which a continuation is cut.
        halting: take each token from the ACT step at which its position halts, instead of the last.
        device: the device of the model.
        max_steps: ACT steps; None: halt_max_steps of the model.
    """
    continuations = [Continuation() for _ in prompts]
    streams = [torch.Generator().manual_seed(sampling.seed) for sampling in samplings]
    unfinished = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        if not unfinished:
            break
        texts = [[*prompts[row], *continuations[row].tokens][-seq_len:] for row in unfinished]
        logits, steps = _next_logits(model, texts, eos_id, halting, max_steps, device)
        for row, row_logits, row_steps in zip(unfinished, logits, steps.tolist(), strict=True):
            token = draw(row_logits, samplings[row], streams[row])
            continuations[row].add(token, row_steps, eos_id)
        unfinished = [row for row in unfinished if continuations[row].ended != "eos"]
    return continuations


def draw(logits: Tensor, sampling: Sampling, stream: torch.Generator) -> int:
    """Draw the next token from its logits, fp64 [vocab] on the CPU.

    All draws with the same sampling advance `stream` by the same amount.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    if sampling.top_k is not None and sampling.top_k < len(logits):
        kept = logits.topk(sampling.top_k).indices
        logits = torch.full_like(logits, -torch.inf).index_copy_(0, kept, logits[kept])
    probabilities = ((logits - logits.max()) / sampling.temperature).softmax(0)
    return int(torch.multinomial(probabilities, 1, generator=stream))


def _next_logits(
    model: TextModel,
    texts: Sequence[Sequence[int]],
    padding: int,
    halting: bool,
    max_steps: int | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """For the token after each text: (logits fp64 [texts, vocab], ACT steps [texts]), on the CPU."""
    last = torch.tensor([len(text) - 1 for text in texts], device=device)
    # padding comes after the text, where no position of the text sees it
    inputs = torch.full((len(texts), int(last.max()) + 1), padding, dtype=torch.int32)
    for row, text in zip(inputs, texts, strict=True):
        row[: len(text)] = torch.tensor(text, dtype=torch.int32)
    state, steps = model.answers(inputs.to(device), None, halting, max_steps)
    rows = torch.arange(len(texts), device=device)
    return model.logits(state[rows, last]).float().cpu().double(), steps[rows, last].cpu()
