"""Build a Sudoku data set, from CSV files or from generated puzzles.

    python -m dataset.build_sudoku_dataset --output-dir data/sudoku-extreme-1k-aug-1000 \\
        --subsample-size 1000 --num-aug 1000
    python -m dataset.build_sudoku_dataset --output-dir data/sudoku-6x6 --generate 1000 --box 2x3

Token 0 is padding; a cell of value v is token v + 1, so a blank is 1. A group is a puzzle and its augmented copies. No
training puzzle is equivalent to a test puzzle. Test puzzles without an answer have labels of 0: they are not scored.
"""

from typing import Annotated

import numpy as np
import torch
import tyro
from pydantic import BaseModel
from tqdm import tqdm

from dataset.build_record import build_and_record
from dataset.question_answer import (
    Split,
    check_at_least,
    not_among,
    notice,
    read_split,
    refuse_changed,
    subsample,
    write_question_answers,
)
from dataset.shards import BLANK_IDENTIFIER, build_folder, write_identifiers
from dataset.tasks.sudoku.augmentation import SudokuAugmentation
from dataset.tasks.sudoku.equivalence import canonical_keys
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import TOKEN_OFFSET, Box, obeys_rules, parse_box
from dataset.tasks.sudoku.solver import count_solutions
from dataset.tasks.sudoku.task import Sudoku
from utils.counter_random import seed_of
from utils.errors import UserError, exit_on_user_error
from utils.random_streams import Stream

_PUZZLES_AT_ONCE = 1 << 14  # puzzles augmented at once, to bound memory use
_CHECKED = 500  # puzzles of a file whose solutions are counted, some 15 ms each if they are hard


class Config(BaseModel, extra="forbid"):
    """Options of the Sudoku builder."""

    output_dir: str = "data/sudoku-extreme-full"
    """Folder of the data set."""
    source: Annotated[str, tyro.conf.arg(aliases=["--source-repo"])] = "sapientinc/sudoku-extreme"
    """Hugging Face data set, or local folder, with train.csv and test.csv."""
    subsample_size: int | None = None
    """Number of training puzzles to draw; all if not given."""
    test_subsample_size: int | None = None
    """Number of test puzzles to draw; all if not given."""
    num_aug: int = 0
    """Augmented copies of each training puzzle."""
    min_difficulty: int | None = None
    """Leave out puzzles with a lower rating."""
    generate: int | None = None
    """Number of training puzzles to generate instead of reading CSV files."""
    test_size: int = 100
    """Number of test puzzles to generate."""
    box: str = "3x3"
    """Rows x columns of a box: 2x2, 2x3 or 3x3."""
    min_clues: int = 0
    """Stop removing clues from a generated puzzle at this number."""
    max_clues: int | None = None
    """Discard generated puzzles with more clues than this."""
    uniform_clues: bool = False
    """Stop at a number of clues drawn uniformly from min_clues..max_clues for each puzzle, instead of at min_clues."""
    seed: int = 0
    """Seed of all random choices."""
    overwrite: bool = False
    """Replace the data set in the output folder, if there is one."""


def build(config: Config) -> None:
    """Build the data set that `config` describes.

    Raises:
        UserError: an option or an input file is invalid, or the output folder is not empty.
    """
    check_at_least(0, num_aug=config.num_aug, seed=config.seed)
    sizes = {name: getattr(config, name) for name in ("subsample_size", "test_subsample_size", "generate", "test_size")}
    check_at_least(1, **sizes)
    box = parse_box(config.box)
    generate_rng, train_rng, test_rng = np.random.default_rng(config.seed).spawn(3)
    if config.generate is None:
        refuse_changed(
            config,
            ("test_size", "min_clues", "max_clues", "uniform_clues"),
            "only with --generate; add that, or leave this out",
        )
    else:
        refuse_changed(config, ("source", "min_difficulty"), "not with --generate; leave out one of the two")
    with build_folder(config.output_dir, config.overwrite) as root:
        if config.generate is None:
            train, test = _read(config, box, "train"), _read(config, box, "test")
        else:
            train, test = _generate(config, config.generate, box, generate_rng)
        kept = not_among(_keys(train[0], box), _keys(test[0], box))
        dropped = len(train[0]) - len(kept)
        if not len(kept):
            raise UserError("every training puzzle is equivalent to a test puzzle: choose another --source.")
        chosen = kept[subsample(len(kept), config.subsample_size, train_rng)]
        chosen_test = subsample(len(test[0]), config.test_subsample_size, test_rng)

        questions, answers = train[0][chosen] + TOKEN_OFFSET, _labels(train[1][chosen])
        inputs, labels = _augmented(
            questions, answers, box, config.num_aug, seed_of(config.seed, Stream.STORED_AUGMENTATION)
        )
        group_sizes = np.full(len(chosen), 1 + config.num_aug)
        write_question_answers(root / "train", inputs, labels, group_sizes, box.vocab_size, Sudoku.name)
        test_inputs, test_answers = (boards[chosen_test] for boards in test)
        test_inputs, test_labels = test_inputs + TOKEN_OFFSET, _labels(test_answers)
        ones = np.ones(len(chosen_test), np.int64)
        write_question_answers(root / "test", test_inputs, test_labels, ones, box.vocab_size, Sudoku.name)
        write_identifiers(root, [BLANK_IDENTIFIER])
    print(
        f"{config.output_dir}: {len(chosen)} training puzzles ({len(inputs)} with augmented copies), "
        f"{len(chosen_test)} test puzzles, {np.count_nonzero(train[0][chosen]) / len(chosen):.2f} and "
        f"{np.count_nonzero(test[0][chosen_test]) / len(chosen_test):.2f} clues on average; "
        f"{dropped} training candidates equivalent to a test puzzle dropped"
    )


def _read(config: Config, box: Box, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Questions and answers of one CSV file, checked, as cell values uint8 [n, cells]; 0 for a missing answer."""
    hint = f"Boxes {box} have {box.cells} cells: choose --box to fit."
    rows = read_split(config.source, split, box.cells, hint, config.min_difficulty)
    answered = rows.answered
    blank = rows.questions == ord(".")
    questions = np.where(blank, ord("0"), rows.questions) - ord("0")
    answers = np.where(answered[:, None], rows.answers - ord("0"), 0)
    # Characters below "0" wrap around in uint8, so they are out of range as well.
    rows.refuse(questions > box.side, f"a question holds digits 1..{box.side}, and . or 0 for a blank")
    wrong = ((answers > box.side) | (answers < 1)).any(axis=1)
    rows.refuse(answered & wrong, f"an answer holds digits 1..{box.side} only")
    lost = ((questions != 0) & (questions != answers)).any(axis=1)
    rows.refuse(answered & lost, "the answer does not keep the question's clues")
    rows.refuse(answered & ~obeys_rules(answers, box), "the answer repeats a digit in a row, column or box")
    questions, answers = questions.astype(np.uint8), answers.astype(np.uint8)
    _warn_of_ambiguous(questions, box, split, config.seed)
    return questions, answers


def _warn_of_ambiguous(questions: np.ndarray, box: Box, split: Split, seed: int) -> None:
    """Warn if puzzles, cell values [n, cells], have several solutions, or none, which unanswered ones may have.

    Of many puzzles, only a random sample is solved.
    """
    chosen = subsample(len(questions), _CHECKED, np.random.default_rng(seed))
    boards = tqdm(questions[chosen], "count solutions", unit=" puzzles", delay=1, leave=False, disable=None)
    counts = np.array([count_solutions(board, box) for board in boards])
    checked = f"of {len(chosen)} {'test' if split == 'test' else 'training'} puzzles checked"
    if several := np.count_nonzero(counts > 1):
        effect = (
            "the rules' verdict Sudoku/solved counts any of them, exact_accuracy only the given one"
            if split == "test"
            else "only the given one is trained on"
        )
        notice(f"WARNING: {several} {checked} have several solutions; {effect}")
    if none := np.count_nonzero(counts == 0):
        notice(f"WARNING: {none} {checked} have no solution, so no answer to them can be right")


def _labels(answers: np.ndarray) -> np.ndarray:
    """Tokens of answers, cell values [n, cells]; 0 (no label) in the rows of missing answers."""
    return np.where(answers == 0, 0, answers + TOKEN_OFFSET).astype(np.uint8)


def _generate(
    config: Config, train_size: int, box: Box, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Generated (questions, answers) for train and for test."""
    total = train_size + config.test_size
    made = generate_puzzles(total, box, rng, config.min_clues, config.max_clues, config.uniform_clues)
    boards = np.array(list(tqdm(made, "generate", total, unit=" puzzles", delay=1, leave=False, disable=None)))
    puzzles, solutions = boards[:, 0], boards[:, 1]
    n = config.test_size
    return (puzzles[n:], solutions[n:]), (puzzles[:n], solutions[:n])


def _keys(puzzles: np.ndarray, box: Box) -> list[bytes]:
    starts = tqdm(
        range(0, len(puzzles), _PUZZLES_AT_ONCE), desc="look for equivalents", delay=1, leave=False, disable=None
    )
    return [key for start in starts for key in canonical_keys(puzzles[start : start + _PUZZLES_AT_ONCE], box)]


def _augmented(
    inputs: np.ndarray, labels: np.ndarray, box: Box, num_aug: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each example [n, cells] followed by its `num_aug` augmented copies: [n * (1 + num_aug), cells]."""
    augmentation = SudokuAugmentation(box)
    questions, answers = (torch.from_numpy(np.repeat(tokens, 1 + num_aug, axis=0)) for tokens in (inputs, labels))
    copies = torch.arange(len(questions))
    copies = copies[copies % (1 + num_aug) > 0]
    starts = range(0, len(copies), _PUZZLES_AT_ONCE)
    for start in tqdm(starts, desc="augment", delay=1, leave=False, disable=None):
        rows = copies[start : start + _PUZZLES_AT_ONCE]
        draws = augmentation.draw(seed, rows)
        questions[rows], answers[rows] = augmentation.apply(questions[rows], answers[rows], None, draws)
    return questions.numpy(), answers.numpy()


def main() -> None:
    """Run the command line."""
    exit_on_user_error(lambda: build_and_record(build, tyro.cli(Config, description=__doc__)))


if __name__ == "__main__":
    main()
