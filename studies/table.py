"""The table of a study, as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence

from studies.comparing import LEVEL
from studies.results import ArmResult, BudgetResult
from studies.study_file import Study

_TITLES = {
    "steps": "At equal steps",
    "flops": "At equal training FLOPs",
}
_COLUMNS = ("arm", "seeds", "exact accuracy", "gap", "95 % interval", "seed floor", "p", "verdict", "steps",
            "training TFLOP", "parameters", "MFLOP a pass")  # fmt: skip
_NUMBERS = set(_COLUMNS) - {"arm", "verdict"}


def markdown(study: Study, name: str, results: Sequence[BudgetResult], notes: Sequence[str] = ()) -> str:
    """The results of a study as a page of Markdown."""
    puzzles = next((arm.rows[0].puzzles for result in results for arm in result.arms), 0)
    scale = f", scale {study.scale}" if study.scale else ""
    lines = [
        f"# Study: {name}{scale}", "",
        f"{len(study.arms)} arms, seeds {', '.join(map(str, study.seeds))}, {puzzles:,} puzzles. Exact accuracy is the "
        "share of the puzzles that are answered without an error after the last pass: its mean and standard deviation "
        "over the seeds. The gap is that to the baseline, in points. Two groups of so many seeds of one and the same "
        f"experiment differ by more than the seed floor in {LEVEL:.0%} of all cases; p is corrected for all "
        "comparisons of the table.", "",
        "Common settings: " + " ".join(f"`{override}`" for override in study.base), "",
    ]  # fmt: skip
    if len(study.seeds) == 1:
        lines += ["**One seed is no result: no difference below means anything.**", ""]
    for result in results:
        lines += _budget(study, result)
    for note in notes:
        lines += [f"Note: {note}.", ""]
    return "\n".join(lines)


def _budget(study: Study, result: BudgetResult) -> list[str]:
    lines = [f"## {_TITLES[result.budget]}", "", *_table(_COLUMNS, [_cells(result, arm) for arm in result.arms]), ""]
    lines += [f"p is corrected for {result.comparisons} comparison{'s' if result.comparisons != 1 else ''}.", ""]
    if result.missing:
        lines += [f"**Runs that are missing: {len(result.missing)}** ({'; '.join(result.missing)}).", ""]
    if result.claims:
        cells = [
            (claim.source, claim.text, _points(claim.comparison.gap), _p(claim.comparison.corrected_p), claim.verdict)
            for claim in result.claims
        ]
        lines += ["### Claims", "", *_table(("claim", "order", "gap", "p", "verdict"), cells), ""]
    shown = _passes(max((len(arm.curve) for arm in result.arms), default=0))
    if len(shown) > 1:
        rows = [
            (arm.arm, *(f"{arm.curve[n - 1]:.1%}" if n <= len(arm.curve) else "" for n in shown)) for arm in result.arms
        ]
        lines += ["### Exact accuracy by test-time passes", "", *_table(("arm", *map(str, shown)), rows), ""]
    changes = [(arm, " ".join(f"`{o}`" for o in spec.overrides) or "-") for arm, spec in study.arms.items()]
    if result.budget == study.equal[-1]:
        lines += ["### What the arms change", "", *_table(("arm", "overrides"), changes), ""]
    return lines


def _passes(most: int) -> list[int]:
    """The powers of two up to `most`, and `most`."""
    powers = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    return powers if not powers or powers[-1] == most else [*powers, most]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---:" if name in _NUMBERS or name.isdigit() else "---" for name in columns]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]


def _cells(result: BudgetResult, arm: ArmResult) -> tuple[str, ...]:
    row, found, spread = arm.rows[0], arm.comparison, arm.spread
    mean = f"{100 * arm.accuracies.mean():.1f}"
    accuracy = mean if spread is None else f"{mean} +- {100 * spread:.1f}"
    costs = (
        str(row.steps), f"{row.training_flops / 1e12:.3g}", f"{row.parameters:,}", f"{row.pass_flops / 1e6:,.1f}"
    )  # fmt: skip
    if found is None:
        verdict = "baseline" if arm.arm == result.baseline else "the baseline has no run"
        return (arm.arm, str(len(arm.rows)), accuracy, "", "", "", "", verdict, *costs)
    interval = "" if found.interval is None else f"{_points(found.interval[0])} to {_points(found.interval[1])}"
    floor = "" if found.floor is None else f"{100 * found.floor:.1f}"
    numbers = (_points(found.gap), interval, floor, _p(found.corrected_p))
    return (arm.arm, str(len(arm.rows)), accuracy, *numbers, found.verdict, *costs)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else "<.0001" if value < 1e-4 else f"{value:.4f}"


def as_csv(results: Sequence[BudgetResult]) -> str:
    """One line for each budget and arm, with the numbers unrounded; accuracies as shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("budget", "arm", "seeds", "mean", "standard_deviation", "lowest", "highest", "gap", "gap_low", "gap_high",
         "seed_floor", "p", "corrected_p", "verdict", "steps", "training_flops", "parameters", "pass_flops", "passes")
    )  # fmt: skip
    for result in results:
        for arm in result.arms:
            found, row, values = arm.comparison, arm.rows[0], arm.accuracies
            low, high = (None, None) if found is None or found.interval is None else found.interval
            compared = (None,) * 6 if found is None else (found.gap, low, high, found.floor, found.p, found.corrected_p)
            writer.writerow(
                (result.budget, arm.arm, len(values), values.mean(), arm.spread, values.min(), values.max(), *compared,
                 "baseline" if found is None else found.verdict, row.steps, row.training_flops, row.parameters,
                 row.pass_flops, row.passes)
            )  # fmt: skip
    return text.getvalue()
