"""Small models that are exported in seconds, and what they answer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators.loading import load
from evaluators.reasoner import Reasoner
from tests.evaluators.small_reasoners import write_run

# the shortest step: a cycle of two calls of a level of one layer
SHORT: dict[str, Any] = {"H_cycles": 1, "L_cycles": 1, "L_layers": 1}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "trm": {},
    "trm_mlp": {"mlp_t": True, "pos_encodings": "none"},
    "trm_learned": {"pos_encodings": "learned", "H_cycles": 2, "L_cycles": 2},
    "trm_singlez": {"name": "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1"},
    "trm_hier6": {"name": "recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1"},
    "hrm": {"name": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1", "H_layers": 1},
    "transformers_baseline": {"name": "recursive_reasoning.transformers_baseline@Model_ACTV2", "H_layers": 1},
    "urm": {"name": "recursive_reasoning.urm@URM"},
    "trm_wta": {"name": "recursive_reasoning.trm_wta@WinnerTakesAllModel", "num_chains": 3, "eval_chains": 2},
    "ldt": {
        "name": "recursive_reasoning.ldt@LatticeDeductionTransformer",
        "loss": {"name": "lattice.loss_head@LatticeLossHead", "loss_type": "softmax_cross_entropy"},
        "n_loops": 3,
        "pos_encodings": "learned",
    },
}


def small_reasoner(folder: Path, architecture: str, task: str = "sudoku", rows: int = 1) -> Reasoner:
    """An untrained model of an architecture, from a run in a new folder."""
    return load(write_run(folder, task, rows, **{**SHORT, **ARCHITECTURES[architecture]}), "cpu", dtype="float32")


def answers_of(reasoner: Reasoner, inputs: np.ndarray, steps: int, ids: np.ndarray | None = None) -> np.ndarray:
    """The logits of all steps, [steps, n, seq, vocab], as the model itself computes them."""
    ids = np.zeros(len(inputs), np.int64) if ids is None else ids
    data = {"inputs": torch.from_numpy(inputs), "puzzle_identifiers": torch.from_numpy(ids)}
    with torch.inference_mode():
        found = [outputs["logits"] for _, outputs in reasoner.head.model.answer_steps(data, steps)]
    return torch.stack(found).float().numpy()
