"""The tokens of additions.

An example is `a+b=` followed by the sum. Operands have n digits and the sum has n + 1, with leading zeros, which makes
3n + 3 tokens. Token 0 is padding, digit d is d + 1, + is 11 and = is 12. The input has padding in place of the sum; the
label has the sum there, and is ignored elsewhere.
"""

import numpy as np

PLUS, EQUALS = 11, 12
VOCAB_SIZE = 13
MAX_DIGITS = 9  # pairs of longer operands cannot be indexed with 64 bits


def encode(operands: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels, uint8 [n, 3 * digits + 3], for the sums of operands [n, 2] below 10**digits."""
    n = len(operands)
    plus, equals = np.full((n, 1), PLUS, np.uint8), np.full((n, 1), EQUALS, np.uint8)
    a, b = (_digits(column, digits) for column in operands.T)
    question = np.concatenate([a, plus, b, equals], axis=1)
    answer = _digits(operands.sum(axis=1), digits + 1)
    return (
        np.concatenate([question, np.zeros_like(answer)], axis=1),
        np.concatenate([np.zeros_like(question), answer], axis=1),
    )


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Tokens of numbers [n] with leading zeros: uint8 [n, width]."""
    return (numbers[:, None] // 10 ** np.arange(width - 1, -1, -1) % 10 + 1).astype(np.uint8)
