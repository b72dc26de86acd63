"""Small models that are exported in seconds, and what they answer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.tasks import load_task
from evaluators.reasoner import Origin, Reasoner
from models.factory import make_head
from tests.evaluators.small_reasoners import ARCH, SIZES
from utils.settings import ArchConfig

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
        "puzzle_emb_ndim": None,  # no key of this architecture
    },
}


def small_reasoner(architecture: str, rows: int = 1) -> Reasoner:
    """An untrained model for 4x4 Sudokus; with several `rows` it has an embedding for each puzzle."""
    keys = {**ARCH, **SHORT, "puzzle_emb_ndim": 16 if rows > 1 else 0, **ARCHITECTURES[architecture]}
    arch = ArchConfig(**{key: value for key, value in keys.items() if value is not None})
    task = load_task("sudoku").of(*SIZES["sudoku"])
    torch.manual_seed(0)
    head = make_head(arch, task.vocab_size, task.seq_len, rows).requires_grad_(False).eval()
    for name, value in head.state_dict().items():
        if "q_head" in name or "puzzle_emb" in name:
            value.copy_(torch.randn_like(value))
    return Reasoner(head, task, Origin(arch, {}, None, None, Path(architecture)))


def answers_of(reasoner: Reasoner, inputs: np.ndarray, steps: int, ids: np.ndarray | None = None) -> np.ndarray:
    """The logits of all steps, [steps, n, seq, vocab], as the model itself computes them."""
    ids = np.zeros(len(inputs), np.int64) if ids is None else ids
    data = {"inputs": torch.from_numpy(inputs), "puzzle_identifiers": torch.from_numpy(ids)}
    with torch.inference_mode():
        found = [outputs["logits"] for _, outputs in reasoner.head.model.answer_steps(data, steps)]
    return torch.stack(found).float().numpy()
