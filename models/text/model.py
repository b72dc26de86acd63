"""What text changes around the recursion: a causal view, a tied answer head, and halting position by position."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.act import ACTModel
from models.inner import InnerModel, Level, ReasonerConfig
from models.text.causal import (
    CausalAttention,
    PostNormBlock,
    TextView,
    document_lengths,
    document_mask,
)
from models.text.feed_forward import FeedForward
from models.text.selection import Selections
from utils.constants import NO_DOCUMENT
from utils.errors import UserError


class TextModelConfig(ReasonerConfig):
    """Keys of the text models. The defaults are those of the model of 1,066,114 parameters."""

    hidden_size: int = Field(default=64, ge=1)
    num_heads: int = Field(default=2, ge=1)
    inner_size: int | None = Field(default=1024, ge=1)  # of the SwiGLU; None: from expansion, rounded up to 256s
    H_cycles: int = Field(default=1, ge=1)
    halt_max_steps: int = Field(default=4, ge=1)
    halt_exploration_prob: float = Field(default=0.05, ge=0, le=1)
    forward_dtype: Literal["bfloat16", "float32", "float16"] = "float32"
    attend_across_documents: bool = False  # attention to the documents before in the same row

    @model_validator(mode="after")
    def _is_text(self) -> "TextModelConfig":
        if self.mlp_t:
            raise ValueError("mlp_t=true mixes all positions, later ones too: text models have attention only")
        if self.pos_encodings != "rope":
            raise ValueError(f"pos_encodings={self.pos_encodings}: text models have rotary positions, rope")
        if self.puzzle_emb_ndim:
            raise ValueError(f"puzzle_emb_ndim={self.puzzle_emb_ndim}: text has no puzzle embedding, leave it at 0")
        if not self.no_ACT_continue:
            raise ValueError("no_ACT_continue=false: positions of text halt on q_halt > 0, without a continue value")
        return self


class DenseLevel(Level):
    """A stack of blocks of causal attention and SwiGLU."""

    block_class: ClassVar[type[PostNormBlock]] = PostNormBlock

    def make_block(self, config: ReasonerConfig, positions: int) -> PostNormBlock:
        assert isinstance(config, TextModelConfig)
        attention = CausalAttention(config.hidden_size, config.num_heads)
        mlp = FeedForward(config.hidden_size, config.expansion, config.inner_size)
        return self.block_class(attention, mlp, config.rms_norm_eps)


class TextInner(InnerModel):
    """The inner model of text. The answer is read with the embedding table; every position has its halting logit."""

    config_class = TextModelConfig
    ties_embedding: ClassVar = True

    def __init__(self, config: ReasonerConfig):
        super().__init__(config)
        # Documents are cut apart for attention where their lengths cost nothing to know and may change from step to
        # step; elsewhere (GPUs, compiled code) a mask keeps them apart.
        self.cuts_documents = True

    def empty_states(self, rows: int, device: torch.device) -> dict[str, Tensor]:
        """As every model's, and with them what is known of each position's halting.

        settled: bool [rows, seq], whether its answer stands; answer_steps: int32 [rows, seq], steps made for it.
        """
        shape = (rows, self.positions)
        return super().empty_states(rows, device) | {
            "settled": torch.zeros(shape, dtype=torch.bool, device=device),
            "answer_steps": torch.zeros(shape, dtype=torch.int32, device=device),
        }

    def reset_states(self, z: dict[str, Tensor], halted: Tensor) -> dict[str, Tensor]:
        """`z` with no position settled, and all at the initial vectors, in the rows that have halted."""
        settled = z["settled"] & ~halted.unsqueeze(1)
        return z | super().reset_states(z, halted) | {"settled": settled}

    def view(self, documents: Tensor, record: bool) -> TextView:
        """What the layers see. From int [rows, seq], the document of each position, `NO_DOCUMENT` where there is none.

        Each document is one stretch of its row. `record`: whether choices of experts are recorded.
        """
        assert self.rotary is not None
        assert isinstance(self.config, TextModelConfig)
        angles, seq = self.rotary(), documents.shape[1]
        lengths = mask = None
        if not self.config.attend_across_documents:
            if self.cuts_documents and documents.device.type == "cpu":
                lengths = document_lengths(documents)
            else:
                mask = document_mask(documents)
        real, selections = documents != NO_DOCUMENT, Selections() if record else None
        return TextView(angles.cos[:seq], angles.sin[:seq], real, lengths, mask, selections)

    def read(self, z: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(the state that answers are read from [rows, seq, hidden], the halting logits fp32 [rows, seq])."""
        answer = z[next(iter(self.states))]
        return answer, self.q_head(answer)[..., 0].float()


class TextModel(ACTModel):
    """A text model with adaptive computation time for each position.

    All rows of a batch make halt_max_steps steps. A position whose halting head, which reads its own state alone, says
    so *settles*: its latents, and with them its answer, stay as they are. Later positions go on attending to it: the
    recursion runs for all, only its result is dropped where it is settled.

    A batch holds inputs, labels and documents, int [rows, seq] each (see `TextInner.view`).
    """

    inner: TextInner

    def compile_recursion(self) -> None:
        """As every model's; documents of changing lengths would be compiled again and again."""
        self.inner.cuts_documents = False
        super().compile_recursion()

    def advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One pass of the recursion.

        Returns:
            (states, detached; outputs): answer [rows, seq, hidden], to be read with `logits`; q_halt_logits fp32
            [rows, seq]; active, bool [rows, seq], positions that were not settled before; in training, of experts,
            also moe_loss and moe/{load}, scalars (see `models.text.selection.Selections`).
        """
        settled = states["settled"]
        view = self.inner.view(data["documents"], record=self.training)
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
        """Of the next token, [..., vocab], from an answer [..., hidden]."""
        return self.inner.logits(answer)

    @torch.no_grad()
    def answers(self, inputs: Tensor, documents: Tensor | None = None, halting: bool = False) -> tuple[Tensor, Tensor]:
        """The answer of every position, without gradient.

        Args:
            inputs: int [rows, seq], seq at most seq_len.
            documents: int [rows, seq]; None: each row is one.
            halting: whether positions settle as in training (without exploration); else all make all `max_steps`.

        Returns:
            (answer [rows, seq, hidden], to be read with `logits`; int32 [rows, seq], the steps made for it).

        Raises:
            UserError: the rows are longer than the model's.
        """
        rows, seq = inputs.shape
        if seq > self.config.seq_len:
            raise UserError(f"{seq} tokens: this model reads at most seq_len={self.config.seq_len}.")
        data = {"inputs": inputs, "documents": torch.zeros_like(inputs) if documents is None else documents}
        states = self.inner.empty_states(rows, inputs.device)
        states = {name: x[:, :seq] for name, x in states.items()}
        states = self.inner.reset_states(states, torch.ones(rows, dtype=torch.bool, device=inputs.device))
        for step in range(1, self.max_steps + 1):
            states, outputs = self.advance(states, data)
            stops = outputs["q_halt_logits"] > 0 if halting else torch.zeros_like(outputs["active"])
            states, _ = self.settle(states, torch.full_like(states["answer_steps"][:, 0], step), stops)
            if halting and bool(states["settled"].all()):
                break
        return self.inner.read(states)[0], states["answer_steps"]
