"""Check a task: one of dataset/tasks, one of your own in a file, or an imported one.

    python -m dataset.check_task path/to/futoshiki.py
    python -m dataset.check_task futoshiki.py --data data/futoshiki      the examples of a data set

It checks that questions and answers can be written and read back, that `verify` accepts every label and refuses broken
answers, that `solve` gives the labels, that right answers stay right under the symmetries, that no test puzzle is
equivalent to a training puzzle, that puzzles do not repeat, and that no constant answer is right; and it says how
difficult, how long and how costly examples are. A picture of ten examples is drawn. Exit status: 0 without a fault, 1
with one, 2 for wrong input.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dataset.question_answer import check_at_least
from dataset.shards import load_metadata
from dataset.task_checks import Finding, all_findings, draw_examples, read_examples
from dataset.task_choice import choose_task
from dataset.tasks.sheet import save_sheet
from utils.errors import UserError, exit_on_user_error

_DRAWN = 10
_MARKS = {"ok": "ok   ", "fault": "FAULT", "note": "     "}


@dataclass
class Flags:
    """Check a task."""

    task: Annotated[str, tyro.conf.Positional]
    """A task of dataset/tasks, the .py file of one, reasoning_gym:NAME, or a file with questions and answers."""
    data: Path | None = None
    """A data set of the task, whose examples are checked. By default examples are generated."""
    examples: int = 200
    """Number of examples of each split."""
    seed: int = 0
    """Seed of the examples and of the checks."""
    picture: Path | None = None
    """The picture of ten examples. By default check_NAME.png in the current folder."""


def check(flags: Flags) -> list[Finding]:
    """Check a task, print what is found, and draw the picture.

    Raises:
        UserError: there is no such task, or it has no examples.
    """
    check_at_least(2, examples=flags.examples)
    check_at_least(0, seed=flags.seed)
    kind = choose_task(flags.task)
    if flags.data is not None:
        metadata = load_metadata(flags.data, "train")
        task = kind.of(metadata.seq_len, metadata.vocab_size)
        examples = read_examples(task, flags.data, flags.examples)
    else:
        if not kind.makes_examples():
            raise UserError(f"the task {kind.name} makes no examples. Build a data set, and check it with --data.")
        task = kind.of(*kind.own_size())
        examples = draw_examples(task, flags.examples, flags.seed)
    print(f"{kind.name}: {len(examples.train)} training and {len(examples.test)} test puzzles are checked")
    findings: list[Finding] = []
    for finding in all_findings(task, examples, flags.seed):
        findings.append(finding)
        print(f"{_MARKS[finding.kind]} {finding.check}: {finding.detail}", flush=True)
    picture = flags.picture or Path(f"check_{kind.data_name or kind.name.replace(':', '-')}.png")
    save_sheet(task, examples.all[:_DRAWN], picture)
    faults = sum(finding.kind == "fault" for finding in findings)
    counted = f"{faults} {'fault' if faults == 1 else 'faults'}" if faults else "no fault was found"
    print(f"picture: {picture}\n{counted}")
    return findings


def main(arguments: list[str]) -> int:
    """Run the command line: its exit status."""
    flags = tyro.cli(Flags, prog="python -m dataset.check_task", description=__doc__, args=arguments)
    return int(any(finding.kind == "fault" for finding in check(flags)))


if __name__ == "__main__":
    exit_on_user_error(lambda: sys.exit(main(sys.argv[1:])))
