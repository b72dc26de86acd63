"""The jobs of a sweep: how they fail, and what those need that submitit starts in processes of their own.

Hydra's `hydra/launcher=submitit_local` and `submitit_slurm` send each job to other processes, with one process for each
task of the job (`hydra.launcher.tasks_per_node`). What such a job has to say to the program that started the sweep lies
in its folder.
"""

import importlib.util
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException

from utils.atomic_file import write_json
from utils.errors import UserError
from utils.exit_status import STOPPED
from utils.text_files import read_json

FILE = "failure.json"  # in the folder of a job
_SUBMITTED = "SUBMITIT_EXECUTOR"  # the variable that submitit sets in its jobs
_LOST = re.compile(r"(\S+?)_(\d+)_result\.pkl\s+has not produced any output")


@dataclass(frozen=True)
class Failure:
    """How a job failed: what it said, and its exit status (2 for a `UserError`, `STOPPED` for a signal, else 1)."""

    message: str
    status: int


class JobFailedError(CompactHydraException):
    """A job of a sweep failed, which has been noted already. The argument is the folder of the sweep."""


@dataclass
class Failures:
    """The failed jobs, by name (empty without a sweep). A copy of it is sent to the jobs in other processes."""

    by_name: dict[str, Failure] = field(default_factory=dict)
    _sweep: str = field(default_factory=lambda: secrets.token_hex(8))  # which tells a file from those of other sweeps

    def add(self, name: str, failure: Failure, is_main: bool) -> None:
        """Note a failure; in a process of its own, in the folder of the job, on rank 0."""
        self.by_name[name] = failure
        if submitted() and is_main:
            job, folder = HydraConfig.get().job.num, Path(HydraConfig.get().runtime.output_dir)
            content = {"sweep": self._sweep, "number": job, "job": name}
            write_json(folder / FILE, content | {"message": failure.message, "status": failure.status})

    def collect(self, error: JobFailedError) -> None:
        """Add what the jobs in other processes have noted, after one of them has raised `error`."""
        noted = [read_json(path) for path in Path(str(error)).rglob(FILE)]
        for one in sorted((one for one in noted if one["sweep"] == self._sweep), key=lambda one: one["number"]):
            self.by_name[one["job"]] = Failure(one["message"], one["status"])


def submitted() -> bool:
    """Whether this process is a job of submitit."""
    return _SUBMITTED in os.environ


def check_launcher(arguments: Sequence[str]) -> None:
    """Check the launcher and the sweeper among the arguments, and let the jobs of submitit import this program.

    Raises:
        UserError: a plugin or Slurm is needed and is not there.
    """
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "hydra/sweeper" and "optuna" in value:
            raise UserError(
                f"{argument}: the plugin needs Optuna 2, which is not installed. Use `python -m scripts.optuna_sweep`, "
                "which takes the same overrides."
            )
        if key != "hydra/launcher" or not value.startswith("submitit"):
            continue
        if importlib.util.find_spec("submitit") is None:
            raise UserError(f"{argument}: the launcher is not installed. Install it with `uv sync --extra cluster`.")
        if value == "submitit_slurm" and shutil.which("srun") is None:
            raise UserError(f"{argument}: there is no Slurm here (no srun in PATH). Here, use submitit_local.")
        # a job is unpickled before the program in it is known
        root = str(Path(__file__).resolve().parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).strip(
            os.pathsep
        )


def take_rank() -> None:
    """In a job of several tasks, give this process its rank, in the variables that torchrun would set."""
    if not submitted() or "RANK" in os.environ:
        return
    import submitit  # only a job needs it

    if submitit.JobEnvironment().num_tasks == 1:
        return
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    if os.environ[_SUBMITTED] == "local":
        os.environ["MASTER_ADDR"] = "localhost"  # the name of this machine may be known to nobody


def lost_job(error: Exception) -> Failure | None:
    """How a job of submitit failed that had no time to note it, or None if `error` is something else."""
    if not type(error).__module__.startswith("submitit."):
        return None
    found = _LOST.search(str(error))
    if found is None:
        return Failure(str(error), 1)
    log = f"{found[1]}_{found[2]}_log.err"
    return Failure(
        f"a job ended without a result: it was killed, or ran out of memory or of time (hydra.launcher.timeout_min); "
        f"see {log}. Other jobs go on if they still run.",
        1,
    )


def stopped(ended: SystemExit) -> Failure:
    """The failure of a job in a process of its own that ended with a status, such as after a signal."""
    if ended.code == STOPPED:
        return Failure("stopped by a signal; load_checkpoint=latest goes on from its last checkpoint", STOPPED)
    return Failure(f"ended with status {ended.code}", ended.code if isinstance(ended.code, int) else 1)


def report(failures: dict[str, Failure]) -> None:
    """Print the failed jobs of a sweep, if there are any."""
    jobs = [f"  {name}: {failure.message.strip()}" for name, failure in failures.items() if name]
    if jobs:
        print("\n".join([f"failed jobs of the sweep: {len(jobs)}", *jobs]), file=sys.stderr, flush=True)
