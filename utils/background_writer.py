"""Writing in a thread, so that training goes on while a checkpoint is written."""

import sys
from collections.abc import Callable
from threading import Thread


class BackgroundWriter:
    """Does one job at a time in a thread. As a context it waits for the last job at the end of the block.

    An error of a job is raised by the next call of any method. If the block ends in another error, the error of the
    last job is only printed.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Start `job` once the one before it is done."""
        self.wait()
        self._thread = Thread(target=self._run, args=(job,), name="checkpoint writer")
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a job that has ended, if it had one; waits for nothing."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until the job is done, and raise its error, if it had one."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # raised again in the thread that trains
            self._error = error

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            print(f"also, a checkpoint was not written: {error}", file=sys.stderr)
