"""A sweep guided by Optuna: each trial is a run of a training program, and the next trials try what did well.

    python -m scripts.optuna_sweep --folder sweeps/first experiment=quickstart 'lr=log(1e-4,1e-2)' \\
        'arch.hidden_size=choice(64,128)' --trials 20

What to search is written as Hydra's sweeps are:

    key=a,b,c  key=choice(a,b)    one of these
    key=interval(0,1)             any number in between; int(interval(1,8)): a whole one; range(1,9,2): with steps
    key=log(1e-4,1e-2)            likewise on a logarithmic scale, short for tag(log,interval(1e-4,1e-2))

The folder holds the study, the run folder of each trial and its output. The same command goes on where it was
interrupted, inside a trial too; started several times at once, also on several hosts, it works on one study together.
"""

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from utils.errors import UserError, exit_on_user_error
from utils.exit_status import LOST, STOPPED
from utils.hydra import CONFIG_DIR, compose
from utils.overrides import check_overrides

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"pretrain.py": "cfg_pretrain", "pretrain_text.py": "cfg_text"}
_OWN_KEYS = ("checkpoint_path", "load_checkpoint", "run_name")  # which each trial gets
_LOG = re.compile(r"(int\()?log\(([^()]*)\)(\))?")
Run = Callable[[Path, Sequence[str]], int]  # (the run folder of a trial, its overrides) -> exit status


@dataclass
class Config:
    """A sweep guided by Optuna over runs of a training program."""

    folder: Path
    """The folder of the study; one that is there already goes on."""
    overrides: Annotated[list[str], tyro.conf.Positional] = field(default_factory=list)
    """Overrides of the program, some of them with what to search."""
    trials: int = 20
    """Number of trials, those of earlier starts included."""
    program: Literal["pretrain.py", "pretrain_text.py"] = "pretrain.py"
    """The training program."""
    config_name: str | None = None
    """Its configuration, as for --config-name; by default its own."""
    metric: str = "all/exact_accuracy"
    """What to make best: the last value of this name in metrics.jsonl."""
    minimize: bool = False
    """Take the lowest value for the best, as of a loss."""
    processes: int = 0
    """Start each trial under torchrun with this many processes. 0: without torchrun."""
    seed: int = 0
    """Seed of the sampler."""


def search_space(overrides: Sequence[str]) -> "tuple[list[str], dict[str, BaseDistribution]]":
    """(the overrides with one value, what to search by key).

    Raises:
        UserError: an override cannot be read, or nothing is to be searched.
    """
    spelt_out = [_spell_out(override) for override in overrides]
    check_overrides(["-m", *spelt_out], CONFIG_DIR)
    parser = OverridesParser.create()
    fixed, space = [], {}
    for text in spelt_out:
        override = parser.parse_override(text)
        key = override.key_or_group
        if key in _OWN_KEYS:
            raise UserError(f"{text}: each trial has a run folder of its own in the folder of the study. Leave it out.")
        if override.is_sweep_override():
            space[key] = _distribution(override, text)
        else:
            fixed.append(text)
    if not space:
        raise UserError("nothing is to be searched: give for example 'lr=log(1e-4,1e-2)' or arch.hidden_size=64,128.")
    return fixed, space


def _spell_out(override: str) -> str:
    """The override with `log(a,b)` in Hydra's own words."""
    key, equals, value = override.partition("=")
    found = _LOG.fullmatch(value)
    if not equals or found is None or bool(found[1]) != bool(found[3]):
        return override
    interval = f"interval({found[2]})"
    return f"{key}=tag(log,{f'int({interval})' if found[1] else interval})"


def _distribution(override: Override, text: str) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep, log = override.value(), "log" in getattr(override.value(), "tags", ())
    try:
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            assert low is not None
            assert high is not None
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(low, high, log=log)
        values = list(override.sweep_string_iterator())
        if isinstance(sweep, RangeSweep) and not sweep.shuffle and len(values) > 1 and isinstance(sweep.step, int):
            numbers = sorted(int(value) for value in values)
            return IntDistribution(numbers[0], numbers[-1], step=numbers[1] - numbers[0])
        return CategoricalDistribution(values)
    except ValueError as error:
        raise UserError(f"{text}: {error}") from None


def check_space(config_name: str, fixed: Sequence[str], space: "dict[str, BaseDistribution]") -> None:
    """Compose what the trials may get: each choice once, and both ends of each interval.

    Raises:
        UserError: one of them does not compose.
    """
    ends = {key: _ends(distribution) for key, distribution in space.items()}
    for key, values in ends.items():
        for value in values:
            chosen = {other: of_other[0] for other, of_other in ends.items()} | {key: value}
            compose(config_name, [*fixed, *(f"{name}={one}" for name, one in chosen.items())])


def _ends(distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    return [distribution.low, distribution.high] if choices is None else list(choices)


def open_study(config: Config, settings: dict[str, Any]) -> "Study":
    """The study in the folder of the sweep, which is made if it is not there.

    Raises:
        UserError: Optuna is not installed, or the study is one of another sweep.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError:
        raise UserError("Optuna is not installed. Install it with `uv sync --extra cluster`.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config.folder.mkdir(parents=True, exist_ok=True)
    path = str(config.folder / "study.journal")
    # a third of the trials at random, then what did well
    sampler = optuna.samplers.TPESampler(n_startup_trials=max(1, min(10, config.trials // 3)), seed=config.seed)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path))),
        sampler=sampler,
        study_name="sweep",
        direction=settings["direction"],
        load_if_exists=True,
    )
    for key, value in settings.items():
        before = study.user_attrs.get(key)
        if before is None:
            study.set_user_attr(key, value)
        elif before != value:
            raise UserError(
                f"--folder {config.folder}: the study there has {key} {before}, not {value}. "
                "Give the same command, or another folder."
            )
    return study


def sweep(config: Config, run: Run) -> "Study":
    """Run trials until there are as many as asked for. Trials that fail are listed at the end.

    Args:
        config: the sweep.
        run: starts one trial.

    Raises:
        UserError: the overrides do not fit, the study is another one's, or all trials failed.
        SystemExit: a trial was stopped by a signal; the same command goes on with it.
    """
    from optuna.trial import TrialState

    name = config.config_name or PROGRAMS[config.program]
    fixed, space = search_space(config.overrides)
    check_space(name, fixed, space)
    direction = "minimize" if config.minimize else "maximize"
    settings: dict[str, Any] = {"metric": config.metric, "direction": direction, "overrides": sorted(config.overrides)}
    study = open_study(config, settings)
    while (trial := _next(study, config.trials, space)) is not None:
        number = trial.user_attrs["folder"]
        chosen = [f"{key}={value}" for key, value in trial.params.items()]
        print(f"trial {number}: {' '.join(chosen)}", flush=True)
        folder = config.folder / f"trial_{number}"
        own = [f"checkpoint_path={folder}", f"run_name={config.folder.name}-{number}", "load_checkpoint=latest"]
        status = run(folder, [*fixed, *chosen, *own])
        if status in (STOPPED, LOST):
            print(f"trial {number} was stopped; the same command goes on with it", flush=True)
            sys.exit(status)
        value = last_value(folder / "metrics.jsonl", config.metric) if status == 0 else None
        if value is None:
            why = f"status {status}" if status else f"{folder}/metrics.jsonl has no {config.metric}"
            trial.set_user_attr("failed", why)
            study.tell(trial, state=TrialState.FAIL)
            print(f"trial {number}: failed ({why}); see {folder}.txt", file=sys.stderr, flush=True)
            continue
        study.tell(trial, value)
        print(f"trial {number}: {config.metric} {value:.6g}", flush=True)
    return study


def _next(study: "Study", count: int, space: "dict[str, BaseDistribution]") -> "Trial | None":
    """The next trial, with the number of its folder; None when there are `count` that ended or are being worked on."""
    from optuna.trial import TrialState

    me = [socket.gethostname(), os.getpid()]
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.RUNNING and _abandoned(trial):
            with suppress(ValueError):  # another process was first
                study.tell(trial.number, state=TrialState.FAIL)
            attributes = {"folder": trial.user_attrs.get("folder", trial.number), "worker": me}
            study.enqueue_trial(trial.params, user_attrs=attributes)
            return study.ask(space)
    begun = {trial.user_attrs.get("folder", trial.number) for trial in trials}
    if len(begun) >= count:
        return None
    trial = study.ask(space)
    trial.set_user_attr("worker", me)
    trial.set_user_attr("folder", trial.number)
    return trial


def _abandoned(trial: "FrozenTrial") -> bool:
    """Whether the process that worked on it has died, on this host."""
    host, process = trial.user_attrs.get("worker", ("", 0))
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def last_value(path: Path, metric: str) -> float | None:
    """The last value of `metric` in a metrics.jsonl, or None if there is none that is a number."""
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text().splitlines() if f'"{metric}"' in line]
    values = [line[metric] for line in lines if metric in line]
    return float(values[-1]) if values and values[-1] is not None and math.isfinite(values[-1]) else None


def run_process(config: Config) -> Run:
    """What starts a trial in processes of its own, with its output in a file beside its folder."""

    def run(folder: Path, overrides: Sequence[str]) -> int:
        name = [] if config.config_name is None else ["--config-name", config.config_name]
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.processes}"]
        launcher = torchrun if config.processes else []
        command = [sys.executable, *launcher, str(ROOT / config.program), *name, *overrides]
        with Path(f"{folder}.txt").open("a") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            with _passed_on(process):
                status = process.wait()
        # torchrun ends with 1 after a signal too
        was_stopped = status == 1 and config.processes and f"exitcode  : {STOPPED}" in Path(f"{folder}.txt").read_text()
        return STOPPED if was_stopped else status

    return run


@contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass on signals that ask to end, so that the trial saves and ends first."""

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary(study: "Study", config: Config) -> str:
    """The trials that ended, best first, and those that failed."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    done.sort(key=lambda trial: (trial.value or 0.0) * (1 if config.minimize else -1))
    lines = [f"{config.metric:>24}  trial  settings"]
    for trial in done:
        chosen = " ".join(f"{key}={value}" for key, value in trial.params.items())
        lines.append(f"{trial.value:>24.6g}  {trial.user_attrs['folder']:>5}  {chosen}")
    failed = [trial for trial in trials if "failed" in trial.user_attrs]
    lines += [f"failed trials: {len(failed)}"] if failed else []
    lines += [f"  trial {trial.user_attrs['folder']}: {trial.user_attrs['failed']}" for trial in failed]
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    config = tyro.cli(Config, description=__doc__)
    study = sweep(config, run_process(config))
    print(summary(study, config))
    if not any(trial.value is not None for trial in study.get_trials(deepcopy=False)):
        raise UserError(f"all trials failed. See the output of the first, {config.folder}/trial_0.txt.")


if __name__ == "__main__":
    exit_on_user_error(main)
