"""Build a data set of additions.

    python -m dataset.build_arithmetic_dataset --output-dir data/arithmetic-4 --digits 4

An example is `a+b=` followed by the sum. Operands have n digits and the sum has n + 1, with leading zeros, which makes
3n + 3 tokens. Token 0 is padding, digit d is d + 1, + is 11 and = is 12. The input has padding in place of the sum; the
label has the sum there, and is ignored elsewhere. Train and test never share a pair of operands, in
either order.
"""

import numpy as np
import tyro
from pydantic import BaseModel

from dataset.build_record import build_and_record
from dataset.question_answer import check_at_least, write_question_answers
from dataset.shards import BLANK_IDENTIFIER, build_folder, write_identifiers
from dataset.tasks.arithmetic.rules import MAX_DIGITS, VOCAB_SIZE, encode
from dataset.tasks.arithmetic.task import Arithmetic
from utils.errors import UserError, exit_on_user_error


class Config(BaseModel, extra="forbid"):
    """Options of the arithmetic builder."""

    output_dir: str = "data/arithmetic"
    """Folder of the data set."""
    digits: int = 4
    """Digits of an operand, 1 to 9."""
    train_size: int = 10000
    """Number of training examples."""
    test_size: int = 1000
    """Number of test examples."""
    seed: int = 0
    """Seed of all random choices."""
    overwrite: bool = False
    """Replace the data set in the output folder, if there is one."""


def build(config: Config) -> None:
    """Build the data set that `config` describes.

    Raises:
        UserError: an option is invalid, or the output folder is not empty.
    """
    check_at_least(0, seed=config.seed)
    check_at_least(1, digits=config.digits, train_size=config.train_size, test_size=config.test_size)
    if config.digits > MAX_DIGITS:
        raise UserError(f"--digits {config.digits}: allowed are 1 to {MAX_DIGITS}.")
    total, pairs = config.train_size + config.test_size, 10**config.digits * (10**config.digits + 1) // 2
    if total > pairs:
        raise UserError(
            f"--train-size {config.train_size} --test-size {config.test_size}: operands of {config.digits} digits make "
            f"{pairs} pairs. Ask for fewer examples, or for more --digits."
        )
    rng = np.random.default_rng(config.seed)
    operands = rng.permuted(_pairs(rng.choice(pairs, total, replace=False)), axis=1)
    inputs, labels = encode(operands, config.digits)
    with build_folder(config.output_dir, config.overwrite) as root:
        for split, rows in (("test", slice(config.test_size)), ("train", slice(config.test_size, None))):
            ones = np.ones(len(inputs[rows]), np.int64)
            write_question_answers(root / split, inputs[rows], labels[rows], ones, VOCAB_SIZE, Arithmetic.name)
        write_identifiers(root, [BLANK_IDENTIFIER])
    print(
        f"{config.output_dir}: {config.train_size} training and {config.test_size} test additions "
        f"of {config.digits} digits, {total} of {pairs} pairs of operands used"
    )


def _pairs(index: np.ndarray) -> np.ndarray:
    """The unordered pairs [n, 2] at the positions `index` [n] of the list (0,0), (0,1), (1,1), (0,2), ..."""
    high = ((np.sqrt(8.0 * index + 1) - 1) / 2).astype(np.int64)
    # The square root of a large number is rounded, so the result can be off by one in either direction.
    high -= high * (high + 1) // 2 > index
    high += (high + 1) * (high + 2) // 2 <= index
    return np.stack([index - high * (high + 1) // 2, high], axis=1)


def main() -> None:
    """Run the command line."""
    exit_on_user_error(lambda: build_and_record(build, tyro.cli(Config, description=__doc__)))


if __name__ == "__main__":
    main()
