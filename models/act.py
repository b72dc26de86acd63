"""Adaptive computation time (ACT) for all architectures: the slots of a batch, halting, and the continue target.

A batch is a set of slots. Each slot works on one example for several supervised steps, then halts and takes the next
example, so different slots are at different steps. (HRM paper, arXiv 2506.21734, "Adaptive computational time"; TRM
paper, arXiv 2510.04871, section 4.6.)
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.inner import InnerModel, RecursionConfig
from models.recipes.depth import stage_at
from utils.machine import COMPILE_OPTIONS, to_device


@dataclass
class Carry:
    """The state that the slots carry from one step to the next."""

    states: dict[str, Tensor]  # by name, [batch, ...], detached: latents, mostly [batch, positions, hidden]
    steps: Tensor  # int32 [batch], steps taken on the current example
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

    def next_data(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The example of each slot at the next step: a halted slot takes the one in its row of the batch."""
        return {name: _where(self.halted, batch[name], old) for name, old in self.current_data.items()}


def draw_min_steps(
    batch: int, halt_max_steps: int, exploration_prob: float, generator: torch.Generator | None = None
) -> Tensor:
    """Exploration: the minimum number of steps for each slot, int32 [batch].

    Uniform in 2..halt_max_steps with probability `exploration_prob`, else 0. Drawn again at each step.
    """
    explores = torch.rand(batch, generator=generator) < exploration_prob
    minimum = torch.randint(2, max(3, halt_max_steps + 1), (batch,), generator=generator, dtype=torch.int32)
    return minimum.where(explores, 0)


def draw_random_stops(
    batch: int, halt_max_steps: int, probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Stopping by chance: 0 for a slot that stops at this step, else the maximum number of steps; int32 [batch].

    Drawn again at each step, as in the published SE-RRM (arXiv 2603.02193).
    """
    stops = torch.rand(batch, generator=generator) < probability
    return torch.full((batch,), halt_max_steps, dtype=torch.int32).masked_fill(stops, 0)


class ACTModel(nn.Module):
    """An inner model with ACT around it. Subclasses set `inner_class`.

    Class attributes:
        inner_class: the class of the inner model.
        undecayed: the last parts of the names of parameters without weight decay.

    Args:
        config: the keys of the architecture and its data (`RecursionConfig`). Unknown keys are ignored here, as in the
            published code; the programs refuse them earlier.
    """

    inner_class: ClassVar[type[InnerModel]]
    undecayed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config: RecursionConfig = self.inner_class.config_class(**config)
        self.inner = self.inner_class(self.config)
        self.compiled = False

    def undecayed_parameters(self) -> list[nn.Parameter]:
        """The parameters without weight decay."""
        return [p for name, p in self.named_parameters() if name.rpartition(".")[2] in self.undecayed]

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The parameters with two dimensions in the blocks: neither embeddings nor heads."""
        return [p for block in self.blocks for p in block.parameters() if p.ndim == 2]

    @property
    def puzzle_emb(self):
        """The puzzle embedding, or None."""
        return self.inner.puzzle_emb

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that the recursion passes through, each called with (h, view)."""
        return self.inner.blocks

    def draw_step(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `models.losses.ACTLossHead.draw_step`."""
        return {"min_steps": self.draw_min_steps(rows, generator)}

    def draw_min_steps(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """The number of steps before which each slot must not halt in training, int32 [rows]; drawn at each step."""
        config = self.config
        if config.stop_probability is not None:
            return draw_random_stops(rows, config.halt_max_steps, config.stop_probability, generator)
        return draw_min_steps(rows, config.halt_max_steps, config.halt_exploration_prob, generator)

    def at_progress(self, progress: float) -> AbstractContextManager[None]:
        """Within the block, the depth of the recursion is that after a share `progress` of the training, in [0, 1)."""
        stage = stage_at(self.config.depth_curriculum, progress)
        return nullcontext() if stage is None else self.inner.depth.at(stage)

    def steps_limit(self, max_steps: int | None) -> int:
        """Maximum number of ACT steps of a slot: in evaluation `max_steps` if it is given, else halt_max_steps."""
        return self.config.halt_max_steps if self.training or max_steps is None else max_steps

    def compile_recursion(self) -> None:
        """Compile the blocks of the recursion, which take most of the time. Module and parameter names do not change.

        The blocks are compiled rather than the whole recursion because they all share one code and one shape: the
        compiler runs once with gradients and once without, in seconds.
        """
        self.compiled = True
        # the compiler reads .grad of every input, and torch warns about that access
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        for block in self.blocks:
            block.compile(dynamic=False, options=COMPILE_OPTIONS)

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
        max_steps: int | None = None,
        row_seeds: Tensor | None = None,
    ) -> tuple[Carry, dict[str, Tensor]]:
        """One step of every slot: refill the halted slots, run the recursion, decide which slots halt.

        Args:
            carry, batch, min_steps, row_seeds: see `models.losses.ACTLossHead.forward`.
            compute_target_q: in training, whether to compute the target of q_continue; None: if the
                architecture trains it.
            max_steps: in evaluation, the maximum number of ACT steps of a slot; None: halt_max_steps.

        Returns:
            (new carry, outputs): logits [batch, seq, vocab]; q_halt_logits, q_continue_logits fp32 [batch]; in training
            with a continue head also target_q_continue [batch].
        """
        # a halted slot takes the example in its row of the batch and starts from the initial states
        data = carry.next_data(batch)
        states = self.reset(carry.states, carry.halted, data, row_seeds)
        steps = torch.where(carry.halted, 0, carry.steps) + 1

        states, outputs = self.advance(states, data)

        with torch.no_grad():
            limit = self.steps_limit(max_steps)
            is_last = steps >= limit
            states, stops = self.settle(states, steps, self.stops(outputs, steps, min_steps, limit))
            halted = is_last | stops
            wants_target = self.inner.trains_continue if compute_target_q is None else compute_target_q
            if self.training and self.config.halt_max_steps > 1 and wants_target:
                # one more pass of the recursion estimates the value of continuing
                _, _, next_halt, next_continue = self.inner(states, data)
                best = torch.where(is_last, next_halt, torch.maximum(next_halt, next_continue))
                outputs["target_q_continue"] = best.sigmoid()
        return Carry(states, steps, halted, data), outputs

    def reset(
        self, states: dict[str, Tensor], halted: Tensor, data: dict[str, Tensor], row_seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`states` with the slots that have halted at their initial states, which here are the same for all examples.

        Args:
            states: of all slots, [batch, ...] each.
            halted: bool [batch].
            data: the examples that the slots work on from now on.
            row_seeds: see `models.losses.ACTLossHead.forward`.
        """
        return self.inner.reset_states(states, halted)

    def advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One pass of the inner model: (new states, detached; outputs of the heads, see `forward`)."""
        states, logits, q_halt, q_continue = self.inner(states, data)
        outputs = {"logits": logits, "q_halt_logits": q_halt, "q_continue_logits": q_continue}
        return {name: z.detach() for name, z in states.items()}, outputs

    def stops(self, outputs: Mapping[str, Tensor], steps: Tensor, min_steps: Tensor | None, limit: int) -> Tensor:
        """Where slots stop before step `limit`: bool, in the shape of the halting logits.

        In training with `stop_probability` it is a matter of chance, and with `deep_improvement` no slot stops.
        """
        if self.training and self.config.deep_improvement:
            return torch.zeros_like(outputs["q_halt_logits"], dtype=torch.bool)
        if self.training and self.config.stop_probability is not None:
            return steps >= self.min_steps(steps, min_steps)
        return self.own_stops(outputs, steps, min_steps, limit)

    def own_stops(self, outputs: Mapping[str, Tensor], steps: Tensor, min_steps: Tensor | None, limit: int) -> Tensor:
        """Where the architecture stops before step `limit`; here where its halting head says so and is allowed to."""
        if limit == 1 or not self.inner.halts_early(self.training):
            return torch.zeros_like(outputs["q_halt_logits"], dtype=torch.bool)
        wants = self.wants_to_halt(outputs)
        if not self.training:
            return wants
        return wants & _per_slot(steps >= self.min_steps(steps, min_steps), wants)

    def settle(self, states: dict[str, Tensor], steps: Tensor, stops: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Apply `stops`: (new states, which slots halt, bool [batch]). Here a slot halts where its head stops."""
        return states, stops

    @torch.no_grad()
    def answer_steps(
        self, data: dict[str, Tensor], max_steps: int | None = None, halting: bool = False
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Answer a batch, starting from the initial states, and yield the result of each of `max_steps` steps.

        Every row takes every step, so this loop is meant for pictures and for single questions; `evaluators.answers`
        replaces finished examples instead.

        Args:
            data: the batch: inputs [batch, seq], and whatever else the architecture reads.
            max_steps: None: halt_max_steps.
            halting: whether positions that the halting head stops keep their answer, if the architecture settles them.

        Yields:
            (states, outputs), as `advance` returns them.
        """
        rows, seq = data["inputs"].shape
        device = data["inputs"].device
        states = self.inner.empty_states(rows, device, self.inner.prefix_len + seq)
        states = self.reset(states, torch.ones(rows, dtype=torch.bool, device=device), data)
        for step in range(1, (max_steps or self.config.halt_max_steps) + 1):
            states, outputs = self.advance(states, data)
            q_halt = outputs["q_halt_logits"]
            stops = self.wants_to_halt(outputs) if halting else torch.zeros_like(q_halt, dtype=torch.bool)
            steps = torch.full((rows,), step, dtype=torch.int32, device=device)
            states, _ = self.settle(states, steps, stops)
            yield states, outputs

    def wants_to_halt(self, outputs: Mapping[str, Tensor], threshold: float = 0.5) -> Tensor:
        """Whether the halting head would stop here, bool in the shape of its logits.

        Args:
            outputs: the outputs of `forward`.
            threshold: probability in [0, 1) that the sigmoid of q_halt must exceed, or that of q_halt - q_continue if
                the architecture compares the two.
        """
        margin = outputs["q_halt_logits"]
        if self.inner.compares_continue:
            margin = margin - outputs["q_continue_logits"]
        return margin > (math.log(threshold / (1 - threshold)) if threshold else -math.inf)

    def min_steps(self, steps: Tensor, given: Tensor | None) -> Tensor:
        """`given` on the device of `steps` [batch]; drawn here if None."""
        return to_device(self.draw_min_steps(len(steps)) if given is None else given, steps.device)


def _where(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(_per_slot(condition, old), new, old)


def _per_slot(values: Tensor, like: Tensor) -> Tensor:
    """`values` [batch] in a shape that broadcasts against `like` [batch, ...]."""
    return values.view(-1, *(1 for _ in range(like.ndim - 1)))
