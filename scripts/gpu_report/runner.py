"""Runs the stages of a report, one invocation after the other, until all have ended.

The state is in the work folder, so a report that was killed goes on where it was: `results/stages.jsonl` has a line for
each stage that has ended, `attempts.jsonl` one for each that was begun. The date of the first attempt names the report
in all its lines, which tells the results of several reports in one folder apart.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.gpu_report.curve import Curve
from scripts.gpu_report.lines import append_line, copy_new_lines, read_lines
from scripts.gpu_report.programs import Lock, Start, stop
from scripts.gpu_report.stage import Figures, Stage
from scripts.gpu_report.summary import curve_file, write_summary
from utils.checkpoint import TRAIN_STATE_SUFFIX
from utils.errors import UserError

ENDED = ("done", "failed", "skipped")
ATTEMPTS = 3  # after so many attempts that did not end, a stage has failed
_MARGIN = 5.0  # seconds at the end of an invocation for stopping a program and writing the summary
_WAIT_FOR_CHECKPOINT = 25.0  # a training run is stopped after the first checkpoint in its last seconds
_ERROR_LINES = 15


class Runner:
    """One invocation.

    Args:
        stages: the stages, in order of worth.
        work: folder of the state, of data, checkpoints and logs.
        output: folder for the results and the summary.
        seconds: length of the invocation.
        start: how to start a program.
        say: prints a line.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        work: Path,
        output: Path,
        seconds: float,
        start: Start,
        say: Callable[[str], None] = print,
    ):
        self.stages, self.work, self.output, self.start = stages, work, output, start
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self._say = say
        self.results = work / "results"
        (work / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, retry: bool = False) -> bool:
        """Run stages until the time is over; whether all have ended.

        Args:
            retry: run the stages again that have failed, or were skipped.

        Raises:
            UserError: another report runs in the work folder, or a stage has failed without which nothing else works.
        """
        with Lock(self.work / "lock") as lock:
            return self._run_stages(lock, retry)

    def _run_stages(self, lock: Lock, retry: bool) -> bool:
        ended = {name: line["status"] for name, line in self._ends().items()}
        if retry:
            ended = {name: status for name, status in ended.items() if status == "done"}
        self.publish()
        while waiting := [stage for stage in self.stages if stage.name not in ended]:
            reasons = {stage.name: self._why_not(stage, ended) for stage in waiting}
            possible = [stage for stage in waiting if reasons[stage.name] is None and self._ready(stage, ended)]
            impossible = next((stage for stage in waiting if reasons[stage.name] is not None), None)
            if impossible is not None:
                ended[impossible.name] = self._record(impossible, "skipped", 0, error=reasons[impossible.name])
                continue
            stage = next((stage for stage in possible if stage.needs <= self.left), None)
            if stage is None:
                break
            status = self._run(stage, lock)
            if status in ENDED:
                ended[stage.name] = status
            if status == "failed" and stage.essential:
                raise UserError(f"{stage.title}: failed, and nothing else will work; see {self._log(stage)}.")
        self.publish()
        names = [stage.name for stage in waiting]
        self.say(f"all {len(self.stages)} stages have ended" if not names else f"to do: {', '.join(names)}")
        return not names

    @property
    def report(self) -> str:
        """What names this report."""
        return next((line["date"] for line in read_lines(self.work / "attempts.jsonl")), now())

    @property
    def left(self) -> float:
        """Seconds that are left for programs."""
        return self.deadline - _MARGIN - time.monotonic()

    def say(self, text: str) -> None:
        """Print a line with the time of day and the seconds since the invocation began."""
        self._say(f"{datetime.now():%H:%M:%S} {time.monotonic() - self.began:6.1f} s  {text}")

    def publish(self) -> None:
        """Bring the output folder up to date."""
        self.output.mkdir(parents=True, exist_ok=True)
        copy_new_lines(self.results, self.output)
        write_summary(self.output)

    # -- which stage -------------------------------------------------------------------------------------------------

    def _ends(self) -> dict[str, dict[str, Any]]:
        """The last line of each stage that has ended."""
        lines = read_lines(self.results / "stages.jsonl")
        essential = {stage.name for stage in self.stages if stage.essential}
        return {
            line["stage"]: line
            for line in lines
            if line["status"] in ENDED and not (line["stage"] in essential and line["status"] != "done")
        }

    def _why_not(self, stage: Stage, ended: dict[str, str]) -> str | None:
        """Why a stage cannot run at all, or None."""
        missing = [str(path) for path in stage.inputs if not path.exists()]
        if missing:
            return f"there is no {', '.join(missing)}"
        lacking = [name for name in stage.after if ended.get(name) in ("failed", "skipped")]
        return f"needs {', '.join(lacking)}, which did not succeed" if lacking else None

    def _ready(self, stage: Stage, ended: dict[str, str]) -> bool:
        """Whether what a stage needs is there; stages that are left out of this report count as done."""
        names = {other.name for other in self.stages}
        return all(name in ended or name not in names for name in stage.after)

    # -- one stage ---------------------------------------------------------------------------------------------------

    def _run(self, stage: Stage, lock: Lock) -> str:
        """Run a stage; its status."""
        attempts = self.work / "attempts.jsonl"
        if stage.run is None and self._unfinished(stage) >= ATTEMPTS:
            return self._record(stage, "failed", 0, error=f"begun {ATTEMPTS} times, and never ended")
        append_line(attempts, {"stage": stage.name, "date": now()})
        (self.work / "found" / stage.name).mkdir(parents=True, exist_ok=True)
        self.say(f"{stage.name}: {stage.title}")
        before = self._seconds_so_far(stage)
        curve = None
        if stage.run is not None:
            curve = Curve(stage.run, self.results / curve_file(stage.name), stage.every, self.report)
        started = time.monotonic()
        status, reason = self._wait(stage, lock, curve, before)
        seconds = time.monotonic() - started
        if status == "going on" and before + seconds >= stage.budget:
            status, reason = "done", "has had its time"
        if status == "failed":
            return self._record(stage, status, seconds, error=reason)
        try:
            figures = stage.read() if status == "done" or stage.run is not None else {}
        except Exception as error:
            if status != "done":  # stopped before its first step
                return self._record(stage, status, seconds)
            return self._record(stage, "failed", seconds, error=f"its results: {type(error).__name__}: {error}")
        return self._record(stage, status, seconds, figures)

    def _wait(self, stage: Stage, lock: Lock, curve: Curve | None, before: float) -> tuple[str, str | None]:
        """Run the program of a stage to its end, or until its time is over: (status, error)."""
        log = self._log(stage)
        running = self.start(stage.program, log, lock)
        started = said = time.monotonic()
        try:
            while (exit_status := running.poll()) is None:
                time.sleep(0.05)
                now = time.monotonic()
                if curve is not None:
                    curve.follow(before + now - started)
                    if now - said > 30 and curve.latest:
                        said = now
                        self.say(f"{stage.name}: " + _shown(curve.latest))
                    if self._time_is_over(stage, before + now - started):
                        return "going on", None
                elif now - started > stage.limit:
                    return "failed", f"took longer than {stage.limit:.0f} s"
                elif self.left <= 0:
                    return "stopped", None
        finally:
            stop(running)
            if curve is not None:
                curve.follow(before + time.monotonic() - started)
        return ("done", None) if exit_status == 0 else ("failed", f"exit status {exit_status}: {_end_of(log)}")

    def _time_is_over(self, stage: Stage, seconds: float) -> bool:
        """Whether to stop a training run now: at the end of its time, if possible right after a checkpoint."""
        assert stage.run is not None
        left = min(self.left, stage.budget - seconds)
        if left <= 0:
            return True
        if left > _WAIT_FOR_CHECKPOINT:
            return False
        newest = max((path.stat().st_mtime for path in stage.run.glob(f"step_*{TRAIN_STATE_SUFFIX}")), default=0.0)
        return newest > time.time() - (_WAIT_FOR_CHECKPOINT - left)

    def _record(
        self, stage: Stage, status: str, seconds: float, figures: Figures | None = None, error: str | None = None
    ) -> str:
        """Write how a stage went, and publish it; returns the status."""
        card = self._ends().get("environment", {}).get("figures", {})
        line: dict[str, Any] = {
            "report": self.report,
            "stage": stage.name,
            "title": stage.title,
            "status": status,
            "date": now(),
            "seconds": round(seconds, 1),
            **{key: card[key] for key in ("card", "torch") if key in card},
            "figures": figures or {},
        }
        if error is not None:
            line["error"] = error
        if stage.output is not None and status == "done":
            described = {key: line.get(key) for key in ("date", "card", "report", "stage")}
            append_line(self.results / f"{stage.output}.jsonl", {**described, **line["figures"]})
        append_line(self.results / "stages.jsonl", line)
        self.say(f"{stage.name}: {status}, {seconds:.1f} s" + (f": {error}" if error else ""))
        self.publish()
        return status

    def _unfinished(self, stage: Stage) -> int:
        """How often a stage was begun and did not end, because its report was stopped or killed."""
        begun = sum(line["stage"] == stage.name for line in read_lines(self.work / "attempts.jsonl"))
        lines = read_lines(self.results / "stages.jsonl")
        return begun - sum(line["stage"] == stage.name and line["status"] in ENDED for line in lines)

    def _seconds_so_far(self, stage: Stage) -> float:
        lines = read_lines(self.results / "stages.jsonl")
        return sum(line["seconds"] for line in lines if line["stage"] == stage.name)

    def _log(self, stage: Stage) -> Path:
        return self.work / "logs" / f"{stage.name}.log"


def now() -> str:
    """The date and time."""
    return datetime.now().isoformat(timespec="milliseconds")


def _shown(metrics: dict[str, float]) -> str:
    wanted = ("step", "train/lm_loss", "train/exact_accuracy")
    return ", ".join(f"{key} {metrics[key]:.4g}" for key in wanted if key in metrics)


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_ERROR_LINES:])[-2000:]
