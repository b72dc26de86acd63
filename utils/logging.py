"""Logging of a run, on rank 0 only: always to metrics.jsonl and a progress bar, optionally to W&B and TensorBoard."""

import json
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, get_args

from tqdm import tqdm

from utils.atomic_file import replacing
from utils.errors import UserError
from utils.files import OTHER_FOLDER, check_regular_file, writing_to
from utils.media import MakeMedia
from utils.settings import LoggerName, WandbMode
from utils.tensorboard_run import TensorBoardRun
from utils.wandb_run import WandbRun

METRICS_FILE = "metrics.jsonl"
PERF_FILE = "perf.jsonl"
FULL_FOLDER = (
    "Free some space, or make it writable, and go on with load_checkpoint=latest. The checkpoints are as they were."
)


def new_wandb_id() -> str:
    """The id that identifies a run in W&B across restarts: WANDB_RUN_ID if set, otherwise random."""
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def choose_wandb_mode(wanted: WandbMode | None) -> tuple[WandbMode, str]:
    """(mode, reason): as configured, else from WANDB_MODE, else online if logged in, else disabled.

    Raises:
        UserError: WANDB_MODE is not a known mode.
    """
    if wanted is not None:
        return wanted, "as configured"
    from_environment = os.environ.get("WANDB_MODE")
    if from_environment:
        known: dict[str, WandbMode] = {"dryrun": "offline", **{mode: mode for mode in get_args(WandbMode)}}
        if from_environment not in known:
            raise UserError(f"WANDB_MODE={from_environment!r}: allowed are {', '.join(known)}.")
        return known[from_environment], "WANDB_MODE"
    if _has_wandb_login():
        return "online", "logged in"
    return "disabled", "no login found; wandb_mode=offline records a run all the same"


def _has_wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")


class RunLog:
    """The log of one run, with one line per step. As a context it closes itself and records whether the run failed.

    metrics.jsonl holds only what the run computes, so its bytes are the same however often the run is interrupted.
    Timings, which vary from run to run (such as examples per second), go to perf.jsonl and, as `perf/...`, to W&B.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        total_steps: int,
        config: dict[str, Any],
        project: str,
        name: str,
        wandb_id: str,
        wandb_mode: WandbMode,
        shown: dict[str, str],
        loggers: Sequence[LoggerName] = ("wandb",),
    ):
        """Open the log in `folder`, and drop lines of `first_step` and later steps that an interrupted run left behind.

        Args:
            folder: the run folder.
            first_step, total_steps: the first and the last step, for the progress bar.
            config: the configuration, for W&B.
            project, name, wandb_id, wandb_mode: the run in W&B. W&B itself reads all other WANDB_* variables.
            shown: label in the progress bar -> name of the metric whose latest value it shows.
            loggers: where to log to besides the files; without wandb, `wandb_mode` has no effect.
        """
        self._folder, self._shown, self._latest = folder, shown, {}
        with writing_to(folder, OTHER_FOLDER):
            self._metrics, lost = _open_for_append(folder / METRICS_FILE, first_step)
            self._perf, _ = _open_for_append(folder / PERF_FILE, first_step)
        # in a log file, one line every 30 seconds is enough
        pace = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(total=total_steps, initial=first_step - 1, dynamic_ncols=True, desc="train", mininterval=pace)
        if lost is not None:
            self.say(f"note: {lost} The run goes on; what is lost cannot be computed again.")
        # an argument overrides the environment variable of the same name, so pass on the value of the variable
        run: dict[str, Any] = {"project": project, "name": name, "id": wandb_id, "config": config}
        run |= {"resume": os.environ.get("WANDB_RESUME") or "allow", "dir": os.environ.get("WANDB_DIR") or str(folder)}
        wandb = WandbRun(wandb_mode if "wandb" in loggers else "disabled", run, self.say)
        self._loggers: list[WandbRun | TensorBoardRun] = [wandb]
        if "tensorboard" in loggers:
            self._loggers.append(TensorBoardRun(folder, first_step, self.say))

    def step(self, step: int, metrics: dict[str, float], perf: dict[str, float]) -> None:
        """Record one step."""
        with writing_to(self._folder, FULL_FOLDER):
            _write_line(self._metrics, {"step": step, **metrics})
            _write_line(self._perf, {"step": step, **perf})
        for logger in self._loggers:
            logger.log({**metrics, **perf}, step)
        self._latest |= {**metrics, **perf}
        shown = {word: f"{self._latest[key]:.4g}" for word, key in self._shown.items() if key in self._latest}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def media(self, make: MakeMedia, step: int) -> None:
        """Log pictures, tables and pages to W&B and TensorBoard at `step`; their threads make them."""
        for logger in self._loggers:
            logger.media(make, step)

    def example(self, text: str | None, path: Path, step: int) -> None:
        """Print how an example is solved and log its picture; None if this kind of data has no picture."""
        if text is None:
            self.say("no picture of an example: there is none for this kind of data")
        else:
            self.picture("example", path, step)
            self.say(text)

    def picture(self, key: str, path: Path, step: int) -> None:
        """Log a PNG to W&B and TensorBoard at `step`."""
        for logger in self._loggers:
            logger.picture(key, path, step)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def close(self, failed: bool = False) -> None:
        """Flush and close everything, and tell W&B whether the run failed."""
        self._bar.close()
        for file in (self._metrics, self._perf):
            with suppress(OSError):  # of a full disk, which has been said when the line was written
                file.close()
        for logger in self._loggers:
            logger.finish(failed)


class SilentLog:
    """The log of all ranks but 0: accepts the same calls and writes nothing."""

    def step(self, step: int, metrics: dict[str, float], perf: dict[str, float]) -> None: ...

    def media(self, make: MakeMedia, step: int) -> None: ...

    def example(self, text: str | None, path: Path, step: int) -> None: ...

    def say(self, text: str) -> None: ...

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(self, *_: object) -> None: ...


def _open_for_append(path: Path, first_step: int) -> tuple[TextIO, str | None]:
    """(the file, with the lines of the steps before `first_step` alone, in order; what of them is lost, or None)."""
    lost = None
    if path.exists():
        check_regular_file(path, "Remove it.")
        with replacing(path) as temporary:
            lost = _copy_steps(path, temporary, first_step)
    elif first_step > 1:
        lost = f"{path.name} is missing, so it begins with step {first_step} now."
    return path.open("a", buffering=1), lost  # line-buffered, so that a killed run loses nothing


def _copy_steps(path: Path, target: Path, first_step: int) -> str | None:
    """Copy the whole lines of steps before `first_step` that are in order. Returns what is lost, or None."""
    last, missing = 0, list[str]()
    with path.open("rb") as lines, target.open("wb") as kept:
        for line in lines:
            step = _step_of(line)
            if not last < step < first_step:
                continue  # left by an interrupted run, damaged, or written by two runs at once
            if step > last + 1:
                missing.append(_range(last + 1, step - 1))
            kept.write(line)
            last = step
    if last < first_step - 1:
        missing.append(_range(last + 1, first_step - 1))
    if not missing:
        return None
    shown = ", ".join(missing[:8]) + (", ..." if missing[8:] else "")
    return f"{path.name} lacks steps that have been made ({shown}), because its lines were damaged or removed."


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _step_of(line: bytes) -> int:
    """The step of a line; 0 if the line is damaged or was cut off."""
    try:
        step = json.loads(line)["step"] if line.endswith(b"\n") else 0
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return step if type(step) is int else 0


def _write_line(file: TextIO, values: dict[str, Any]) -> None:
    file.write(json.dumps(values) + "\n")
