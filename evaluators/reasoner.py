"""A model that is ready for use: it takes puzzles as a person writes them, and returns answers with a verdict.

reasoner = load("sudoku_search")
answer = reasoner.solve("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79")
print(answer)
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor

from dataset.tasks.own_code import verdict_of
from dataset.tasks.puzzle import Question, Verdict
from dataset.tasks.task import Task
from evaluators.acceptance import accept_of
from evaluators.answer import Answer, known_label
from evaluators.answers import HaltRule
from evaluators.batch_size import choose_batch_size
from evaluators.rollouts.attempts import ATTEMPTS, Attempts, attempt, undecided
from evaluators.rollouts.run import RolloutRule
from evaluators.rollouts.selectors import Choice
from evaluators.saved_model import SavedConfig, SavedTask, write_model
from evaluators.search import SearchResult, SearchRule
from evaluators.searches import run_search
from evaluators.trace.record import record
from evaluators.trace.trace import Trace
from models.factory import count_parameters
from models.losses import ACTLossHead
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.constants import MAX_ACT_STEPS
from utils.errors import UserError
from utils.settings import ArchConfig

# The default by the network alone. Most puzzles need a few rounds of a single chain; a CPU takes a tenth of a second or
# less for each. With dropout it takes three times as long there, and as many chains succeed (docs/search.md).
SEARCH = SearchRule(chains=2, rounds=600, dropout=0.0, seconds=60.0)
# The default for tasks with units: hard puzzles are solved in a fraction of a second.
SYSTEMATIC = SearchRule(rounds=100_000, seconds=60.0, propagate=True)
_PUZZLES_AT_ONCE = {"cuda": 512}  # of a search; elsewhere one, as more would only share the processor


@dataclass(frozen=True)
class Origin:
    """What is known about a model besides its weights.

    Attributes:
        arch: its architecture.
        task_options: the options of its task, such as the height of boards that are not square.
        puzzles: the names of puzzles by id, if it has an embedding for each puzzle and they are known.
        max_steps: ACT steps of an answer; None: halt_max_steps of the architecture.
        path: the file of the weights.
    """

    arch: ArchConfig
    task_options: dict[str, Any]
    puzzles: list[str] | None
    max_steps: int | None
    path: Path


class Reasoner(
    PyTorchModelHubMixin,
    library_name="tiny-recursive-reasoning",
    license="mit",
    tags=["reasoning", "recursive", "puzzles"],
):
    """A model with its task. `evaluators.loading.load` makes one.

    Args:
        head: the model in its loss head, on its device, in evaluation mode.
        puzzle_task: its task, at the size of the model.
        origin: what else is known about it.
    """

    def __init__(self, head: ACTLossHead, puzzle_task: Task, origin: Origin):
        self.head, self.task, self.origin = head, puzzle_task, origin

    def __repr__(self) -> str:
        kind = self.origin.arch.name.split("@")[-1]
        return f"<Reasoner {kind} for {self.task.name}, {count_parameters(self.head):,} parameters, on {self.device}>"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.head.parameters()).device

    @property
    def searches(self) -> bool:
        """Whether the model solves puzzles by search, so that every solution that it returns is verified."""
        return isinstance(self.head.model, LatticeDeductionTransformer)

    # -- solving -------------------------------------------------------------------------------------------------------

    def solve(
        self,
        puzzle: Any,
        *,
        steps: int | None = None,
        halting: HaltRule | None = HaltRule(),  # noqa: B008  (immutable)
        name: str | None = None,
        attempts: Attempts | None = ATTEMPTS,
        rule: SearchRule | None = None,
        seed: int = 0,
    ) -> Any:
        """Solve one puzzle, or several.

        Args:
            puzzle: a text, nested lists or an array, as `task.encode` describes; or a list of them; or whatever else
                the task takes, such as an object with demonstration pairs.
            steps: the most ACT steps; None: as in the evaluations of the training run. Of a search: the most rounds.
            halting: when an answer is final before the last step; None: after the last step.
            name: the name of the puzzle, for models with an embedding for each puzzle.
            attempts: how often a puzzle is tried, and which answer is taken; None: once. For models that do not search.
            rule: how a model that searches does it; others have no use for it. None: `SYSTEMATIC`, by the rules as well
                as the network, if the task has units; otherwise `SEARCH`, by the network alone.
            seed: of the random choices of a search, and of attempts.

        Returns:
            An `Answer`; a list of them for several puzzles, and for one that asks several questions.

        Raises:
            UserError: the puzzle is none of this task at this size, or `steps` is out of bounds.
        """
        several = self.task.is_batch(puzzle)
        questions = [q for item in (puzzle if several else [puzzle]) for q in self.task.questions(item, name)]
        answers = self.answer(questions, steps, halting, rule, seed, attempts)
        return answers[0] if len(answers) == 1 and not several else answers

    def answer(
        self,
        questions: Iterable[Question],
        steps: int | None = None,
        halting: HaltRule | None = None,
        rule: SearchRule | None = None,
        seed: int = 0,
        attempts: Attempts | None = None,
    ) -> list[Answer]:
        """The answers to questions in tokens; see `solve`."""
        questions = list(questions)
        _check_steps(steps)
        if not questions:
            return []
        if isinstance(self.head.model, LatticeDeductionTransformer):
            rule = rule or (SYSTEMATIC if self.task.units() else SEARCH)
            rule = rule if steps is None else replace(rule, rounds=steps)
            return self._search(self.head.model, questions, rule, seed)
        ids = [self._puzzle_id(question.name) for question in questions]
        steps = steps or self.origin.max_steps
        if attempts is not None and attempts.selector is not None:
            return self._attempt(questions, ids, attempts, attempts.rule(self.task, steps, halting, seed))
        size = choose_batch_size(self.head.model, self.device)
        answers: list[Answer] = []
        for start in range(0, len(questions), size):
            part = slice(start, start + size)
            answers += self._recur(questions[part], ids[part], steps, halting)
        return answers if attempts is None else self._again(answers, ids, attempts, steps, halting, seed)

    def _again(
        self,
        answers: list[Answer],
        ids: list[int],
        attempts: Attempts,
        steps: int | None,
        halting: HaltRule | None,
        seed: int,
    ) -> list[Answer]:
        """The answers, with those that the rules of the task reject replaced by ones that obey them, where found."""
        wrong = [place for place, answer in enumerate(answers) if self._rejected(answer)]
        rule = attempts.rule(self.task, steps, halting, seed)
        if not wrong or rule.restarts == 1:
            return answers
        questions = [answers[place].question for place in wrong]
        for place, found in zip(
            wrong, self._attempt(questions, [ids[place] for place in wrong], attempts, rule), strict=True
        ):
            seconds = answers[place].seconds + found.seconds
            better = found if found.solved else answers[place]
            answers[place] = replace(better, seconds=seconds, rollouts=1 + found.rollouts)
        return answers

    def _rejected(self, answer: Answer) -> bool:
        """Whether the rules of the task, and not just a label, say that an answer is wrong."""
        wrong = answer.verdict.status == "wrong"
        return wrong and verdict_of(self.task, answer.question.tokens, answer.tokens).status == "wrong"

    def _attempt(
        self, questions: list[Question], ids: list[int], attempts: Attempts, rule: RolloutRule
    ) -> list[Answer]:
        """The answers that the selector takes from the rollouts of each question."""
        begun, selector = time.perf_counter(), attempts.chosen
        rows = choose_batch_size(self.head.model, self.device)
        answers: dict[int, Answer] = {}
        for number, found, choice in attempt(self.head, self.task, questions, ids, selector, rule, rows):
            question, seconds = questions[number], time.perf_counter() - begun
            begun += seconds
            rollout, step, _ = choice or Choice(0, found.steps - 1)
            tokens, halts = found.answers[rollout, : step + 1], found.halt[rollout, : step + 1]
            verdict = undecided(selector, rule.restarts)
            if choice is not None:
                verdict = verdict_of(self.task, question.tokens, tokens[-1], question.label)
            probabilities = torch.from_numpy(halts).sigmoid().numpy()
            answers[number] = Answer(
                self.task, question, tokens[-1], step + 1, float(probabilities[-1]), tokens, probabilities, verdict,
                seconds, rollouts=rule.restarts,
            )  # fmt: skip
        return [answers[number] for number in range(len(questions))]

    def trace(
        self,
        puzzle: Any,
        *,
        steps: int | None = None,
        halting: HaltRule = HaltRule(),  # noqa: B008  (immutable)
        inner: bool = False,
        name: str | None = None,
    ) -> Trace:
        """How the model thinks about one puzzle, or several; every puzzle takes all steps.

        Args:
            puzzle, steps, name: see `solve`.
            halting: the rule whose decision is recorded.
            inner: also record every inner update of the latents.

        Raises:
            UserError: see `solve`; or `inner`, and the architecture does not report its inner updates.
        """
        several = self.task.is_batch(puzzle)
        questions = [q for item in (puzzle if several else [puzzle]) for q in self.task.questions(item, name)]
        _check_steps(steps)
        if not questions:
            raise UserError("trace: there is no puzzle. Give at least one.")
        inputs = np.stack([question.tokens for question in questions]).astype(np.int32)
        data = {
            "inputs": inputs,
            "labels": np.stack([known_label(self.task, question) for question in questions]),
            "puzzle_identifiers": np.array([self._puzzle_id(question.name) for question in questions], np.int32),
        }
        about = {"name": repr(self), "task_options": self.origin.task_options, "checkpoint": str(self.origin.path)}
        steps = steps or self.origin.max_steps
        return record(self.head, data, self.task, about, rule=halting, early_halting=True, max_steps=steps, inner=inner)

    def _puzzle_id(self, name: str | None) -> int:
        """The row of the puzzle embedding; 0, the blank one, if the model knows no puzzles apart.

        Raises:
            UserError: the model has an embedding for each puzzle, and none for this one.
        """
        table = self.head.model.puzzle_emb
        if table is None or len(table.weights) == 1:
            return 0
        if self.origin.puzzles is None or name not in self.origin.puzzles:
            raise self.task.unknown_name(name)
        return self.origin.puzzles.index(name)

    def _recur(
        self, questions: list[Question], ids: list[int], steps: int | None, halting: HaltRule | None
    ) -> list[Answer]:
        """Answers by recursion. All questions of a batch take steps until the last of them halts."""
        begun = time.perf_counter()
        model = self.head.model
        inputs = torch.from_numpy(np.stack([question.tokens for question in questions]).astype(np.int32))
        data = {"inputs": inputs, "puzzle_identifiers": torch.tensor(ids, dtype=torch.int32)}
        data = {key: value.to(self.device) for key, value in data.items()}
        tokens: list[Tensor] = []
        halts: list[Tensor] = []
        taken = torch.zeros(len(questions), dtype=torch.int64, device=self.device)  # 0: not halted yet
        with torch.inference_mode():
            for step, (_, outputs) in enumerate(model.answer_steps(data, steps), start=1):
                tokens.append(outputs["logits"].argmax(-1))
                halts.append(outputs["q_halt_logits"].float().sigmoid())
                if halting is not None:
                    stops = model.wants_to_halt(outputs, halting.threshold)
                    if halting.unchanged:
                        stops &= (tokens[-1] == tokens[-2]).all(-1) if step > 1 else False
                    taken = torch.where(stops & (taken == 0), step, taken)
                if bool((taken > 0).all()):
                    break
        by_step = torch.stack(tokens, 1).to(torch.uint8).cpu().numpy()  # [batch, steps, seq]
        halt_by_step = torch.stack(halts, 1).cpu().numpy()
        counts = torch.where(taken > 0, taken, len(tokens)).tolist()
        seconds = (time.perf_counter() - begun) / len(questions)
        answers = []
        for question, own, halt, count in zip(questions, by_step, halt_by_step, counts, strict=True):
            verdict = verdict_of(self.task, question.tokens, own[count - 1], question.label)
            answers.append(
                Answer(
                    self.task, question, own[count - 1], count, float(halt[count - 1]), own[:count], halt[:count],
                    verdict, seconds,
                )
            )  # fmt: skip
        return answers

    def _search(
        self, model: LatticeDeductionTransformer, questions: list[Question], rule: SearchRule, seed: int
    ) -> list[Answer]:
        """Answers by search: boards that obey the rules, or none. `rule.seconds` holds for each batch of puzzles."""
        known = [self.task.solutions(question.tokens) for question in questions]
        searched = [place for place, solutions in enumerate(known) if solutions.number != "none"]
        open_token = model.network.board.open_token
        answers = [
            self._unsolvable(question, found.reason, open_token)
            for question, found in zip(questions, known, strict=True)
        ]
        size = _PUZZLES_AT_ONCE.get(self.device.type, 1)
        for start in range(0, len(searched), size):
            places = searched[start : start + size]
            inputs = np.stack([questions[place].tokens for place in places])
            accept, units = accept_of(self.task), self.task.units()
            found = run_search(model, inputs, accept, units, rule, size, seed, record=True)
            for row, place in enumerate(places):
                answers[place] = self._searched(questions[place], found, row, rule, open_token)
        return answers

    def _unsolvable(self, question: Question, reason: str, open_token: int | None) -> Answer:
        """The answer to a puzzle that has no solution: the puzzle itself."""
        board, halt = question.tokens[None], np.zeros(1, np.float32)
        verdict = Verdict("undecided", reason)
        return Answer(self.task, question, question.tokens, 0, None, board, halt, verdict, 0.0, open_token)

    def _searched(
        self, question: Question, found: SearchResult, row: int, rule: SearchRule, open_token: int | None
    ) -> Answer:
        """The answer that a search found to the puzzle in one of its rows; without one, the puzzle itself."""
        assert found.boards is not None
        solved, rounds = bool(found.solved[row]), int(found.rounds[row])
        tokens = found.answers[row].astype(np.uint8) if solved else question.tokens
        boards = found.boards[row] if len(found.boards[row]) else question.tokens[None]
        effort = f"{rounds} rounds of {rule.chains} chains"
        if rule.propagate:
            effort = f"trying {rounds} candidate{'' if rounds == 1 else 's'}"
        verdict = Verdict("undecided", f"the search gave up after {effort}")
        if found.unsolvable[row]:
            verdict = Verdict("undecided", "it has no solution, because every branch of the search breaks the rules")
        if solved:
            verdict = verdict_of(self.task, question.tokens, tokens, question.label)
            if not found.rows[row]:
                verdict = replace(verdict, reason=f"{verdict.reason}; the rules alone led to it")
        halt = np.zeros(len(boards), np.float32)
        halt[-1] = float(solved)
        seconds = found.seconds / len(found.solved)
        return Answer(self.task, question, tokens, rounds, None, boards, halt, verdict, seconds, open_token)

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> Path:
        """Write the model to a folder that `load` reads: safetensors, configuration and vocabulary, no pickle.

        A README.md that is there, a model card, is kept; otherwise a short one is written.

        Returns:
            The folder.

        Raises:
            UserError: the folder cannot be written.
        """
        folder, task = Path(folder), self.task
        config = SavedConfig(
            arch=self.origin.arch,
            task=SavedTask(name=task.name, options=self.origin.task_options),
            seq_len=task.seq_len,
            vocab_size=task.vocab_size,
            vocabulary="".join(task.look().character(token) for token in range(task.vocab_size)),
            max_steps=self.origin.max_steps,
        )
        write_model(folder, self.head.state_dict(), config, self.origin.puzzles, self._card(folder.name))
        return folder

    def _card(self, name: str) -> str:
        """A model card without results, which only those who trained the model know."""
        data = type(self)._hub_mixin_info.model_card_data.to_yaml()
        kind, task = self.origin.arch.name.split("@")[-1], self.task
        return (
            f"---\n{data}\n---\n# {name}\n\n{kind} for {task.name} with {count_parameters(self.head):,} parameters: "
            f"{task.seq_len} tokens of a vocabulary of {task.vocab_size}.\n\n"
            f"```python\nfrom tiny_recursive_model import load\n\nreasoner = load({name!r})  # this folder\n"
            "print(reasoner.solve(PUZZLE))\n```\n"
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        """For `save_pretrained` and `push_to_hub` of the Hugging Face Hub."""
        self.save(save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None = None, **options: Any) -> "Reasoner":
        """For `from_pretrained` of the Hugging Face Hub: the same as `load`, with a `revision`."""
        from evaluators.loading import load_from_hub  # imported here, because that module makes reasoners

        return load_from_hub(model_id, revision, options.get("device", "auto"), options)


def _check_steps(steps: int | None) -> None:
    if steps is not None and not 1 <= steps <= MAX_ACT_STEPS:
        raise UserError(f"steps {steps}: at least 1 and at most {MAX_ACT_STEPS:,}.")
