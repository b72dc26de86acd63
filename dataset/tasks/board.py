"""The boards of a task as plain data, for models that work on sets of candidates (`models.lattice.board`)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dataset.tasks.grid_symmetry import renamed_by
from dataset.tasks.task import Task
from utils.errors import UserError

Examples = Iterable[tuple[np.ndarray, np.ndarray]]  # tokens of questions and labels, [n, seq_len] each


def board_of(task: Task, examples: Examples) -> dict[str, Any]:
    """The shape of the boards of a task, the candidates of their cells, and their symmetries; of numbers alone.

    Without a `candidates` of its own, a task does not say which of its symbols stand in answers: then these are the
    labels of blanks in the examples. Padding, of which nothing is asked, is closed: it has one candidate, the first.

    Args:
        task: the task at one size.
        examples: parts of the training data.

    Raises:
        UserError: the task does not say which answers cells may have, or a label is none of them.
    """
    allowed, seen = task.candidates(), _answers_seen(task.vocab_size, examples)
    if (wrong := np.argwhere(seen & ~allowed)).size:
        look, (token, answer) = task.look(), wrong[0]
        raise UserError(
            f"the task {task.name}: a cell with {look.character(int(token))!r} (token {token}) in the question has "
            f"{look.character(int(answer))!r} (token {answer}) in the answer, which its `candidates` do not allow. "
            "Correct `candidates` (or `blank`), or use another architecture than ldt."
        )
    if type(task).candidates is Task.candidates:
        allowed &= seen | ~seen.any(axis=1, keepdims=True)
    tokens = np.flatnonzero(allowed[1:].any(axis=0))
    if allowed[0, 0]:
        allowed[0] = np.arange(task.vocab_size) == tokens[0]
    look, renamed = task.look(), renamed_by(task.symmetries())
    return {
        "rows": look.height,
        "columns": look.width,
        "allowed": [np.flatnonzero(row).tolist() for row in allowed],
        "turns": list(task.turns()),
        "units": units_by_kind(task.units(), look.width),
        "renamed": renamed if set(renamed) <= set(tokens.tolist()) else [],
    }


def units_by_kind(units: Sequence[Sequence[int]], width: int) -> dict[str, list[list[int]]]:
    """Units as rows, columns and other groups (`box`), by where they lie in a grid of `width` columns.

    Units of one cell say nothing and are left out.
    """
    kinds: dict[str, list[list[int]]] = {}
    for unit in units:
        cells = [int(cell) for cell in unit]
        rows, columns = ({cell // width for cell in cells}, {cell % width for cell in cells})
        if len(cells) > 1:
            kind = "row" if len(rows) == 1 else "column" if len(columns) == 1 else "box"
            kinds.setdefault(kind, []).append(cells)
    return kinds


def _answers_seen(vocab_size: int, examples: Examples) -> np.ndarray:
    """Which labels stand in cells with which token of the question: bool [vocab_size, vocab_size]."""
    seen = np.zeros(vocab_size * vocab_size, np.bool_)
    for questions, labels in examples:
        asked = labels != 0
        seen[np.unique(questions[asked].astype(np.int64) * vocab_size + labels[asked])] = True
    return seen.reshape(vocab_size, vocab_size)
