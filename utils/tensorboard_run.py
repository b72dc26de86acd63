"""A run in TensorBoard files, written by a thread of its own: what fails is said once and left out."""

import importlib.util
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Full, Queue
from typing import Any

from utils.errors import UserError
from utils.media import MakeMedia, Page, Picture, Table

FOLDER = "tensorboard"  # in the run folder
FINISH_SECONDS = 60.0
FULL_SECONDS = 30.0
_WAITING = 10_000
_END = object()


def check_installed(loggers: Sequence[str]) -> None:
    """Check that the packages of the loggers are there.

    Raises:
        UserError: tensorboard is asked for and is not installed.
    """
    if "tensorboard" in loggers and importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "logger=[...,tensorboard]: the package tensorboard is not installed. Install it with "
            "`uv sync --extra tensorboard` or `pip install tensorboard`, or leave it out of logger."
        )


class TensorBoardRun:
    """The TensorBoard files of one run. None of its methods raises an exception, or waits for long.

    Args:
        folder: the run folder.
        first_step: what earlier files hold of this and later steps does not count.
        say: prints a line.
    """

    def __init__(self, folder: Path, first_step: int, say: Callable[[str], None]):
        self._folder, self._first_step, self._say = folder / FOLDER, first_step, say
        self._calls: Queue[Any] = Queue(_WAITING)
        self._failed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="tensorboard")
        self._thread.start()

    def log(self, values: dict[str, Any], step: int) -> None:
        """Log numbers at `step`."""
        self._call(lambda writer: [writer.add_scalar(name, value, step) for name, value in values.items()])

    def picture(self, key: str, path: Path, step: int) -> None:
        """Log a PNG at `step`."""
        self._call(lambda writer: writer.add_image(key, _pixels(path), step, dataformats="HWC"))

    def media(self, make: MakeMedia, step: int) -> None:
        """Log pictures and tables at `step`; of a page, where it lies."""

        def call(writer: Any) -> None:
            for name, item in make().items():
                if isinstance(item, Picture):
                    writer.add_image(name, _pixels(item.path), step, dataformats="HWC")
                elif isinstance(item, Table):
                    writer.add_text(name, _markdown(item), step)
                elif isinstance(item, Page):
                    writer.add_text(name, f"`{item.path}`", step)

        self._call(call)

    def finish(self, failed: bool) -> None:
        """Write what is left."""
        self._call(_END)
        self._thread.join(FINISH_SECONDS)

    def _call(self, call: Any) -> None:
        if self._failed:
            return
        try:
            self._calls.put(call, timeout=FULL_SECONDS)
        except Full:
            self._give_up(f"it has taken nothing for {FULL_SECONDS:.0f} seconds")

    def _work(self) -> None:
        writer: Any = None
        try:
            from torch.utils.tensorboard.writer import SummaryWriter

            writer = SummaryWriter(str(self._folder), purge_step=self._first_step)
            while (call := self._calls.get()) is not _END:
                call(writer)
        except Exception as error:  # a log must not end the run
            self._give_up(f"{type(error).__name__}: {error}")
        finally:
            if writer is not None:
                writer.close()

    def _give_up(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._say(f"TensorBoard has failed ({reason}): training goes on, and metrics.jsonl holds every step.")


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)
