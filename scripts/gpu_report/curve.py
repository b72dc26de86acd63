"""The learning curve of a training run, copied to the results while the run goes on."""

import json
from pathlib import Path

from scripts.gpu_report.lines import append_line, read_lines
from scripts.gpu_report.stage import is_evaluation


class Curve:
    """Copies lines of a run's metrics.jsonl: every so many steps, and those with an evaluation.

    A line gets the seconds that the run has taken until then, with its starts. Steps that a resumed run repeats are not
    copied twice.

    Args:
        run: the run folder.
        target: the file of JSON lines to append to.
        every: steps between two lines without an evaluation.
        report: what the lines get as `report`.
    """

    def __init__(self, run: Path, target: Path, every: int, report: str):
        self._metrics, self._target, self._every, self._report = run / "metrics.jsonl", target, every, report
        self._last_step = max((line["step"] for line in read_lines(target)), default=0)
        self._read = 0  # bytes of metrics.jsonl
        self.latest: dict[str, float] = {}

    def follow(self, seconds: float) -> None:
        """Copy what is new.

        Args:
            seconds: how long the run has taken until now.
        """
        if not self._metrics.exists():
            return
        if self._metrics.stat().st_size < self._read:  # a resumed run has dropped lines
            self._read = 0
        with self._metrics.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in map(json.loads, whole.splitlines()):
            self.latest = line
            step = line["step"]
            if step > self._last_step and (step % self._every == 0 or is_evaluation(line)):
                append_line(self._target, {"report": self._report, "seconds": round(seconds, 1), **line})
                self._last_step = step
