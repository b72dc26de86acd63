"""What differs for text around the recursion: a causal view, a tied output head, and halting per position."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, RecursionConfig
from models.text.causal import (
    CausalAttention,
    PostNormBlock,
    TextView,
    document_lengths,
    document_mask,
)
from models.text.feed_forward import FeedForward
from models.text.selection import Selections
from models.view import Rotation
from utils.constants import NO_DOCUMENT
from utils.errors import UserError

TINY = {
    "hidden_size": 64,
    "num_heads": 2,
    "H_cycles": 1,
    "halt_max_steps": 4,
    "halt_exploration_prob": 0.05,
    "forward_dtype": "float32",
}


class TextModelConfig(RecursionConfig, defaults=TINY):
    """The keys that all text models share."""

    refused: ClassVar[dict[str, str]] = {
        "stop_probability": "text models halt position by position, and rows make all steps; leave it null",
        "deep_improvement": "text models predict the next token, so no target lies between question and label; "
        "leave it false",
    }

    attend_across_documents: bool = False
    """Let attention see the earlier documents of the same row."""


class DenseTextConfig(TextModelConfig):
    """The keys of text models with attention and SwiGLU. The defaults give the model with 1,066,114 parameters."""

    inner_size: int | None = Field(default=1024, ge=1, le=1 << 20)
    """Inner width of the SwiGLU; null: computed from expansion."""
    expansion: float = Field(default=4.0, gt=0, le=1024)
    """Without inner_size: the inner width is two thirds of expansion * hidden_size, rounded up to a multiple of 256."""


class DenseLevel(Level):
    """A stack of blocks of causal attention and SwiGLU."""

    block_class: ClassVar[type[PostNormBlock]] = PostNormBlock

    def make_block(self, config: RecursionConfig, positions: int) -> PostNormBlock:
        assert isinstance(config, DenseTextConfig)
        attention = CausalAttention(config.hidden_size, config.num_heads)
        mlp = FeedForward(config.hidden_size, config.expansion, config.inner_size, unit=config.gated_unit)
        return self.block_class(attention, mlp, config.rms_norm_eps)


class TextInner(InnerModel):
    """The inner model for text. The output head shares the embedding table; every position has a halting logit."""

    config_class = TextModelConfig
    config: TextModelConfig
    ties_embedding: ClassVar = True

    def empty_states(self, rows: int, device: torch.device, positions: int | None = None) -> dict[str, Tensor]:
        """The latents as in every model, and the halting state of each position.

        settled: bool [rows, seq], whether its answer is final; answer_steps: int32 [rows, seq], steps taken for it.
        """
        shape = (rows, positions or self.positions)
        return super().empty_states(rows, device, positions) | {
            "settled": torch.zeros(shape, dtype=torch.bool, device=device),
            "answer_steps": torch.zeros(shape, dtype=torch.int32, device=device),
        }

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with no position settled and all latents at their initial vectors, in the rows that have halted."""
        settled = z["settled"] & ~halted.unsqueeze(1)
        return z | super().reset_states(z, halted) | {"settled": settled}

    def view(self, documents: Tensor, cut_documents: bool, record: bool) -> TextView:
        """The view that the layers get.

        Args:
            documents: int [rows, seq], the document of each position, `NO_DOCUMENT` where there is none. Each document
                is contiguous.
            cut_documents: whether attention may process the documents one by one on CPUs, where reading their lengths
                costs nothing. Compiled code would be recompiled for new lengths; there, and on GPUs, a mask keeps the
                documents apart.
            record: whether to record which experts are chosen.
        """
        assert self.rotary is not None
        angles, seq = self.rotary(), documents.shape[1]
        lengths = mask = None
        if not self.config.attend_across_documents:
            if cut_documents and documents.device.type == "cpu":
                lengths = document_lengths(documents)
            else:
                mask = document_mask(documents)
        real, selections = documents != NO_DOCUMENT, Selections() if record else None
        rotation = Rotation(angles.cos[:seq], angles.sin[:seq])
        return TextView(rotation, real=real, lengths=lengths, mask=mask, selections=selections)

    def read(self, z: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(the state that answers are read from [rows, seq, hidden], the halting logits fp32 [rows, seq])."""
        answer = z[next(iter(self.states))]
        return answer, self.q_head(answer)[..., 0].float()


class TextModel(ACTModel):
    """A text model with adaptive computation time for each position.

    All rows of a batch take halt_max_steps steps. A position *settles* when the halting head, which reads only the
    state of that position, says so: from then on its latents, and with them its answer, do not change. Later positions
    still attend to it: the recursion runs for all positions, and its result is discarded for those that have settled.

    A batch holds inputs, labels and documents, int [rows, seq] each (see `TextInner.view`).
    """

    inner: TextInner

    def advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One pass of the recursion.

        Returns:
            (states, detached; outputs): answer [rows, seq, hidden], to be read with `logits`; q_halt_logits fp32
            [rows, seq]; active, bool [rows, seq], positions that were not settled before; in training with experts
            also moe_loss and moe/{load}, scalars (see `models.text.selection.Selections`).
        """
        settled = states["settled"]
        view = self.inner.view(data["documents"], cut_documents=not self.compiled, record=self.training)
        new = self.inner.recurse({name: states[name] for name in self.inner.states}, self.inner.embed(data), view)
        new = {name: torch.where(settled.unsqueeze(-1), states[name], z) for name, z in new.items()}
        answer, q_halt = self.inner.read(new)
        outputs = {"answer": answer, "q_halt_logits": q_halt, "active": ~settled}
        if view.selections is not None and not view.selections.empty:
            outputs["moe_loss"] = view.selections.regulariser()
            outputs |= {f"moe/{name}": load for name, load in view.selections.loads().items()}
        return states | {name: z.detach() for name, z in new.items()}, outputs

    def settle(self, states: dict[str, Tensor], steps: Tensor, stops: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Positions that stop settle; no row halts before its last step."""
        settled = states["settled"]
        answer_steps = torch.where(settled, states["answer_steps"], steps.unsqueeze(1))
        return states | {"settled": settled | stops, "answer_steps": answer_steps}, torch.zeros_like(stops[:, 0])

    def logits(self, answer: Tensor) -> Tensor:
        """Logits of the next token: answer [..., hidden] -> [..., vocab]."""
        return self.inner.logits(answer)

    @torch.no_grad()
    def answers(
        self, inputs: Tensor, documents: Tensor | None = None, halting: bool = False, max_steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The answer of every position, without gradient.

        Args:
            inputs: int [rows, seq], seq at most seq_len.
            documents: int [rows, seq]; None: each row is one document.
            halting: whether positions settle as in training (without exploration); else they all take all steps.
            max_steps: ACT steps; None: halt_max_steps.

        Returns:
            (answer [rows, seq, hidden], to be read with `logits`; int32 [rows, seq], the steps taken for it).

        Raises:
            UserError: the rows are longer than seq_len.
        """
        seq = inputs.shape[1]
        if seq > self.config.seq_len:
            raise UserError(f"{seq} tokens: this model reads at most seq_len={self.config.seq_len}.")
        data = {"inputs": inputs, "documents": torch.zeros_like(inputs) if documents is None else documents}
        states: dict[str, Tensor] = {}
        for states, _ in self.answer_steps(data, max_steps, halting):
            if halting and bool(states["settled"].all()):
                break
        return self.inner.read(states)[0], states["answer_steps"]
