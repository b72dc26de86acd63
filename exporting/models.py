"""The model that is exported, its name, and how long it is compared."""

from pathlib import Path

from evaluators.loading import SHIPPED, load
from evaluators.reasoner import Reasoner
from utils.settings import ExportConfig

_MOST_STEPS = 16  # of a comparison, unless the user asks for more


def load_exact(config: ExportConfig, path: str) -> Reasoner:
    """The model, in fp32 on the CPU, as it is exported.

    Raises:
        UserError: see `evaluators.loading.load`.
    """
    return load(path, "cpu", task=config.task, seq_len=config.seq_len, dtype="float32")


def name_of(reasoner: Reasoner) -> str:
    """A name for files of the model: that of its folder, and of a run also the step."""
    path = reasoner.origin.path.resolve()
    return path.parent.name if path.suffix == ".safetensors" or _is_shipped(path) else f"{path.parent.name}-{path.name}"


def _is_shipped(path: Path) -> bool:
    return path.parents[1] == SHIPPED


def steps_of(config: ExportConfig, reasoner: Reasoner) -> int:
    """ACT steps of a comparison."""
    usual = reasoner.origin.max_steps or reasoner.head.model.config.halt_max_steps
    return config.halt_max_steps or min(usual, _MOST_STEPS)
