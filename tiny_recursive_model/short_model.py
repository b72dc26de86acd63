"""The bare TRM for loops of one's own: tokens in, a loss or an answer out.

model = TinyRecursiveModel(TRMConfig(vocab_size=6, seq_len=16))
loss = model(x, y, n_supervision=4).loss      # x, y: int [batch, seq_len]; -100 in y where nothing is asked for
answer = model.predict(x, n_supervision=16)   # [batch, seq_len]
"""

from typing import NamedTuple

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from models.factory import make_head
from models.inner import ReasonerConfig
from utils.errors import UserError
from utils.settings import ArchConfig, LossConfig

_TRM = "recursive_reasoning.trm@TinyRecursiveModel"
_LOSS = LossConfig(name="losses@ACTLossHead", loss_type="stablemax_cross_entropy")
_OF_THE_DATA = {"vocab_size", "seq_len", "num_puzzle_identifiers", "batch_size", "recompute"}


class TRMConfig(
    ReasonerConfig, defaults={"hidden_size": 128, "num_heads": 4, "forward_dtype": "float32", "halt_max_steps": 16}
):
    """The keys of `config/arch/trm.yaml` with `vocab_size` and `seq_len`; by default a small model without puzzle ids.

    `mlp_t=True` mixes positions with an MLP, which suits small boards.
    """

    model_config = ConfigDict(extra="forbid")


class Supervised(NamedTuple):
    """What `TinyRecursiveModel.forward` returns."""

    loss: Tensor  # scalar: the losses of all steps added up, mean over the examples
    logits_list: list[Tensor]  # after each step, [batch, seq_len, vocab_size], detached
    q_halt_logits_list: list[Tensor]  # after each step, [batch], detached


class TinyRecursiveModel(nn.Module):
    """A TRM with its loss head, the same as that of pretrain.py (`arch=trm`).

    Args:
        config: the sizes.
    """

    def __init__(self, config: TRMConfig):
        super().__init__()
        self.config = config
        own_keys = config.model_dump(exclude=_OF_THE_DATA)
        arch = ArchConfig(name=_TRM, loss=_LOSS, **own_keys)
        self.head = make_head(arch, config.vocab_size, config.seq_len, config.num_puzzle_identifiers)

    def forward(self, x: Tensor, y: Tensor, n_supervision: int = 16) -> Supervised:
        """Supervise `n_supervision` steps on the same examples; each step goes on from the latents of the one before.

        pretrain.py makes an optimizer step after each of these steps; here their losses are added up, so that one
        backward pass serves all.

        Args:
            x: tokens of the questions, int [batch, seq_len].
            y: tokens of the answers, -100 where nothing is asked for.
            n_supervision: number of steps, at most `halt_max_steps` of the configuration.

        Raises:
            UserError: `n_supervision` is out of bounds.
        """
        most = self.config.halt_max_steps
        if not 1 <= n_supervision <= most:
            raise UserError(
                f"n_supervision {n_supervision}: at least 1 and at most halt_max_steps, which is {most}. "
                "Give TRMConfig a larger halt_max_steps for more."
            )
        batch = self._batch(x) | {"labels": y}
        carry = self.head.initial_carry(batch)
        never = torch.full((len(x),), most + 1, dtype=torch.int32)  # no example halts early
        losses: list[Tensor] = []
        logits: list[Tensor] = []
        q_halt: list[Tensor] = []
        for _ in range(n_supervision):
            carry, loss, _, outputs, _ = self.head(carry, batch, ("logits", "q_halt_logits"), never)
            losses.append(loss / len(x))
            logits.append(outputs["logits"])
            q_halt.append(outputs["q_halt_logits"])
        return Supervised(torch.stack(losses).sum(), logits, q_halt)

    @torch.no_grad()
    def predict(self, x: Tensor, n_supervision: int = 16) -> Tensor:
        """The answers after `n_supervision` steps, tokens [batch, seq_len].

        Raises:
            UserError: `n_supervision` is below 1.
        """
        if n_supervision < 1:
            raise UserError(f"n_supervision {n_supervision}: at least 1.")
        was_training = self.training
        self.eval()
        try:
            *_, (_, outputs) = self.head.model.answer_steps(self._batch(x), n_supervision)
        finally:
            self.train(was_training)
        return outputs["logits"].argmax(-1)

    def _batch(self, x: Tensor) -> dict[str, Tensor]:
        return {"inputs": x, "puzzle_identifiers": torch.zeros(len(x), dtype=torch.int32, device=x.device)}
