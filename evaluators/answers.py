"""A model's answers to batches of examples, computed in slots that are refilled as examples finish.

A batch is a set of slots (`models.act`). An example that has finished leaves its slot to the next waiting example, so a
forward pass computes only on unfinished examples. When no example is waiting, the number of slots shrinks. Batches come
out whole and in order, whichever examples finish first.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from models.act import Carry
from models.losses import ACTLossHead, Score

MODEL_INPUTS = ("inputs", "labels", "puzzle_identifiers")
CALIBRATION = ("calibration_count", "calibration_probability", "calibration_right")  # sums over the answers in a bin
COUNTS_BY_STEP = ("steps_taken", "head_stops", "head_stops_right")  # of examples
PREDICTIONS = ("preds", "logits", "q_halt_logits", "q_continue_logits", "steps")
CALIBRATION_BINS = 10  # of equal width, of the halting probability
_SMALLEST_PART = 8  # with fixed sizes, the number of slots is halved, down to one part in this many


@dataclass(frozen=True)
class HaltRule:
    """When an example may stop before its last step.

    After each step the halting head gives the probability that the answer is right. On its own it is overconfident
    about early answers, the more so the fewer steps it was trained with; an answer that one more step leaves unchanged
    is confirmed. The rule looks only at the model, so it works for any task. Tokens that no label ever covers, such as
    those outside an ARC grid, may keep changing; for such answers a high threshold alone is the better rule.

    Attributes:
        threshold: probability in [0, 1) that the halting head must exceed. 0.5 is the published rule q_halt > 0, or
            q_halt > q_continue.
        unchanged: also require that every token of the answer is the same as after the previous step.
    """

    threshold: float = 0.5
    unchanged: bool = True


@dataclass
class Answers:
    """The final answers to a batch, and sums of their scores."""

    predictions: dict[str, Tensor]  # preds [batch, seq], q_halt_logits, q_continue_logits, steps [batch] (, logits)
    sums: dict[str, Tensor]


@dataclass(eq=False)  # compared by identity, because they are dictionary keys
class _Pending:
    """A batch with unfinished examples."""

    batch: dict[str, Tensor]
    placed: int = 0  # examples that have been given a slot, from the first on
    finished: int = 0
    answer: dict[str, Tensor] = field(default_factory=dict)  # of each example, [batch, ...]

    def __len__(self) -> int:
        return len(self.batch["inputs"])

    def take(self, most: int) -> list[int]:
        """The next rows that wait for a slot, at most `most`; they count as placed from now on."""
        rows = list(range(self.placed, min(self.placed + most, len(self))))
        self.placed += len(rows)
        return rows

    def finish(self, rows: Tensor, values: dict[str, Tensor]) -> None:
        """Store the answers [rows, ...] of some rows."""
        for name, of_rows in values.items():
            if name not in self.answer:
                self.answer[name] = of_rows.new_empty(len(self), *of_rows.shape[1:])
            self.answer[name][rows] = of_rows
        self.finished += len(rows)


def answer_batches(
    head: ACTLossHead,
    batches: Iterable[dict[str, Tensor]],
    slots: int,
    halting: HaltRule | None = None,
    keep_logits: bool = False,
    fixed_sizes: bool = False,
    max_steps: int | None = None,
) -> Iterator[tuple[dict[str, Tensor], Answers]]:
    """Each of `batches` with its answers.

    Rows without labels count only in q_halt_loss, which takes their answers as right.

    Args:
        head: the model, in evaluation mode.
        batches: examples on the model's device, at least `MODEL_INPUTS` of each; no batch is empty.
        slots: number of examples to compute on together.
        halting: when an example stops; None: after `max_steps` (or when the architecture halts it).
        keep_logits: whether the answers include the logits.
        fixed_sizes: use only a few different numbers of slots, for kernels that are compiled for each.
        max_steps: maximum number of ACT steps of an example; None: halt_max_steps of the model.
    """
    return _Slots(head, iter(batches), slots, halting, keep_logits, fixed_sizes, max_steps).run()


def fixed_size(slots: int, busy: int) -> int:
    """The smallest of a few sizes, `slots` and its halves, that has room for `busy` <= `slots` examples."""
    halves = (max(1, slots >> part) for part in range(int(math.log2(_SMALLEST_PART)), -1, -1))
    return next(size for size in halves if size >= busy)


class _Slots:
    """The slots, the unfinished batches, and which example is in which slot."""

    def __init__(
        self,
        head: ACTLossHead,
        batches: Iterator[dict[str, Tensor]],
        slots: int,
        halting: HaltRule | None,
        keep_logits: bool,
        fixed_sizes: bool,
        max_steps: int | None,
    ):
        self.head, self.model, self.batches = head, head.model, batches
        self.slots, self.halting, self.keep_logits, self.fixed_sizes = slots, halting, keep_logits, fixed_sizes
        self.max_steps = self.model.steps_limit(max_steps)
        self.pending: deque[_Pending] = deque()
        # for each slot, its batch (None: idle) and its row in that batch
        self.owner: list[_Pending | None] = [None] * slots
        self.row = np.zeros(slots, np.int64)
        self.carry: Carry | None = None
        self.kept: dict[str, Tensor] = {}  # for each slot, its last answer and its scores by step

    def run(self) -> Iterator[tuple[dict[str, Tensor], Answers]]:
        while self._fill():
            self._step()
            while self.pending and self.pending[0].finished == len(self.pending[0]):
                done = self.pending.popleft()
                yield done.batch, self._answers(done)

    # -- examples into slots ------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Put waiting examples into idle slots; drop slots if there are too few examples. False when all are done."""
        idle = [slot for slot, owner in enumerate(self.owner) if owner is None]
        taken: list[tuple[_Pending, int]] = []
        while len(taken) < len(idle) and (waiting := self._waiting()) is not None:
            taken += [(waiting, row) for row in waiting.take(len(idle) - len(taken))]
        if len(taken) < len(idle):
            busy = len(self.owner) - len(idle) + len(taken)
            if not busy:
                return False
            idle = self._shrink(self._size_for(busy), idle)
        if taken:
            self._place(idle[: len(taken)], taken)
        return True

    def _waiting(self) -> _Pending | None:
        """The first batch with an example that has no slot yet, or None."""
        if not self.pending or self.pending[-1].placed == len(self.pending[-1]):
            batch = next(self.batches, None)
            if batch is None:
                return None
            self.pending.append(_Pending(batch))
        return self.pending[-1]

    def _size_for(self, busy: int) -> int:
        """How many slots to use for `busy` examples."""
        return fixed_size(self.slots, busy) if self.fixed_sizes else busy

    def _shrink(self, size: int, idle: list[int]) -> list[int]:
        """Drop idle slots until `size` are left; returns the idle slots that remain."""
        dropped = len(self.owner) - size
        if dropped <= 0:
            return idle
        gone = set(idle[len(idle) - dropped :])
        stay = [slot for slot in range(len(self.owner)) if slot not in gone]
        self.owner, self.row = [self.owner[slot] for slot in stay], self.row[stay]
        if self.carry is not None:
            index = torch.tensor(stay, device=self.carry.steps.device)
            self.carry = self.carry.map(lambda x: x[index])
            self.kept = {name: x[index] for name, x in self.kept.items()}
        return [slot for slot, owner in enumerate(self.owner) if owner is None]

    def _place(self, slots: list[int], taken: list[tuple[_Pending, int]]) -> None:
        """Put examples into slots, and mark these as halted, so that the model starts on the new examples."""
        if self.carry is None:
            self.carry = self._empty(taken[0][0].batch)
        device = self.carry.steps.device
        for owner in dict.fromkeys(pending for pending, _ in taken):
            pairs = [(slot, row) for slot, (pending, row) in zip(slots, taken, strict=True) if pending is owner]
            to, rows = torch.tensor(pairs, device=device).unbind(1)
            for name in MODEL_INPUTS:
                self.carry.current_data[name][to] = owner.batch[name][rows]
            self.carry.halted[to] = True
            for slot, row in pairs:
                self.owner[slot], self.row[slot] = owner, row

    def _empty(self, like: dict[str, Tensor]) -> Carry:
        """A carry of slots without examples, with the shapes and dtypes of the batch `like`."""
        n = len(self.owner)
        data = {name: like[name].new_zeros(n, *like[name].shape[1:]) for name in MODEL_INPUTS}
        carry = self.model.initial_carry(data)
        self.kept = {
            "preds": torch.zeros_like(data["inputs"], dtype=torch.int64),
            "exact_after": carry.halted.new_zeros(n, self.max_steps),
            "accuracy_after": carry.halted.new_zeros(n, self.max_steps, dtype=torch.float32),
            # of the halting head: the first step at which it would stop (0: none), whether the answer was right there,
            # and over all steps its calibration: the number of answers, their probabilities and the right ones, by bin
            "halt_step": torch.zeros_like(carry.steps),
            "halt_right": torch.zeros_like(carry.halted),
            "calibration": carry.halted.new_zeros(n, 3, CALIBRATION_BINS, dtype=torch.float32),
        }
        return carry

    # -- a step -------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """One step of every slot; the answers of those that finish are stored in their batches."""
        assert self.carry is not None
        carry, outputs = self.model(self.carry, self.carry.current_data, max_steps=self.max_steps)
        score = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], carry.current_data["labels"])
        # the scores after this step also stand for all later steps, unless those overwrite them
        later = torch.arange(self.max_steps, device=carry.steps.device) >= carry.steps[:, None] - 1
        scores = {"exact_after": score.exact & score.labelled, "accuracy_after": score.accuracy}
        for name, now in scores.items():
            self.kept[name] = torch.where(later, now[:, None], self.kept[name])
        self._watch_head(carry, outputs, score)
        finished = carry.halted
        if self.halting is not None:
            stops = self.model.wants_to_halt(outputs, self.halting.threshold)
            if self.halting.unchanged:
                stops &= (score.preds == self.kept["preds"]).all(-1) & (carry.steps > 1)
            finished = finished | stops
        self.kept["preds"] = score.preds

        slots = [slot for slot in finished.nonzero().squeeze(1).tolist() if self.owner[slot] is not None]
        # no slot restarts before it gets another example
        self.carry = replace(carry, halted=torch.zeros_like(carry.halted))
        if slots:
            self._keep(slots, outputs, score)

    def _watch_head(self, carry: Carry, outputs: dict[str, Tensor], score: Score) -> None:
        """Record what the halting head says after this step, whether it is heard or not."""
        begins, kept = carry.steps == 1, self.kept
        threshold = self.halting.threshold if self.halting is not None else HaltRule.threshold
        stops = self.model.wants_to_halt(outputs, threshold) & (begins | (kept["halt_step"] == 0))
        right = score.exact & score.labelled
        kept["halt_step"] = torch.where(stops, carry.steps, torch.where(begins, 0, kept["halt_step"]))
        kept["halt_right"] = torch.where(stops, right, kept["halt_right"])
        sure = outputs["q_halt_logits"].float().sigmoid().nan_to_num(0.0)
        bins = torch.arange(CALIBRATION_BINS, device=sure.device)
        within = (sure * CALIBRATION_BINS).int().clamp(max=CALIBRATION_BINS - 1).unsqueeze(1) == bins  # [slots, bins]
        values = torch.stack((torch.ones_like(sure), sure, right.float()), 1)
        more = values.unsqueeze(2) * within.unsqueeze(1)
        kept["calibration"] = more + kept["calibration"].masked_fill(begins.view(-1, 1, 1), 0.0)

    def _keep(self, slots: list[int], outputs: dict[str, Tensor], score: Score) -> None:
        """Store the answers of `slots` in their batches, and make the slots idle."""
        assert self.carry is not None
        at = torch.tensor(slots, device=self.carry.steps.device)
        labels = self.carry.current_data["labels"][at]
        logits, q_halt = outputs["logits"][at], outputs["q_halt_logits"][at]
        own = Score(score.preds[at], q_halt, labels)
        lm_loss, q_halt_loss = self.head.example_losses({"logits": logits, "q_halt_logits": q_halt}, labels, own)
        results = {
            "preds": own.preds,
            "q_halt_logits": q_halt,
            "q_continue_logits": outputs["q_continue_logits"][at],
            "steps": self.carry.steps[at],
            "exact_after": self.kept["exact_after"][at],
            "accuracy_after": self.kept["accuracy_after"][at],
            "halt_step": self.kept["halt_step"][at],
            "halt_right": self.kept["halt_right"][at],
            "calibration": self.kept["calibration"][at],
            "q_halt_right": own.q_halt_right & own.labelled,
            "labelled": own.labelled,
            "lm_loss": lm_loss,
            "q_halt_loss": q_halt_loss,
        }
        if self.keep_logits:
            results["logits"] = logits
        owners = [self.owner[slot] for slot in slots]
        for owner in dict.fromkeys(owners):
            assert owner is not None
            places = [place for place, other in enumerate(owners) if other is owner]
            mine = torch.tensor(places, device=at.device)
            rows = torch.from_numpy(self.row[[slots[place] for place in places]]).to(at.device)
            owner.finish(rows, {name: values[mine] for name, values in results.items()})
        for slot in slots:
            self.owner[slot] = None

    def _answers(self, done: _Pending) -> Answers:
        answer = done.answer
        sums = {
            "count": answer["labelled"].sum(),
            "examples": torch.full((), len(done), device=answer["labelled"].device),
            "accuracy": answer["accuracy_after"][:, -1].sum(),
            "exact_accuracy": answer["exact_after"][:, -1].sum(),
            "q_halt_accuracy": answer["q_halt_right"].sum(),
            "steps": answer["steps"].where(answer["labelled"], 0).sum(),
            "lm_loss": answer["lm_loss"].sum(),
            "q_halt_loss": answer["q_halt_loss"].sum(),
        }
        for name in ("exact", "accuracy"):
            by_step = answer[f"{name}_after"].sum(0)
            sums |= {f"{name}/{step}": by_step[step] for step in range(self.max_steps)}
        labelled, exact = answer["labelled"], answer["exact_after"]
        sums["lost"] = (exact.any(1) & ~exact[:, -1]).sum()
        numbers = torch.arange(self.max_steps + 1, device=labelled.device)
        for name, steps, of in (
            ("steps_taken", answer["steps"], labelled),
            ("head_stops", answer["halt_step"], labelled),
            ("head_stops_right", answer["halt_step"], labelled & answer["halt_right"]),
        ):
            counts = ((steps.unsqueeze(1) == numbers) & of.unsqueeze(1)).sum(0)
            sums |= {f"{name}/{step}": counts[step] for step in range(self.max_steps + 1)}
        calibration = answer["calibration"].where(labelled.view(-1, 1, 1), 0.0).sum(0)
        for row, name in enumerate(CALIBRATION):
            sums |= {f"{name}/{place}": calibration[row, place] for place in range(CALIBRATION_BINS)}
        return Answers({name: answer[name] for name in PREDICTIONS if name in answer}, sums)
