"""Build a maze data set, from CSV files or from generated mazes.

    python -m dataset.build_maze_dataset
    python -m dataset.build_maze_dataset --output-dir data/maze-10x10 --generate 1000 --height 10 --width 10
    python -m dataset.build_maze_dataset --output-dir data/maze-unique --generate 1000 --test-size 1000 --perfect

Token 0 is padding; the others are the index in `# SGo` plus 1. The label marks a shortest path with o. With --aug, a
group is a maze in all rotations and flips, each with the path recomputed. No training maze is a rotated or flipped test
maze. Test mazes without an answer have labels of 0: they are not scored.
"""

from math import isqrt
from typing import Annotated

import numpy as np
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
from dataset.tasks.maze.generate import MIN_SIDE, generate_mazes
from dataset.tasks.maze.paths import label_mazes, path_lengths
from dataset.tasks.maze.perfect import generate_perfect_mazes
from dataset.tasks.maze.rules import CHARACTERS, GOAL, PATH, SPACE, START, VOCAB_SIZE
from dataset.tasks.maze.symmetries import maze_keys, transformed_cells
from dataset.tasks.maze.task import Maze
from utils.errors import UserError, exit_on_user_error

_MAZES_AT_ONCE = 1024


class Config(BaseModel, extra="forbid"):
    """Options of the maze builder."""

    output_dir: str = "data/maze-30x30-hard-1k"
    """Folder of the data set."""
    source: Annotated[str, tyro.conf.arg(aliases=["--source-repo"])] = "sapientinc/maze-30x30-hard-1k"
    """Hugging Face data set, or local folder, with train.csv and test.csv."""
    subsample_size: int | None = None
    """Number of training mazes to draw; all if not given."""
    aug: bool = False
    """Add the other rotations and flips of each training maze."""
    generate: int | None = None
    """Number of training mazes to generate instead of reading CSV files."""
    test_size: int = 100
    """Number of test mazes to generate."""
    height: int = 30
    """Rows of a maze."""
    width: int = 30
    """Columns of a maze."""
    min_path: int | None = None
    """Minimum number of moves from S to G in a generated maze; by default 109 for 30x30, fewer for smaller mazes."""
    perfect: bool = False
    """Generate perfect mazes, in which only one path leads from S to G, of 100 to 140 moves for 30x30."""
    max_path: int | None = None
    """Maximum number of moves from S to G in a perfect maze."""
    seed: int = 0
    """Seed of all random choices."""
    overwrite: bool = False
    """Replace the data set in the output folder, if there is one."""


def build(config: Config) -> None:
    """Build the data set that `config` describes.

    Raises:
        UserError: an option or an input file is invalid, or the output folder is not empty.
    """
    check_at_least(0, seed=config.seed)
    check_at_least(1, subsample_size=config.subsample_size, generate=config.generate, test_size=config.test_size)
    check_at_least(MIN_SIDE, height=config.height, width=config.width)
    if config.height != config.width and isqrt(config.height * config.width) ** 2 == config.height * config.width:
        raise UserError(
            f"--height {config.height} --width {config.width}: a data set records the number of cells alone, and "
            "these are as many as in a square. Choose another height or width."
        )
    generate_rng, train_rng = np.random.default_rng(config.seed).spawn(2)
    if config.generate is None:
        generating = ("test_size", "min_path", "perfect", "max_path")
        refuse_changed(config, generating, "only with --generate; add that, or leave this out")
    else:
        refuse_changed(config, ("source",), "not with --generate; leave out one of the two")
    if not config.perfect:
        refuse_changed(config, ("max_path",), "only with --perfect; add that, or leave this out")
    with build_folder(config.output_dir, config.overwrite) as root:
        if config.generate is None:
            train, test = _read(config, "train"), _read(config, "test")
        else:
            train, test = _generate(config, config.generate, generate_rng)
        kept = not_among(maze_keys(train[0]), maze_keys(test[0]))
        dropped = len(train[0]) - len(kept)
        if not len(kept):
            raise UserError("every training maze is a turned or flipped test maze: choose another --source.")
        chosen = kept[subsample(len(kept), config.subsample_size, train_rng)]

        inputs, labels = (grids[chosen] for grids in train)
        group_sizes = np.ones(len(chosen), np.int64)
        if config.aug:
            inputs, labels, group_sizes = _augmented(inputs, labels)
        for split, (questions, answers), sizes in (
            ("train", (inputs, labels), group_sizes),
            ("test", test, np.ones(len(test[0]), np.int64)),
        ):
            questions, answers = questions.reshape(len(questions), -1), answers.reshape(len(answers), -1)
            write_question_answers(root / split, questions, answers, sizes, VOCAB_SIZE, Maze.name)
        write_identifiers(root, [BLANK_IDENTIFIER])
    print(
        f"{config.output_dir}: {len(chosen)} training mazes ({len(inputs)} with turned and flipped copies), "
        f"{len(test[0])} test mazes, paths of {_mean_moves(train[1][chosen])} and {_mean_moves(test[1])} moves "
        f"on average; {dropped} training candidates equivalent to a test maze dropped"
    )


def _mean_moves(labels: np.ndarray) -> str:
    """The mean length of the paths that `labels`, tokens [n, height, width], know, as text."""
    known = labels[labels.any(axis=(1, 2))]
    return f"{np.count_nonzero(known == PATH) / len(known) + 1:.1f}" if len(known) else "an unknown number of"


def _read(config: Config, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Questions and answers of one CSV file, checked, as tokens uint8 [n, height, width].

    Answers are kept unchanged, even if another path is equally short.
    """
    shape = (-1, config.height, config.width)
    hint = f"Mazes of {config.height}x{config.width} are expected: choose --height and --width to fit."
    rows = read_split(config.source, split, config.height * config.width, hint)
    answered = rows.answered
    tokens = np.zeros(256, np.uint8)
    tokens[[ord(character) for character in CHARACTERS]] = np.arange(1, VOCAB_SIZE)
    questions, answers = tokens[rows.questions], tokens[rows.answers]
    rows.refuse((questions == 0) | (questions == PATH), "a question holds only `#`, space, S and G")
    rows.refuse(answered & (answers == 0).any(axis=1), "an answer holds only `#`, space, S, G and o")
    for token, name in ((START, "S"), (GOAL, "G")):
        count = np.count_nonzero(questions == token, axis=1)
        rows.refuse(count < 1, f"a question has one {name}, this one has none")
        rows.refuse(count > 1, f"a question has one {name}, this one has several")
    marked = answers == PATH
    fits = (np.where(marked, SPACE, answers) == questions).all(axis=1)
    rows.refuse(answered & ~fits, "the answer differs from the question in more than o on free cells")
    questions, answers = questions.reshape(shape), answers.reshape(shape)
    shortest = path_lengths(questions)
    rows.refuse(answered & (shortest < 0), "no path leads from S to G")
    on_path = (answers == PATH) | (answers == START) | (answers == GOAL)
    moves = path_lengths(questions, on_path)
    rows.refuse(
        answered & (moves != np.count_nonzero(marked, axis=1) + 1), "the o of the answer are no path from S to G"
    )
    rows.refuse(answered & (moves != shortest), "the path of the answer is not a shortest one")
    if closed := np.count_nonzero(shortest < 0):
        notice(
            f"WARNING: {closed} of {len(shortest)} {split} mazes have no path from S to G, so no answer to them can be "
            "right"
        )
    return questions, answers


def _generate(
    config: Config, train_size: int, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Generated (questions, answers) for train and for test."""
    total = train_size + config.test_size
    sizes = (total, config.height, config.width, rng, config.min_path)
    made = generate_perfect_mazes(*sizes, config.max_path) if config.perfect else generate_mazes(*sizes)
    mazes = np.array(list(tqdm(made, "generate", total, unit=" mazes", delay=1, leave=False, disable=None)))
    train, test = mazes[config.test_size :], mazes[: config.test_size]
    return (train, _labelled(train)), (test, _labelled(test))


def _labelled(mazes: np.ndarray) -> np.ndarray:
    starts = tqdm(range(0, len(mazes), _MAZES_AT_ONCE), desc="find paths", delay=1, leave=False, disable=None)
    return np.concatenate([label_mazes(mazes[start : start + _MAZES_AT_ONCE]) for start in starts])


def _augmented(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each maze [n, height, width] followed by its other rotations and flips, without repeats; labels; group sizes."""
    n, height, width = inputs.shape
    images = inputs.reshape(n, -1)[:, transformed_cells(height, width)]  # [n, transforms, cells]
    firsts = [sorted(np.unique(group, axis=0, return_index=True)[1]) for group in images]
    group_sizes = np.array([len(first) for first in firsts])
    distinct = np.concatenate([group[first] for group, first in zip(images, firsts, strict=True)])
    distinct = distinct.reshape(-1, height, width)
    paths = _labelled(distinct)
    # The original maze keeps its original answer.
    paths[np.cumsum(group_sizes) - group_sizes] = labels
    return distinct, paths, group_sizes


def main() -> None:
    """Run the command line."""
    exit_on_user_error(lambda: build_and_record(build, tyro.cli(Config, description=__doc__)))


if __name__ == "__main__":
    main()
