"""Logging of a run, on rank 0 only: always to metrics.jsonl and a progress bar, optionally to W&B."""

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, TextIO, get_args

from tqdm import tqdm

from utils.errors import UserError
from utils.files import OTHER_FOLDER, check_regular_file, writing_to
from utils.settings import WandbMode
from utils.wandb_run import WandbRun

METRICS_FILE = "metrics.jsonl"
PERF_FILE = "perf.jsonl"


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
    ):
        """Open the log in `folder`, and drop lines of `first_step` and later steps that an interrupted run left behind.

        Args:
            folder: the run folder.
            first_step, total_steps: the first and the last step, for the progress bar.
            config: the configuration, for W&B.
            project, name, wandb_id, wandb_mode: the run in W&B. W&B itself reads all other WANDB_* variables.
            shown: label in the progress bar -> name of the metric whose latest value it shows.
        """
        self._shown, self._latest = shown, {}
        with writing_to(folder, OTHER_FOLDER):
            self._metrics = _open_for_append(folder / METRICS_FILE, first_step)
            self._perf = _open_for_append(folder / PERF_FILE, first_step)
        # in a log file, one line every 30 seconds is enough
        pace = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(total=total_steps, initial=first_step - 1, dynamic_ncols=True, desc="train", mininterval=pace)
        # an argument overrides the environment variable of the same name, so pass on the value of the variable
        run: dict[str, Any] = {"project": project, "name": name, "id": wandb_id, "config": config}
        run |= {"resume": os.environ.get("WANDB_RESUME") or "allow", "dir": os.environ.get("WANDB_DIR") or str(folder)}
        self._wandb = WandbRun(wandb_mode, run, self.say)

    def step(self, step: int, metrics: dict[str, float], perf: dict[str, float]) -> None:
        """Record one step."""
        _write_line(self._metrics, {"step": step, **metrics})
        _write_line(self._perf, {"step": step, **perf})
        self._wandb.log({**metrics, **perf}, step)
        self._latest |= {**metrics, **perf}
        shown = {word: f"{self._latest[key]:.4g}" for word, key in self._shown.items() if key in self._latest}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def pictures(self, folder: Path, step: int) -> None:
        """Log all PNG files below `folder` to W&B at `step`."""
        for path in sorted(folder.glob("**/*.png")):
            self.picture(f"pictures/{path.stem}", path, step)

    def example(self, text: str | None, path: Path, step: int) -> None:
        """Print how an example is solved and log its picture; None if this kind of data has no picture."""
        if text is None:
            self.say("no picture of an example: there is none for this kind of data")
        else:
            self.picture("example", path, step)
            self.say(text)

    def picture(self, key: str, path: Path, step: int) -> None:
        """Log a PNG to W&B at `step`."""
        self._wandb.picture(key, path, step)

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
        self._metrics.close()
        self._perf.close()
        self._wandb.finish(failed)


class SilentLog:
    """The log of all ranks but 0: accepts the same calls and writes nothing."""

    def step(self, step: int, metrics: dict[str, float], perf: dict[str, float]) -> None: ...

    def pictures(self, folder: Path, step: int) -> None: ...

    def example(self, text: str | None, path: Path, step: int) -> None: ...

    def say(self, text: str) -> None: ...

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(self, *_: object) -> None: ...


def _open_for_append(path: Path, first_step: int) -> TextIO:
    if path.exists():
        check_regular_file(path, "Remove it.")
        kept = [
            line for line in path.read_text(errors="replace").splitlines(keepends=True) if _step_of(line) < first_step
        ]
        temporary = path.with_name(f".{path.name}.writing")
        temporary.write_text("".join(kept))
        temporary.replace(path)
    return path.open("a", buffering=1)  # line-buffered, so that a killed run loses nothing


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that was cut off


def _write_line(file: TextIO, values: dict[str, Any]) -> None:
    file.write(json.dumps(values) + "\n")
