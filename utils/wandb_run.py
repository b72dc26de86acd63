"""A run in W&B that can neither end nor stall the training: what fails or takes too long is said once and left out.

All calls to W&B are made by a thread of their own, which training only waits for at the start and at the end, and not
for long. If W&B cannot be reached at the start, the run is recorded offline.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from utils.media import MakeMedia, Page, Picture, Table
from utils.settings import WandbMode

START_SECONDS = 60.0  # for the connection at the start, of which W&B itself may take half
FINISH_SECONDS = 60.0  # for the upload of what is left at the end
STOP_SECONDS = 10.0  # for ending the process of W&B
FULL_SECONDS = 30.0  # for a W&B that takes nothing while as many calls as these wait for it
_WAITING = 10_000
_END = object()  # the last item of the queue


class WandbRun:
    """One run in W&B. None of its methods raises an exception of W&B, or waits for it longer than the times above."""

    def __init__(self, mode: WandbMode, settings: dict[str, Any], say: Callable[[str], None]):
        """Start the run, or, if W&B cannot be reached, record it offline.

        Args:
            mode: how to log; `disabled` does nothing at all.
            settings: arguments of `wandb.init`; `dir` must be among them.
            say: prints a line.
        """
        self._say = say
        self._calls: Queue[Any] = Queue()
        self._run: Any = None  # the run of W&B; None before it has started and once it has failed
        self._folder: str = settings["dir"]
        self._thread: threading.Thread | None = None
        if mode == "disabled":
            return
        if not os.environ.get("WANDB_MODE", "unset"):
            del os.environ["WANDB_MODE"]  # an empty value is no mode for W&B, not even if another one is passed
        problem = self._start(mode, settings)
        if problem is not None and mode == "online":
            say(f"W&B cannot be used now ({problem}): the run is recorded offline.")
            problem = self._start("offline", settings)
            if problem is None:
                say(f"Upload it later with: {self._sync_command()}")
        if problem is not None:
            say(f"W&B cannot be used ({problem}): {_ALL_THE_SAME}")

    def log(self, values: dict[str, Any], step: int) -> None:
        """Log values at `step`."""
        self._call(lambda run: run.log(values, step=step))

    def picture(self, key: str, path: Path, step: int) -> None:
        """Log a PNG at `step`."""

        def call(run: Any) -> None:
            import wandb

            run.log({key: wandb.Image(str(path))}, step=step)

        self._call(call)

    def media(self, make: MakeMedia, step: int) -> None:
        """Log what `make` returns at `step`. The thread of W&B makes it; if that fails, it is said and left out."""

        def call(run: Any) -> None:
            import wandb

            try:
                made = make()
            except Exception as error:
                self._say(f"no pictures for W&B at step {step} ({type(error).__name__}: {error})")
                return
            values: dict[str, Any] = {}
            for name, item in made.items():
                if isinstance(item, Picture):
                    values[name] = wandb.Image(str(item.path))
                elif isinstance(item, Page):
                    values[name] = wandb.Html(item.path.read_text(encoding="utf-8"), inject=False)
                elif isinstance(item, Table):
                    values[name] = wandb.Table(columns=list(item.columns), data=[list(row) for row in item.rows])
            if values:
                run.log(values, step=step)

        self._call(call)

    def finish(self, failed: bool) -> None:
        """End the run, and tell W&B whether it failed. What is not uploaded within `FINISH_SECONDS` stays here."""
        if self._run is None or self._thread is None:
            return
        self._call(lambda run: run.finish(exit_code=int(failed)))
        self._call(_END)
        self._thread.join(FINISH_SECONDS)
        if self._run is not None and self._thread.is_alive():
            self._give_up(f"it has not taken everything within {FINISH_SECONDS:.0f} seconds")

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _start(self, mode: WandbMode, settings: dict[str, Any]) -> str | None:
        """Start a run and the thread that makes its calls. Returns what went wrong, or None."""
        started: Queue[Any] = Queue()
        self._calls = Queue(_WAITING)  # not that of a start before, whose thread may still be waiting for W&B
        arguments = (mode, settings, started, self._calls)
        self._thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="wandb")
        self._thread.start()
        try:
            outcome = started.get(timeout=START_SECONDS)
        except Empty:
            outcome = TimeoutError(f"no answer within {START_SECONDS:.0f} seconds")
        if not isinstance(outcome, BaseException):
            self._run = outcome
            return None
        _stop_service()
        return str(outcome).strip().splitlines()[0] if str(outcome).strip() else type(outcome).__name__

    def _work(self, mode: WandbMode, settings: dict[str, Any], started: "Queue[Any]", calls: "Queue[Any]") -> None:
        """Start a run, put it or the error into `started`, and make the calls until `_END` or until W&B fails."""
        try:
            import wandb

            run: Any = wandb.init(mode=mode, settings={"init_timeout": START_SECONDS / 2}, **settings)
        except BaseException as error:  # W&B ends some errors with an exit
            started.put(error)
            return
        started.put(run)
        while (call := calls.get()) is not _END and self._run is run:
            try:
                call(run)
            except BaseException as error:
                self._give_up(f"{type(error).__name__}: {error}")

    def _call(self, call: Any) -> None:
        """Have the thread make a call, unless W&B has failed."""
        if self._run is None:
            return
        try:
            self._calls.put(call, timeout=FULL_SECONDS)
        except Full:
            self._give_up(f"it has taken nothing for {FULL_SECONDS:.0f} seconds")

    def _give_up(self, reason: str) -> None:
        if self._run is None:
            return  # said before
        command, self._run = self._sync_command(), None
        self._say(f"W&B has failed ({reason}): {_ALL_THE_SAME} Upload what W&B has recorded with: {command}")
        _stop_service()

    def _sync_command(self) -> str:
        with suppress(Exception):
            return f"wandb sync {self._run.settings.sync_dir}"
        return f"wandb sync {self._folder}/wandb/*run-*"


_ALL_THE_SAME = "training goes on, and metrics.jsonl holds every step."


def _stop_service() -> None:
    """End the process of W&B, for which the interpreter would otherwise wait at its exit, for ever if it is stuck."""

    def stop() -> None:
        with suppress(Exception):
            import wandb

            connection: Any = wandb.setup()._connection  # there is no public way to end it without waiting for it
            connection._proc._process.kill()
        with suppress(BaseException):
            import wandb

            wandb.teardown()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(STOP_SECONDS)
