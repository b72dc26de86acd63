"""The search that a rule asks for: by the network alone, or by the rules of the task as well."""

from collections.abc import Callable, Sequence

import numpy as np

from evaluators.search import Accept, SearchResult, SearchRule, search
from evaluators.systematic_search import systematic_search
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.errors import UserError


def run_search(
    model: LatticeDeductionTransformer,
    inputs: np.ndarray,
    accept: Accept,
    units: Sequence[Sequence[int]],
    rule: SearchRule,
    slots: int,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
    record: bool = False,
) -> SearchResult:
    """Search for the solutions of puzzles; see `evaluators.systematic_search.systematic_search` for the arguments.

    Raises:
        UserError: `rule.propagate`, and the task has no units.
    """
    if not rule.propagate:
        return search(model, inputs, accept, rule, slots, seed, report=report, record=record)
    if not units:
        raise UserError(
            "propagate=true: the task of these puzzles does not say in which groups of cells no symbol may stand twice "
            "(`Task.units`). Use propagate=false, or give the task a method `units`."
        )
    return systematic_search(model, inputs, accept, units, rule, slots, seed, report=report, record=record)
