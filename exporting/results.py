"""What is done with the result of a comparison: it is printed, and refused if it is not good enough."""

from exporting.checks import Comparison
from utils.errors import UserError


def accept(result: Comparison, name: str) -> None:
    """Print a comparison.

    Raises:
        UserError: the two do not compute the same.
    """
    print(f"{name}: {result}")
    if not result.same:
        raise UserError(
            f"{name}: what was written does not compute what the model computes ({result}), so do not use it. Please "
            "report this, with the architecture and the versions of torch and onnxruntime."
        )


def check_int8(result: Comparison, points: float) -> None:
    """Print a comparison of a model in 8 bits.

    Raises:
        UserError: it solves fewer puzzles by more than `points` percentage points.
    """
    print(f"int8: {result}")
    if result.points_lost > points:
        raise UserError(
            f"int8: with its weights in 8 bits the model solves {result.exact} of {result.puzzles} puzzles, before "
            f"{result.exact_before}: it loses {result.points_lost:.1f} points of exact accuracy, at most "
            f"{points:g} are allowed. Leave int8 out, or allow more with int8_points=100."
        )
