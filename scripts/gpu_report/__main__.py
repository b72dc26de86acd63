"""Check and measure everything on a machine with one GPU, in invocations that go on from one another.

    scripts/gpu_report.sh                          # 8 minutes; again and again until all stages have ended
    scripts/gpu_report.sh --seconds 1200 --only sudoku_data_augmented sudoku_extreme_mlp
    scripts/gpu_report.sh --publish FOLDER         # merge the results of another machine, and write the summary
    scripts/gpu_report.sh --rehearse               # the same stages on a CPU, tiny

Every result is appended to OUTPUT/*.jsonl at once, and OUTPUT/summary.md is written from them. The work folder holds
the state, so that a report which was killed goes on. docs/gpu/README.md says what a bare machine needs.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

from scripts.gpu_report.lines import copy_new_lines
from scripts.gpu_report.programs import ROOT, Start, start_fork, start_interpreter
from scripts.gpu_report.runner import Runner
from scripts.gpu_report.stage import Stage
from scripts.gpu_report.stages import Place, stages
from scripts.gpu_report.summary import PAGE, write_summary
from utils.errors import UserError, did_you_mean, exit_on_user_error

PRELOADED = ("pytest", "bench.train_step", "dataset.tasks.sudoku.build", "evaluate", "pretrain", "search")


def command_line() -> argparse.ArgumentParser:
    """What the command line may say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="scripts/gpu_report.sh"
    )
    parser.add_argument("--seconds", type=float, default=480, help="length of this invocation (480)")
    parser.add_argument("--output", type=Path, help="folder for results and summary (docs/gpu; rehearsal: in --work)")
    parser.add_argument("--work", type=Path, help="folder for state, data and checkpoints (gpu_report)")
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="recorded runs and data (../shared)"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where to compute (cuda)")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="run only these stages")
    parser.add_argument("--retry", action="store_true", help="run again what has failed or was skipped")
    parser.add_argument("--list", action="store_true", help="list the stages, and run nothing")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="merge the results in FOLDER, and run nothing")
    parser.add_argument("--rehearse", action="store_true", help="all stages on the CPU, tiny")
    return parser


def main() -> None:
    """Run the command line."""
    options = command_line().parse_args()

    work = (options.work or ROOT / ("gpu_report/rehearsal" if options.rehearse else "gpu_report")).resolve()
    output = (options.output or (work / "output" if options.rehearse else ROOT / "docs" / "gpu")).resolve()
    if options.publish is not None:
        publish(options.publish, output)
        return
    device = "cpu" if options.rehearse else options.device
    chosen = choose(stages(Place(work, options.shared.resolve(), device, options.rehearse)), options.only)
    if options.list:
        for stage in chosen:
            print(f"{stage.name:<32}{stage.title}")
        return
    os.environ["SHARED_DATA"] = str(options.shared.resolve())  # for the tests
    start = preloaded() if options.rehearse else start_interpreter
    runner = Runner(chosen, work, output, options.seconds, start)
    runner.say(f"results: {output}; logs: {work / 'logs'}")
    runner.run(options.retry)


def choose(all_stages: list[Stage], names: list[str] | None) -> list[Stage]:
    """The stages with these names, in their usual order; all if there are no names.

    Raises:
        UserError: there is no stage of that name.
    """
    known = [stage.name for stage in all_stages]
    for name in names or []:
        if name not in known:
            raise UserError(f"--only {name}: there is no such stage.{did_you_mean(name, known)} See --list.")
    return [stage for stage in all_stages if not names or stage.name in names]


def publish(source: Path, output: Path) -> None:
    """Merge the results of another machine into a folder, and write its summary.

    Raises:
        UserError: there are no results.
    """
    if not (source / "stages.jsonl").exists():
        raise UserError(f"--publish {source}: there is no stages.jsonl in it. Give the --output folder of a report.")
    count = copy_new_lines(source, output)
    write_summary(output)
    print(f"{count} new lines in {output}; {output / PAGE}")


def preloaded() -> Start:
    """How a rehearsal starts its programs: importing what they need takes longer than they do."""
    for module in PRELOADED:
        importlib.import_module(module)
    return start_fork


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    exit_on_user_error(main)
