"""Addition of two numbers, digit by digit."""

from dataset.tasks.arithmetic.task import Arithmetic

__all__ = ["Arithmetic"]
