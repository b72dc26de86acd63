"""Where a run's numbers go: always metrics.jsonl, on top of it W&B, and a progress bar. Rank 0 only."""

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, TextIO, get_args

from tqdm import tqdm

from utils.config import WandbMode
from utils.errors import UserError

METRICS_FILE = "metrics.jsonl"
PERF_FILE = "perf.jsonl"


def new_wandb_id() -> str:
    """An identifier under which W&B keeps a run over restarts: WANDB_RUN_ID, else a random one."""
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)


def choose_wandb_mode(wanted: WandbMode | None) -> tuple[WandbMode, str]:
    """(mode, reason): as configured, else WANDB_MODE, else online where there is a login, else disabled."""
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
    """The log of one run, one line a step.

    metrics.jsonl holds what the run computes, so it is the same, byte for byte, however often the run is interrupted.
    What depends on the machine's mood (examples per second) goes to perf.jsonl and, as `perf/...`, to W&B.
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
        """Open the log in `folder`; lines of steps from `first_step` on, left by an interrupted run, are cut off.

        Args:
            folder: the run folder.
            first_step, total_steps: what the progress bar counts.
            config: the configuration, for W&B.
            project, name, wandb_id, wandb_mode: the run in W&B. All other WANDB_* variables are W&B's own to read.
            shown: word in the progress bar -> name of the metric whose newest value it shows.
        """
        self._shown, self._latest = shown, {}
        self._metrics = _open_for_append(folder / METRICS_FILE, first_step)
        self._perf = _open_for_append(folder / PERF_FILE, first_step)
        # in a log file a line every half minute is enough
        pace = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(total=total_steps, initial=first_step - 1, dynamic_ncols=True, desc="train", mininterval=pace)
        self._wandb = None
        if wandb_mode != "disabled":
            import wandb

            # an argument goes before the variable of its name, so what the variable says is what is given
            resume: Any = os.environ.get("WANDB_RESUME") or "allow"
            place = os.environ.get("WANDB_DIR") or str(folder)
            self._wandb = wandb.init(
                project=project, name=name, id=wandb_id, resume=resume, mode=wandb_mode, config=config, dir=place
            )

    def step(self, step: int, metrics: dict[str, float], perf: dict[str, float]) -> None:
        """Record one step."""
        _write_line(self._metrics, {"step": step, **metrics})
        _write_line(self._perf, {"step": step, **perf})
        if self._wandb is not None:
            self._wandb.log({**metrics, **perf}, step=step)
        self._latest |= {**metrics, **perf}
        shown = {word: f"{self._latest[key]:.4g}" for word, key in self._shown.items() if key in self._latest}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)

    def picture(self, key: str, path: Path, step: int) -> None:
        """Show a PNG in W&B, as of `step`."""
        if self._wandb is not None:
            import wandb

            self._wandb.log({key: wandb.Image(str(path))}, step=step)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._bar.write(text)

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self._metrics.close()
        self._perf.close()
        if self._wandb is not None:
            self._wandb.finish()


def _open_for_append(path: Path, first_step: int) -> TextIO:
    if path.exists():
        kept = [line for line in path.read_text().splitlines(keepends=True) if _step_of(line) < first_step]
        temporary = path.with_name(f".{path.name}.writing")
        temporary.write_text("".join(kept))
        temporary.replace(path)
    return path.open("a", buffering=1)  # line by line, so that a killed run loses nothing


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off in the middle


def _write_line(file: TextIO, values: dict[str, Any]) -> None:
    file.write(json.dumps(values) + "\n")
