"""The raw numbers of a run, read from its folder when it has ended."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from evaluators.report.runs import PERF, RESULTS, read_run
from studies.plan import PlannedRun
from studies.records import Row, pack
from utils.constants import IGNORE_LABEL_ID
from utils.errors import DamagedFileError, UserError
from utils.torch_file import load_torch_file

_LINES = 4  # of an error message
_MEND = "The run is repeated if it is moved away."


def read_row(run: PlannedRun, folder: Path) -> Row | None:
    """The numbers of a run; None if it has not been evaluated after its last step.

    Raises:
        DamagedFileError: its evaluation is damaged.
        UserError: its evaluation has no example with a label.
    """
    if run.steps is None or run.costs is None or run.training_flops is None:
        return None
    evaluation = folder / f"evaluation_step_{run.steps}"
    if not (evaluation / RESULTS).exists():
        return None
    try:
        sets = json.loads((evaluation / RESULTS).read_bytes())["sets"]
        counts = np.array([result["count"] for result in sets.values()], np.float64)
        curves = [np.array(result["exact_accuracy_after_step"]) for result in sets.values() if result["count"]]
        cells = [result["metrics"]["accuracy"] for result in sets.values() if result["count"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{evaluation / RESULTS} is damaged ({error!r}). {_MEND}") from None
    if not counts.sum():
        raise UserError(f"{evaluation}: no puzzle has a label, so there is nothing to compare.")
    weights = counts[counts > 0] / counts.sum()
    right, digest = _answers(evaluation)
    after_pass = (weights[:, None] * np.stack(curves)).sum(0).tolist()
    if len(right) != counts.sum() or abs(right.mean() - after_pass[-1]) > 1e-6:
        raise DamagedFileError(f"{evaluation}: the answers do not have the accuracy in {RESULTS}. {_MEND}")
    return Row(
        arm=run.arm,
        seed=run.seed,
        budgets=list(run.budgets),
        steps=run.steps,
        batch_size=run.batch_size,
        parameters=run.costs.parameters,
        training_flops=run.training_flops,
        pass_flops=run.costs.evaluation,
        passes=run.passes,
        puzzles=len(right),
        puzzles_digest=digest,
        right=pack(right),
        exact_accuracy=float(right.mean()),
        cell_accuracy=float(np.dot(weights, cells)),
        exact_accuracy_after_pass=after_pass,
        seconds=_seconds(folder),
    )


def _answers(evaluation: Path) -> tuple[np.ndarray, str]:
    """(which puzzles with a label were answered correctly, bool [puzzles]; a digest of the puzzles)."""
    files = sorted(evaluation.glob("**/*_preds.0"))
    right, digest = [np.zeros(0, bool)], 0
    for path in files:
        try:
            saved: dict[str, torch.Tensor] = load_torch_file(path, _MEND)
            index, labels, preds = (saved[key].numpy() for key in ("example_index", "labels", "preds"))
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{path} is damaged ({error!r}). {_MEND}") from None
        asked = labels != IGNORE_LABEL_ID
        labelled = asked.any(1)
        right.append(((preds == labels) | ~asked).all(1)[labelled])
        for array in (index[labelled].astype(np.int64), labels[labelled].astype(np.int64)):
            digest = zlib.crc32(array.tobytes(), digest)
    return np.concatenate(right), f"{digest:08x}"


def _seconds(folder: Path) -> float | None:
    """Seconds of the training steps alone, or None if they were not logged."""
    try:
        seconds = read_run(folder).seconds() if (folder / PERF).exists() else None
    except UserError:
        return None
    return float(seconds.values[-1]) if seconds is not None and len(seconds.values) else None


def failure_of(output: Path, status: int) -> str:
    """Why a run has failed, from the end of what it has printed."""
    lines: list[str] = []
    if output.exists():
        text = output.read_bytes()[-20_000:].decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if line.startswith("error")]
    shown = " ".join(lines[errors[-1] :][:_LINES]) if errors else lines[-1] if lines else "it printed nothing"
    if status < 0:
        return f"killed by signal {-status}; see {output}"
    return f"{shown} (status {status}; see {output})"
