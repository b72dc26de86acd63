"""The results of an evaluation as tables of text."""

from evaluators.evaluation import EvaluationResult

BLANK = ", blank puzzle id"  # behind the name of a set that was evaluated without puzzle ids


def format_result(name: str, result: EvaluationResult) -> str:
    """The result of one set as text."""
    known = f"{result.count} of them with labels" if result.count else "no labels, so nothing to compare answers with"
    lines = [f"\n{name}: {result.examples} examples, {known}"]
    lines += [f"  {key:<24}{value:>10.4f}" for key, value in {**result.metrics, **result.task_metrics}.items()]
    if not result.count:
        return "\n".join(lines)
    lines.append("  after step    exact accuracy    accuracy")
    pairs = zip(result.exact_accuracy_after_step, result.accuracy_after_step, strict=True)
    lines += [f"  {step:>10}{exact:>18.4f}{tokens:>12.4f}" for step, (exact, tokens) in enumerate(pairs, start=1)]
    return "\n".join(lines)


def format_ids(results: dict[str, EvaluationResult], rows: int | None) -> str:
    """What the puzzle ids are worth to the model, as text; `rows`: those of its puzzle embedding, if it has one."""
    if rows is None or rows == 1:
        return "\npuzzle ids: this model has none, so the blank id makes no difference"
    lines = [f"\n  {'with and without puzzle ids':<40}{'known id':>10}{'blank id':>10}"]
    for name in [name for name in results if f"{name}{BLANK}" in results]:
        own, blank = ({**part.metrics, **part.task_metrics} for part in (results[name], results[f"{name}{BLANK}"]))
        shown = [key for key in own if "loss" not in key and key in blank]
        lines += [f"  {f'{name} {key}':<40}{own[key]:>10.4f}{blank[key]:>10.4f}" for key in shown]
    return "\n".join(lines)
