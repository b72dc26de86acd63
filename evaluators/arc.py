"""ARC: votes over augmented predictions, pass@k, and the submission file of the Kaggle competitions."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dataset.shards import BUILD_AGAIN, PuzzleDatasetMetadata, load_identifiers
from dataset.tasks.arc.augmentation import parse_puzzle_name
from dataset.tasks.arc.field import SEQ_LEN, VOCAB_SIZE, crop
from dataset.tasks.arc.files import ArcTask, parse_task
from evaluators.votes import Arrival, Candidate, Key, Question, Votes, merge_votes, pack_votes, unpack_votes
from utils.atomic_file import write_text
from utils.errors import UserError
from utils.text_files import read_json

# Kaggle's own placeholder for an attempt that was not made.
NO_ATTEMPT = [[0, 0], [0, 0]]

Grid = list[list[int]]


class Ballot(NamedTuple):
    """One prediction as a vote."""

    row: int  # in its batch
    question: Question
    answer: Key  # the predicted grid, without the augmentation
    confidence: float  # sigmoid(q_halt)


class ARC:
    """Vote over the predictions for all augmented copies of each test input.

    Each prediction is cropped, its augmentation, which the name of its puzzle gives, is undone, and it votes for the
    resulting grid. Candidates are ranked by votes, then by mean sigmoid(q_halt), then by order of arrival. A test input
    counts as right at k if its solution is among the first k candidates. The score of a task is the mean over its test
    inputs, and `ARC/pass@k` is the mean over the tasks. Tasks without solutions appear only in the submission. (HRM,
    section 3; TRM, section 5.)

    Only distinct predictions are kept, so memory does not grow with the number of votes. If every prediction is another
    one, as those of an untrained model, each takes about a kilobyte.
    """

    required_outputs: ClassVar[set[str]] = {"inputs", "puzzle_identifiers", "q_halt_logits", "preds"}

    def __init__(
        self,
        data_path: str,
        eval_metadata: PuzzleDatasetMetadata,
        submission_K: int = 2,
        pass_Ks: Sequence[int] = (1, 2, 5, 10, 100, 1000),
        aggregated_voting: bool = False,
        pictures: int = 0,
    ) -> None:
        """
        Args:
            data_path: data set made by `dataset.build_arc_dataset`.
            eval_metadata: metadata of its test split.
            submission_K: attempts per test input in the submission.
            pass_Ks: the values of k in `ARC/pass@k`.
            aggregated_voting: keep the votes of earlier evaluations, so that checkpoints vote together.
            pictures: number of tasks whose attempts are drawn, next to the submission.

        Raises:
            UserError: an option is out of range, or the data set is not an ARC data set.
        """
        self.submission_K = submission_K
        self.pass_Ks = tuple(pass_Ks)
        self.aggregated_voting = aggregated_voting
        self.pictures = pictures
        if submission_K < 1 or pictures < 0 or any(k < 1 for k in self.pass_Ks):
            raise UserError(
                f"evaluator ARC: submission_K={submission_K}, pass_Ks={list(pass_Ks)}, pictures={pictures}: "
                "submission_K and every k must be at least 1, pictures at least 0."
            )
        if (eval_metadata.seq_len, eval_metadata.vocab_size) != (SEQ_LEN, VOCAB_SIZE):
            raise UserError(
                f"evaluator ARC: {data_path} has seq_len {eval_metadata.seq_len} and vocabulary "
                f"{eval_metadata.vocab_size}, ARC has {SEQ_LEN} and {VOCAB_SIZE}. Choose the evaluator of your task."
            )
        self._blank = eval_metadata.blank_identifier_id
        self._names = load_identifiers(data_path)
        if self._names is None:
            raise _not_arc(Path(data_path) / "identifiers.json")
        self._tasks = _load_test_tasks(Path(data_path) / "test_puzzles.json")
        self._asked = {(task.name, _key(pair.input)) for task in self._tasks for pair in task.parts["test"]}
        self._evaluations = 0
        self._reset()

    def begin_eval(self) -> None:
        """Start an evaluation. Earlier votes are dropped unless they are aggregated."""
        if not self.aggregated_voting:
            self._reset()
        elif self._evaluations and (not dist.is_initialized() or dist.get_rank() == 0):
            print(f"ARC: aggregated_voting, so the votes of {self._evaluations} earlier evaluations count as well")
        self._evaluations += 1

    def _reset(self) -> None:
        self._votes: Votes = {}
        self._calls = 0
        self._unasked = 0  # predictions that belong to no test input

    def update_batch(self, batch: Mapping[str, Tensor], preds: Mapping[str, Tensor]) -> None:
        """Count the predictions of a batch; rows with the blank identifier are padding.

        Args:
            batch, preds: between them hold inputs and preds, tokens [batch, 900], puzzle_identifiers [batch] and
                q_halt_logits [batch].

        Raises:
            ValueError: one of these is missing.
            UserError: a puzzle identifier is not one of the data set.
        """
        for ballot in self.ballots(batch, preds):
            if ballot.question not in self._asked:
                self._unasked += 1
                continue
            candidates = self._votes.setdefault(ballot.question, {})
            candidates.setdefault(ballot.answer, Candidate((self._calls, 0, ballot.row))).add(ballot.confidence)
        self._calls += 1

    def ballots(self, batch: Mapping[str, Tensor], preds: Mapping[str, Tensor]) -> Iterator[Ballot]:
        """The votes of a batch, without counting them; see `update_batch`."""
        tensors = {**batch, **preds}
        missing = self.required_outputs - tensors.keys()
        if missing:
            raise ValueError(f"evaluator ARC needs {sorted(missing)}, got {sorted(tensors)}")
        identifiers = tensors["puzzle_identifiers"].cpu().numpy()
        rows = np.flatnonzero(identifiers != self._blank)
        inputs, predictions = (tensors[name].cpu().numpy()[rows] for name in ("inputs", "preds"))
        # To the CPU first, because not every device has float64. A NaN of a diverged model becomes 0, which ranks last.
        halt = tensors["q_halt_logits"].cpu()[torch.from_numpy(rows)]
        confidences = torch.nan_to_num(halt.to(torch.float64).sigmoid(), nan=0.0).tolist()
        for row, identifier, asked, answer, confidence in zip(
            rows.tolist(), identifiers[rows].tolist(), crop(inputs), crop(predictions), confidences, strict=True
        ):
            task, augmentation = parse_puzzle_name(self._name(identifier))
            question = task, _key(augmentation.undo(asked))
            yield Ballot(row, question, _key(augmentation.undo(answer)), confidence)

    def task_of(self, identifier: int) -> str:
        """The id of the task of a puzzle, by the puzzle's id in the data set."""
        return parse_puzzle_name(self._name(identifier))[0]

    def tests(self) -> Iterator[tuple[Question, str, np.ndarray | None]]:
        """Each test input: (the question, its name for people, its solution if it is known)."""
        for task in self._tasks:
            for number, pair in enumerate(task.parts["test"], start=1):
                yield (task.name, _key(pair.input)), f"test input {number} of {task.name}", pair.output

    def state(self) -> dict[str, np.ndarray]:
        """The votes of this evaluation so far, as arrays for a file."""
        return {**pack_votes(self._votes), "calls": np.array([self._calls, self._unasked])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from the votes that `state` has returned."""
        self._votes = unpack_votes(state)
        self._calls, self._unasked = (int(count) for count in state["calls"])

    def _name(self, identifier: int) -> str:
        assert self._names is not None
        if not 0 <= identifier < len(self._names):
            raise UserError(
                f"evaluator ARC: puzzle id {identifier}, but identifiers.json names 0..{len(self._names) - 1}. "
                "Evaluate on the data set that the evaluator was given."
            )
        return self._names[identifier]

    def result(
        self, save_path: str | None, rank: int, world_size: int, group: dist.ProcessGroup | None = None
    ) -> dict[str, float] | None:
        """`ARC/pass@k` on rank 0, None on the others; all ranks must call it.

        Args:
            save_path: folder for `submission.json` and `arc_pictures/`, or None to write nothing.
            group: process group to gather over; not needed by a single process.
        """
        gathered = [(self._votes, self._unasked)]
        if world_size > 1:
            collected: list[Any] = [None] * world_size
            dist.gather_object(gathered[0], collected if rank == 0 else None, dst=0, group=group)
            if rank != 0:
                return None
            gathered = collected
        unasked = sum(count for _, count in gathered)
        if unasked:
            print(f"ARC: {unasked} predictions are for none of the test inputs of test_puzzles.json and do not count")
        ranked = self._ranked([votes for votes, _ in gathered])
        if save_path is not None:
            self._save(Path(save_path), ranked)
        return self._score(ranked)

    def _ranked(self, votes_of_ranks: list[Votes]) -> dict[str, list[list[np.ndarray]]]:
        """For each task, the candidates of each of its test inputs, best first."""
        ranked: dict[str, list[list[np.ndarray]]] = {}
        for task in self._tasks:
            ranked[task.name] = []
            for pair in task.parts["test"]:
                question = task.name, _key(pair.input)
                merged = merge_votes([votes.get(question, {}) for votes in votes_of_ranks])
                ranked[task.name].append([grid_of(answer) for answer in best_first(merged)])
        unanswered = sum(not candidates for inputs in ranked.values() for candidates in inputs)
        if unanswered:
            print(f"ARC: {unanswered} test inputs have no predictions; they count as wrong")
        return ranked

    def _score(self, ranked: dict[str, list[list[np.ndarray]]]) -> dict[str, float]:
        correct = dict.fromkeys(self.pass_Ks, 0.0)
        scored = 0
        for task in self._tasks:
            solved_at = [
                next((i for i, grid in enumerate(candidates, start=1) if np.array_equal(grid, pair.output)), math.inf)
                for pair, candidates in zip(task.parts["test"], ranked[task.name], strict=True)
                if pair.output is not None
            ]
            if solved_at:
                scored += 1
                for k in self.pass_Ks:
                    correct[k] += sum(place <= k for place in solved_at) / len(solved_at)
        if not scored:
            print("ARC: no test task has a solution, so there is no pass@k")
            return {}
        return {f"ARC/pass@{k}": total / scored for k, total in correct.items()}

    def _save(self, folder: Path, ranked: dict[str, list[list[np.ndarray]]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        attempts = {
            name: [self._attempts(candidates) for candidates in inputs_of_task]
            for name, inputs_of_task in ranked.items()
        }
        submission = {
            name: [{f"attempt_{i}": grid for i, grid in enumerate(grids, start=1)} for grids in of_task]
            for name, of_task in attempts.items()
        }
        write_text(folder / "submission.json", json.dumps(submission))
        for task in self._tasks[: self.pictures]:
            draw_attempts(folder / "arc_pictures" / f"{task.name}.png", task, attempts[task.name])

    def _attempts(self, candidates: list[np.ndarray]) -> list[Grid]:
        """The first `submission_K` candidates, filled up with the best one, or with a placeholder if there is none."""
        grids = [grid.tolist() for grid in candidates[: self.submission_K]]
        return grids + [grids[0] if grids else NO_ATTEMPT] * (self.submission_K - len(grids))


def draw_attempts(path: Path, task: ArcTask, attempts: Sequence[Sequence[Grid]]) -> None:
    """Save a picture with a row per test input of `task`: the input, the target and the attempts at it.

    Args:
        attempts: the attempts at each test input, grids of colours.
    """
    from matplotlib.colors import ListedColormap  # imported here: it takes a second, and few runs draw
    from matplotlib.figure import Figure

    palette = ListedColormap(
        # The colours of the ARC-AGI web pages.
        ["#000000", "#1E93FF", "#F93C31", "#4FCC30", "#FFDC00", "#999999", "#E53AA3", "#FF851B", "#87D8F1", "#921231"]
    )
    columns = 2 + max(map(len, attempts))
    figure = Figure(figsize=(2.5 * columns, 2.7 * len(attempts)), layout="constrained")
    axes = figure.subplots(len(attempts), columns, squeeze=False)
    for pair, grids, row in zip(task.parts["test"], attempts, axes, strict=True):
        titles = ["input", "target" if pair.output is not None else "target unknown"]
        titles += [
            f"attempt {i}" + (": right" if pair.output is not None and grid == pair.output.tolist() else "")
            for i, grid in enumerate(grids, start=1)
        ]
        for axis, title, grid in zip(row, titles, [pair.input, pair.output, *grids], strict=False):
            axis.set_title(title)
            axis.set_xticks([])
            axis.set_yticks([])
            if grid is not None and np.size(grid):
                axis.imshow(np.asarray(grid), cmap=palette, vmin=0, vmax=9, interpolation="nearest")
    figure.suptitle(task.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _key(grid: np.ndarray) -> Key:
    return bytes(grid.shape) + grid.tobytes()


def best_first(candidates: Mapping[Key, Candidate]) -> list[Key]:
    """The predicted grids of a question in the order of their places."""
    return sorted(candidates, key=lambda answer: _rank(candidates[answer]))


def grid_of(key: Key) -> np.ndarray:
    """The grid of a key, colours, uint8 [height, width]."""
    return np.frombuffer(key, dtype=np.uint8, offset=2).reshape(key[0], key[1])


def _rank(candidate: Candidate) -> tuple[int, float, Arrival]:
    """Sort key that puts the best candidate first."""
    return -candidate.votes, -math.fsum(candidate.confidence) / candidate.votes, candidate.arrival


def _load_test_tasks(path: Path) -> list[ArcTask]:
    if not path.exists():
        raise _not_arc(path)
    tasks = read_json(path, BUILD_AGAIN)
    if not isinstance(tasks, dict) or not tasks:
        raise UserError(f"{path}: expected an object, task id -> task. Build the data set again.")
    return [parse_task(name, task, str(path)) for name, task in tasks.items()]


def _not_arc(path: Path) -> UserError:
    return UserError(
        f"evaluator ARC: {path} is missing. Build the data set with `python -m dataset.build_arc_dataset`, "
        "or choose the evaluator of your task."
    )
