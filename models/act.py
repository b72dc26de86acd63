"""Adaptive computation time: the slots of a batch, their halting, and the continue target. Written once for all.

A batch is a set of slots. Each slot works on one example for several supervised steps, then halts and takes the next
example, so slots stand at different steps. (HRM paper, arXiv 2506.21734, "Adaptive computational time"; TRM paper,
arXiv 2510.04871, section 4.6.)
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models import fused
from models.fused.packing import PANEL
from models.inner import InnerModel, Level, ReasonerConfig
from models.layers import Block
from utils.device import COMPILE_OPTIONS, compiling_refused, keep_freed_memory


@dataclass
class Carry:
    """What the slots take from one step to the next."""

    states: dict[str, Tensor]  # latents by name, [batch, positions, hidden], detached
    steps: Tensor  # int32 [batch], steps made on the current example
    halted: Tensor  # bool [batch], whether the slot takes a new example at the next step
    current_data: dict[str, Tensor]  # the example of each slot: inputs, labels, puzzle_identifiers

    def map(self, function: Any) -> "Carry":
        """A carry with `function` applied to every tensor (to move, slice or gather slots)."""
        return Carry(
            states={name: function(x) for name, x in self.states.items()},
            steps=function(self.steps),
            halted=function(self.halted),
            current_data={name: function(x) for name, x in self.current_data.items()},
        )


def draw_min_steps(
    batch: int, halt_max_steps: int, exploration_prob: float, generator: torch.Generator | None = None
) -> Tensor:
    """Exploration: the number of steps each slot must at least make, int32 [batch].

    With probability `exploration_prob` uniform in 2..halt_max_steps, else 0. Drawn anew at each step.
    """
    explores = torch.rand(batch, generator=generator) < exploration_prob
    minimum = torch.randint(2, max(3, halt_max_steps + 1), (batch,), generator=generator, dtype=torch.int32)
    return minimum.where(explores, 0)


class ACTModel(nn.Module):
    """An inner model made into one that halts. Subclasses name `inner_class`.

    Args:
        config: the keys of the architecture and its data (`ReasonerConfig`); unknown ones are ignored here, as in the
            published code. Command lines refuse them earlier.
    """

    inner_class: ClassVar[type[InnerModel]]

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config: ReasonerConfig = self.inner_class.config_class(**config)
        self.inner = self.inner_class(self.config)
        self.compiled = False
        self.eval_max_steps: int | None = None  # steps of an example in evaluation, where not as in training

    @property
    def puzzle_emb(self):
        """The puzzle embedding, or None."""
        return self.inner.puzzle_emb

    @property
    def levels(self) -> list[Level]:
        """The stacks of blocks that the recursion passes through."""
        return [module for module in self.inner.modules() if isinstance(module, Level)]

    @property
    def max_steps(self) -> int:
        """ACT steps after which a slot halts at the latest, in the mode (training or evaluation) the model is in."""
        return self.config.halt_max_steps if self.training else self.eval_max_steps or self.config.halt_max_steps

    def compile_recursion(self) -> None:
        """Compile the blocks of the recursion, where the time goes. Module and parameter names stay as they are.

        The blocks and not the whole recursion: all have one code and one shape, so it is compiled once with gradient
        and once without, in seconds.
        """
        self.compiled = True
        # the compiler looks at every input's gradient, and warns of its own looking
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        for level in self.levels:
            for block in level.layers:
                block.compile(dynamic=False, options=COMPILE_OPTIONS)

    def fuse(self, compile: bool | Literal["auto"]) -> tuple[bool, str]:
        """(whether sublayers of the blocks become single operators made for this CPU, reason). See models/fused.

        Args:
            compile: the configuration's; False turns this off too, as does DISABLE_COMPILE with "auto".
        """
        refusal = compiling_refused(compile)
        if refusal is not None:
            return False, refusal
        if next(self.parameters()).device.type != "cpu" or self.inner.dtype != torch.bfloat16:
            return False, "they are for bfloat16 on CPUs"
        blocks = [block for level in self.levels for block in level.layers if isinstance(block, Block)]
        sublayers = [sublayer for block in blocks for sublayer in block.sublayers]
        if not sublayers:
            return False, "the blocks of this architecture are of another kind"
        fitting = [sublayer for sublayer in sublayers if sublayer.fits_fused]
        if self.config.hidden_size % PANEL or not fitting:
            return False, f"hidden_size {self.config.hidden_size} is no multiple of {PANEL}"
        reason = fused.load()
        if reason is not None:
            return False, reason
        for sublayer in fitting:
            sublayer.fused = True
        keep_freed_memory()
        if len(fitting) < len(sublayers):
            return True, f"bfloat16 on this CPU; but not attention, whose heads are no multiple of {PANEL} wide"
        return True, "bfloat16 on this CPU"

    def initial_carry(self, batch: Mapping[str, Tensor]) -> Carry:
        """A carry whose slots have all halted, so that the next step fills them from its batch."""
        rows, device = batch["inputs"].shape[0], batch["inputs"].device
        return Carry(
            states=self.inner.empty_states(rows, device),
            steps=torch.zeros(rows, dtype=torch.int32, device=device),
            halted=torch.ones(rows, dtype=torch.bool, device=device),
            current_data={name: torch.zeros_like(x) for name, x in batch.items()},
        )

    def forward(
        self,
        carry: Carry,
        batch: Mapping[str, Tensor],
        min_steps: Tensor | None = None,
        compute_target_q: bool | None = None,
    ) -> tuple[Carry, dict[str, Tensor]]:
        """One step of every slot: refill the halted, reason, decide who halts.

        Args:
            carry, batch, min_steps: see `models.losses.ACTLossHead.forward`.
            compute_target_q: in training, whether to compute the target of q_continue; None: as the architecture does.

        Returns:
            (new carry, outputs): logits [batch, seq, vocab]; q_halt_logits, q_continue_logits fp32 [batch]; in training
            with a continue head also target_q_continue [batch].
        """
        # a halted slot takes the example in its row of the batch and starts from the initial states
        states = self.inner.reset_states(carry.states, carry.halted)
        data = {name: _where(carry.halted, batch[name], old) for name, old in carry.current_data.items()}
        steps = torch.where(carry.halted, 0, carry.steps) + 1

        states, outputs = self.advance(states, data)

        with torch.no_grad():
            is_last = steps >= self.max_steps
            states, stops = self.settle(states, steps, self.stops(outputs, steps, min_steps))
            halted = is_last | stops
            wants_target = self.inner.trains_continue if compute_target_q is None else compute_target_q
            if self.training and self.config.halt_max_steps > 1 and wants_target:
                # one more pass of the recursion: what would be gained by going on
                _, _, next_halt, next_continue = self.inner(states, data)
                best = torch.where(is_last, next_halt, torch.maximum(next_halt, next_continue))
                outputs["target_q_continue"] = best.sigmoid()
        return Carry(states, steps, halted, data), outputs

    def advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One pass of the inner model: (new states, detached; what the heads read off them, see `forward`)."""
        states, logits, q_halt, q_continue = self.inner(states, data)
        outputs = {"logits": logits, "q_halt_logits": q_halt, "q_continue_logits": q_continue}
        return {name: z.detach() for name, z in states.items()}, outputs

    def stops(self, outputs: Mapping[str, Tensor], steps: Tensor, min_steps: Tensor | None) -> Tensor:
        """Where the halting head stops before the last step, as far as it may: bool of the shape of its logits."""
        if self.max_steps == 1 or not self.inner.halts_early(self.training):
            return torch.zeros_like(outputs["q_halt_logits"], dtype=torch.bool)
        wants = self.wants_to_halt(outputs)
        if not self.training:
            return wants
        return wants & _per_slot(steps >= self._min_steps(steps, min_steps), wants)

    def settle(self, states: dict[str, Tensor], steps: Tensor, stops: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What stopping does: (the states, which slots halt, bool [batch]). Here a slot halts where its head stops."""
        return states, stops

    def wants_to_halt(self, outputs: Mapping[str, Tensor], threshold: float = 0.5) -> Tensor:
        """Whether the halting head would stop here, bool of the shape of its logits.

        Args:
            outputs: of `forward`.
            threshold: probability, 0 to below 1, that it must exceed: the sigmoid of q_halt, or of
                q_halt - q_continue where there is a continue head.
        """
        margin = outputs["q_halt_logits"]
        if self.inner.compares_continue:
            margin = margin - outputs["q_continue_logits"]
        return margin > (math.log(threshold / (1 - threshold)) if threshold else -math.inf)

    def _min_steps(self, steps: Tensor, given: Tensor | None) -> Tensor:
        if given is None:
            given = draw_min_steps(len(steps), self.config.halt_max_steps, self.config.halt_exploration_prob)
        return given.to(steps.device)


def _where(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(_per_slot(condition, old), new, old)


def _per_slot(values: Tensor, like: Tensor) -> Tensor:
    """`values` [batch] in a shape that broadcasts against `like` [batch, ...]."""
    return values.view(-1, *(1 for _ in range(like.ndim - 1)))
