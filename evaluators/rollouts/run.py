"""Answers puzzles by rollouts: each puzzle several times side by side, step by step.

All rollouts of a puzzle are rows of one batch and at the same step. Rows of rollouts that have ended, and of puzzles
whose answer is known, leave the batch, and the next puzzles take their place: a pass of the model computes only what is
needed, and the batch stays full.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.tasks.task import Task
from evaluators.answers import HaltRule, fixed_size
from evaluators.rollouts.particles import parents
from evaluators.rollouts.trajectories import Trajectories
from evaluators.rollouts.variation import Undo, check_variation, noisy, step_keys, view
from evaluators.trace.record import certainty, latents_of
from models.losses import ACTLossHead
from models.random_start import RandomStartModel
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.counter_random import seed_of, seeds_of, uniform
from utils.errors import UserError
from utils.random_streams import Stream
from utils.settings import Variation

# a puzzle: tokens of its question [seq], and the row of the puzzle embedding
Puzzle = tuple[np.ndarray, int]
_NEVER = -1e9  # the halting logit of a model whose logit is no number


@dataclass(frozen=True)
class RolloutRule:
    """How many rollouts a puzzle gets, how they differ, and when they end.

    Attributes:
        restarts: rollouts of each puzzle.
        vary: how they differ, see `evaluators.rollouts.variation`.
        noise: standard deviation of the noise of `noise` and `start`.
        steps: ACT steps of a rollout; None: halt_max_steps of the model.
        halting: what counts as a halt.
        early_halting: whether a rollout ends when it halts.
        beta: of a particle filter, how much the halting head decides.
        seed: of all that is random.
    """

    restarts: int = 1
    vary: Variation = "noise"
    noise: float = 0.3
    steps: int | None = None
    halting: HaltRule = HaltRule()  # noqa: RUF009  (immutable)
    early_halting: bool = False
    beta: float = 0.25
    seed: int = 0


def roll_out(
    head: ACTLossHead,
    task: Task,
    puzzles: Iterable[Puzzle],
    rule: RolloutRule,
    rows: int,
    *,
    resample: bool = False,
    known: Callable[[int, Trajectories], bool] | None = None,
) -> Iterator[tuple[int, Trajectories]]:
    """The rollouts of each puzzle, in the order in which they are done: (number of the puzzle, its trajectories).

    Args:
        head: the model, in evaluation mode.
        task: whose symmetries `vary=views` uses.
        puzzles: the puzzles.
        rule: how to answer them.
        rows: rows of a batch; never fewer than the rollouts of one puzzle.
        resample: after each step, draw the rollouts of a puzzle anew from them (`evaluators.rollouts.particles`).
        known: (number of the puzzle, its trajectories up to this step) -> whether its answer is known, so that it may
            leave; None: it stays for all steps.

    Raises:
        UserError: the architecture answers by a search, or `vary` would make rollouts alike.
    """
    check_rollouts(head, task, rule, resample)
    return _Rollouts(head, task, iter(enumerate(puzzles)), rule, rows, resample, known).run()


def check_rollouts(head: ACTLossHead, task: Task, rule: RolloutRule, resample: bool) -> None:
    """Refuse what `roll_out` cannot do.

    Raises:
        UserError: see `roll_out`.
    """
    if isinstance(head.model, LatticeDeductionTransformer):
        raise UserError(
            "rollouts: this model (LDT) searches with many chains instead of rollouts. Use search.py, or restarts=1."
        )
    if resample and rule.vary != "noise":
        raise UserError(
            f"particle_filter with vary={rule.vary}: particles of the same parent would stay the same. Use vary=noise."
        )
    if rule.restarts > 1:
        check_variation(rule.vary, task, head.model, rule.noise)


class _Group:
    """The rollouts of one puzzle."""

    def __init__(self, number: int, restarts: int, steps: int, undo: Sequence[Undo | None], tokens: np.ndarray):
        self.number, self.undo, self.step = number, undo, 0  # steps made
        self.alive = np.arange(restarts)  # rollouts that have not ended
        self.answers = np.zeros((restarts, steps, len(tokens)), tokens.dtype)
        self.halt, self.confidence, self.change = (np.zeros((restarts, steps), np.float32) for _ in range(3))
        self.halted_at, self.taken = np.zeros(restarts, np.int64), np.zeros(restarts, np.int64)

    def add(self, seen: dict[str, np.ndarray], stops: np.ndarray) -> None:
        """The values of a step, [alive, ...] each; `stops`: where the halting rule stops, heard or not."""
        alive, step = self.alive, self.step
        for rollout, answer in zip(alive.tolist(), seen["answers"], strict=True):
            undo = self.undo[rollout]
            self.answers[rollout, step] = answer if undo is None else undo(answer.astype(self.answers.dtype))
        self.halt[alive, step], self.confidence[alive, step] = seen["halt"], seen["confidence"]
        self.change[alive, step] = seen["change"]
        self.step += 1
        self.taken[alive] = self.step
        self.halted_at[alive] = np.where(stops & (self.halted_at[alive] == 0), self.step, self.halted_at[alive])

    def end(self, ended: np.ndarray) -> None:
        """Let the rollouts end that `ended`, bool [alive], marks."""
        self._hold(self.alive[ended])
        self.alive = self.alive[~ended]

    def _hold(self, rollouts: np.ndarray) -> None:
        """Let rollouts have their last values in all later steps, in which nothing changes any more."""
        for values in (self.answers, self.halt, self.confidence):
            values[rollouts, self.step :] = values[rollouts, self.step - 1, None]

    def found(self) -> Trajectories:
        """What there is up to this step."""
        part = slice(None), slice(self.step)
        return Trajectories(
            self.answers[part],
            self.halt[part],
            self.confidence[part],
            self.change[part],
            self.halted_at.copy(),
            self.taken.copy(),
        )

    def whole(self) -> Trajectories:
        """What there is, with the last values in all steps that were not computed."""
        self._hold(self.alive)
        self.step = self.answers.shape[1]
        return self.found()


class _Rollouts:
    """The puzzles at work, and the state of each of their rows. Rows lie in the order of their puzzles."""

    def __init__(
        self,
        head: ACTLossHead,
        task: Task,
        puzzles: Iterator[tuple[int, Puzzle]],
        rule: RolloutRule,
        rows: int,
        resample: bool,
        known: Callable[[int, Trajectories], bool] | None,
    ):
        self.head, self.model, self.task, self.puzzles, self.rule = head, head.model, task, puzzles, rule
        self.most, self.resample, self.known = max(rows, rule.restarts), resample, known
        self.limit = self.model.steps_limit(rule.steps)
        self.device = next(head.parameters()).device
        self.groups: list[_Group] = []
        # of each row, by name: latents, the example, steps made, seeds, the last answer and its logits
        self.rows: dict[str, dict[str, Tensor]] = {}

    @torch.inference_mode()
    def run(self) -> Iterator[tuple[int, Trajectories]]:
        while self._fill():
            yield from self._step()

    # -- puzzles into rows --------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Give waiting puzzles the free rows; False when all are done."""
        new: list[tuple[_Group, list[np.ndarray], int, int]] = []
        free = self.most - sum(len(group.alive) for group in self.groups)
        while free >= self.rule.restarts and (item := next(self.puzzles, None)) is not None:
            number, (tokens, identifier) = item
            new.append((*self._views(number, tokens), identifier))
            free -= self.rule.restarts
        if new:
            self._place(new)
        return bool(self.groups)

    def _views(self, number: int, tokens: np.ndarray) -> tuple[_Group, list[np.ndarray], int]:
        """The rollouts of a puzzle, the question that each of them sees, and the seed of the puzzle."""
        restarts = self.rule.restarts
        tokens = np.asarray(tokens).astype(self.task.token_dtype)
        puzzle_seed = int(seeds_of(torch.from_numpy(tokens[None].astype(np.int64))))
        seen: list[np.ndarray] = [tokens] * restarts
        undo: list[Undo | None] = [None] * restarts
        if self.rule.vary == "views":
            for rollout in range(1, restarts):
                seen[rollout], undo[rollout] = view(self.task, tokens, self.rule.seed, puzzle_seed, rollout)
        return _Group(number, restarts, self.limit, undo, tokens), seen, puzzle_seed

    def _place(self, new: list[tuple[_Group, list[np.ndarray], int, int]]) -> None:
        """Append rows for new puzzles."""
        restarts = self.rule.restarts
        inputs = torch.from_numpy(np.stack([tokens for _, seen, _, _ in new for tokens in seen]).astype(np.int32))
        identifiers = torch.tensor([identifier for *_, identifier in new], dtype=torch.int32)
        seeds = torch.tensor([seed for _, _, seed, _ in new]).repeat_interleave(restarts)
        numbers = torch.arange(restarts).repeat(len(new))
        rollout_seeds = (seeds + numbers).to(self.device)
        data = {
            "inputs": inputs.to(self.device),
            "puzzle_identifiers": identifiers.repeat_interleave(restarts).to(self.device),
        }
        count = len(inputs)
        states = self.model.inner.empty_states(count, self.device, self.model.inner.prefix_len + inputs.shape[1])
        starts = rollout_seeds if self.rule.vary == "start" else seeds.to(self.device)
        halted = torch.ones(count, dtype=torch.bool, device=self.device)
        more = {
            "states": self.model.reset(states, halted, data, starts),
            "data": data,
            "own": {
                "steps": torch.zeros(count, dtype=torch.int32, device=self.device),
                "seeds": rollout_seeds,
                "noise": torch.where(numbers > 0, self.rule.noise, 0.0).to(self.device),
            },
            "last": {},
        }
        if self.rows and self.groups:
            last = self.rows["last"]
            more["last"] = {name: x.new_zeros(count, *x.shape[1:]) for name, x in last.items()}
            self.rows = {
                part: {name: torch.cat((x, more[part][name])) for name, x in values.items()}
                for part, values in self.rows.items()
            }
        else:
            self.rows = more
        self.groups += [group for group, *_ in new]

    def _keep(self, slots: np.ndarray, sources: np.ndarray) -> None:
        """Keep these rows, with the latents of `sources`; a particle keeps its own random numbers."""
        own, source = (torch.from_numpy(rows).to(self.device) for rows in (slots, sources))
        self.rows = {
            part: {name: x[own if part == "own" else source] for name, x in of.items()}
            for part, of in self.rows.items()
        }

    # -- a step -------------------------------------------------------------------------------------------------------

    def _step(self) -> Iterator[tuple[int, Trajectories]]:
        """One step of every row; yields the puzzles that are done."""
        own = self.rows["own"]
        states, outputs = self._advance(self._disturbed(), self.rows["data"])
        own["steps"] = own["steps"] + 1
        # what the architecture ends by itself
        halts = self.model.stops(outputs, own["steps"], None, self.limit)
        states, ends = self.model.settle(states, own["steps"], halts)
        self.rows["states"] = states
        seen, stops = self._look(outputs)
        if self.rule.early_halting:
            ends = ends | stops
        arrays = {name: values.cpu().numpy() for name, values in seen.items()}
        stopped, ended = stops.cpu().numpy(), ends.cpu().numpy()

        begin, done, staying = 0, [], []
        for group in self.groups:
            part = slice(begin, begin + len(group.alive))
            group.add({name: values[part] for name, values in arrays.items()}, stopped[part])
            staying.append(begin + np.flatnonzero(~ended[part]))
            group.end(ended[part])
            begin = part.stop
            last = group.step == self.limit or not len(group.alive)
            if last or (self.known is not None and self.known(group.number, group.found())):
                done.append(group)
                staying[-1] = staying[-1][:0]
        sources = staying
        if self.resample:
            sources = [self._drawn(group, rows) for group, rows in zip(self.groups, staying, strict=True)]
        slots = np.concatenate(staying)
        self.groups = [group for group in self.groups if group not in done]
        if len(slots) < begin or self.resample:
            self._keep(slots, np.concatenate(sources))
        yield from ((group.number, group.whole()) for group in done)

    def _disturbed(self) -> dict[str, Tensor]:
        """The latents of all rows, with noise where the rule has it."""
        states, own = self.rows["states"], self.rows["own"]
        sigma = own["noise"]
        if self.rule.restarts == 1 or self.rule.vary == "views":
            return states
        if self.rule.vary == "start":
            random_start = isinstance(self.model, RandomStartModel)
            sigma = torch.zeros_like(sigma) if random_start else sigma.where(own["steps"] == 0, 0.0)
        names = list(latents_of(self.model.inner, states))
        seed = seed_of(self.rule.seed, int(Stream.ROLLOUTS))
        return noisy(states, names, sigma, seed, step_keys(own["seeds"], own["steps"]))

    def _advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A pass of the model over all rows; a compiled one sees only a few numbers of rows."""
        count = len(data["inputs"])
        if not self.model.compiled:
            return self.model.advance(states, data)
        index = torch.arange(fixed_size(self.most, count), device=self.device).clamp(max=count - 1)
        states, outputs = self.model.advance(*({name: x[index] for name, x in of.items()} for of in (states, data)))
        return {name: x[:count] for name, x in states.items()}, {name: x[:count] for name, x in outputs.items()}

    def _look(self, outputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """What is recorded of a step, [rows, ...] each; and where the halting rule stops, bool [rows]."""
        last, steps, rule = self.rows["last"], self.rows["own"]["steps"], self.rule.halting
        logits = outputs["logits"].float()
        answers = logits.argmax(-1)
        stops = self.model.wants_to_halt(outputs, rule.threshold)
        begins = steps == 1
        change = torch.full_like(logits[:, 0, 0], torch.nan)
        if last:
            moved = (logits - last["logits"]).norm(dim=-1).mean(-1)
            change = torch.where(begins, change, moved)
        if rule.unchanged:
            same = (answers == last["answers"]).all(-1) if last else torch.zeros_like(begins)
            stops = stops & same & ~begins
        halt = outputs["q_halt_logits"].float()
        if self.model.inner.compares_continue:
            halt = halt - outputs["q_continue_logits"].float()
        self.rows["last"] = {"logits": logits, "answers": answers}
        seen: dict[str, Any] = {
            "answers": answers,
            "halt": halt.nan_to_num(_NEVER),
            "confidence": certainty(self.head, logits, answers)[0].float().mean(-1),
            "change": change,
        }
        return seen, stops

    def _drawn(self, group: _Group, rows: np.ndarray) -> np.ndarray:
        """The rows of the parents of a puzzle's particles, which replace the particles."""
        if len(rows) < 2:
            return rows
        q_halt = torch.from_numpy(group.halt[group.alive, group.step - 1])[None]
        seed = int(self.rows["own"]["seeds"][rows[0]])
        key = torch.tensor([seed + group.step])
        u = uniform(seed_of(self.rule.seed, int(Stream.ROLLOUTS), 1), key, 1)[0]
        return rows[parents(q_halt, u, self.rule.beta)[0].numpy()]
