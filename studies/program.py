"""What study.py does, from the study file to the table."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from studies.estimate import estimate_seconds
from studies.plan import Plan, PlannedRun, make_plan
from studies.plot import draw
from studies.records import Records, check_unchanged
from studies.results import results_of
from studies.running import Outcome, command, has_ended, run_all
from studies.study_file import Study, read_study
from studies.table import as_csv, markdown
from utils.atomic_file import write_text
from utils.errors import UserError
from utils.files import writing_to
from utils.run_folder import RUNS

_PART = re.compile(r"(\d+)/(\d+)")


def run_study(
    path: Path,
    folder: Path | None = None,
    scale: str | None = None,
    *,
    jobs: int = 1,
    only: str | None = None,
    dry_run: bool = False,
    commands: bool = False,
    table: bool = False,
) -> int:
    """Run a study, or what is asked for of it; returns the exit status. See `study.Config` for the arguments.

    Raises:
        UserError: the study file, an argument or what lies in the folder cannot be used.
    """
    study = read_study(path, scale)
    name = path.stem
    records = Records(folder or RUNS / "studies" / (f"{name}-{study.scale}" if study.scale else name))
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: give at least 1.")
    if sum((dry_run, commands, table)) > 1:
        raise UserError("--dry-run, --commands and --table exclude one another: give one of them.")
    chosen = _part(only)
    say = _aside if commands else _say
    if len(study.seeds) == 1:
        say(f"note: with one seed ({study.seeds[0]}) nothing is a result: the table will say so. Give several seeds.")
    runs_anything = not (dry_run or commands or table)
    plan = make_plan(study, name, build=runs_anything)
    check_unchanged(records, plan.runs)
    runs = plan.runs[chosen]
    for note in plan.notes:
        say(f"note: {note}")
    if dry_run:
        _list_runs(plan, runs, records, jobs)
        return 0
    if commands or table:  # runs that another launcher has started have no record yet
        ended = {run.name for run in runs if has_ended(run, records, say, mend=False)}
    if commands:
        for run in runs:
            if run.name not in ended:
                print(shlex.join(command(run, records.run_folder(run))))
        return 0
    outcome = Outcome()
    if runs_anything:
        with writing_to(records.folder, "Choose another --folder."):
            records.folder.mkdir(parents=True, exist_ok=True)
            outcome = run_all(runs, records, jobs, torch.cuda.device_count(), _say)
    _report(outcome)
    if outcome.done or table:
        _write_results(study, name, plan, records)
    return outcome.status


def _say(text: str) -> None:
    print(text, flush=True)


def _aside(text: str) -> None:
    """Where the output is for another program."""
    print(text, file=sys.stderr, flush=True)


def _part(only: str | None) -> slice:
    """The runs that `--only` asks for, in their list."""
    if only is None:
        return slice(None)
    found = _PART.fullmatch(only)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--only {only}: write PART/PARTS, such as 1/8 for the first of eight.")
    return slice(int(found[1]) - 1, None, int(found[2]))


def _list_runs(plan: Plan, runs: Sequence[PlannedRun], records: Records, jobs: int) -> None:
    rows = {f"{row.arm}/{row.budgets[0]}-seed_{row.seed}": row for row in records.rows_of(plan.runs, _say)}
    seconds = estimate_seconds(runs, list(rows.values()))
    width = max((len(run.name) for run in runs), default=3)
    print(f"{'run':<{width}}  {'steps':>7}  {'MFLOP an example':>16}  {'training TFLOP':>14}  {'time':>7}  state")
    left = 0.0
    for run, time in zip(runs, seconds, strict=True):
        ended = run.name in rows
        left += 0 if ended or time is None else time
        costs, flops = run.costs, run.training_flops
        print(
            f"{run.name:<{width}}  {run.steps or '?':>7}  {f'{costs.training / 1e6:,.1f}' if costs else '?':>16}  "
            f"{f'{flops / 1e12:,.3g}' if flops else '?':>14}  {_minutes(time):>7}  "
            f"{'done' if ended else 'to do' if not records.run_folder(run).exists() else 'begun'}"
        )
    done, rough = sum(run.name in rows for run in runs), "" if rows else ", rough before a run has ended"
    print(
        f"\n{len(runs)} runs, {done} of them done; about {_minutes(left / jobs)} for the others with --jobs {jobs} "
        f"(an estimate{rough})"
    )


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def _write_results(study: Study, name: str, plan: Plan, records: Records) -> None:
    """Write the table, the raw numbers and the plot from all runs that have ended, and print the table."""
    rows = records.rows_of(plan.runs, _say)
    if not rows:
        raise UserError(f"no run of this study has ended in {records.folder}, so there is no table yet.")
    results = results_of(study, rows)
    text = markdown(study, name, results, plan.notes)
    with writing_to(records.folder, "Choose another --folder."):
        records.write_rows(rows)
        write_text(records.folder / "table.md", text)
        write_text(records.folder / "table.csv", as_csv(results))
        draw(results, records.folder / "plot.png")
    _say(f"\n{text}")
    _say(f"files: {os.fspath(records.folder)}: table.md, table.csv, runs.jsonl, plot.png")


def _report(outcome: Outcome) -> None:
    """Name what has not ended."""
    lines = [f"  {name}: {why}" for name, (_, why) in outcome.failed.items()]
    if lines:
        print("\n".join([f"runs that have not ended: {len(lines)}", *lines]), file=sys.stderr, flush=True)
    if outcome.elsewhere:
        _say(f"runs that another process works on: {', '.join(outcome.elsewhere)}")
