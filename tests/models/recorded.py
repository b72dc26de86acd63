"""Recorded fp32 runs of published code: where they are, and how results are compared with them.

They lie in shared/oracles, or in the folder that the environment variable RECORDED_RUNS names. The name of a file
begins with the kind of the run, such as `trm_att`; what follows, such as `trm_att_seed2`, tells several apart.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.paths import SHARED

FOLDER = Path(os.environ.get("RECORDED_RUNS", SHARED / "oracles"))
ACT_KINDS = {
    "trm_att": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_learned_pos": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_no_puzzle_emb": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_one_step": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_att_pad_puzzle_emb": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_mlp_t": "trm@TinyRecursiveReasoningModel_ACTV1",
    "trm_singlez": "trm_singlez@TinyRecursiveReasoningModel_ACTV1",
    "trm_hier6": "trm_hier6@TinyRecursiveReasoningModel_ACTV1",
    "hrm": "hrm@HierarchicalReasoningModel_ACTV1",
    "transformers_baseline": "transformers_baseline@Model_ACTV2",
    "urm": "urm@URM",
    "urm_muon": "urm@URM",
    "eqr_att": "eqr@EqRModel",
    "eqr_rope2d": "eqr@EqRModel",
    "eqr_mlp_t": "eqr@EqRModel",
    "fprm_sudoku": "fprm@FixedPointReasoningModel_ACTV1",
    "fprm_maze": "fprm@FixedPointReasoningModel_ACTV1",
    "serrm": "se_rrm@SERRM",
    "serrm_plain": "se_rrm@SERRM",
}
OTHER_KINDS = ("ldt", "ldt_rope_k2", "muon")


def kind_of(path: Path) -> str | None:
    """The kind of a recorded run; None: the file is no recorded run."""
    kinds = [*ACT_KINDS, *OTHER_KINDS]
    return max((kind for kind in kinds if f"{path.stem}_".startswith(f"{kind}_")), key=len, default=None)


def runs(*kinds: str) -> list[Path]:
    """The recorded runs of these kinds.

    Raises:
        FileNotFoundError: RECORDED_RUNS names a folder without any recorded run.
    """
    found = sorted(FOLDER.rglob("*.npz"))
    if "RECORDED_RUNS" in os.environ and not any(kind_of(path) for path in found):
        raise FileNotFoundError(f"RECORDED_RUNS={FOLDER}: there is no recorded run in this folder")
    return [path for path in found if kind_of(path) in kinds]


def for_each_run(*kinds: str) -> pytest.MarkDecorator:
    """Calls a test with each recorded run of these kinds as `run`; it is skipped if there is none."""
    return pytest.mark.parametrize("run", runs(*kinds), ids=lambda path: path.stem)


class Recording:
    """A recorded run; `check` compares an array with it and remembers that it was compared.

    Attributes:
        worst: the largest relative deviation found so far, and the key where it was found.
    """

    def __init__(self, path: Path, tolerance: float):
        self.kind = kind_of(path) or path.stem
        self.arrays = dict(np.load(path))
        self.config = json.loads(str(self.arrays.pop("config")))
        self.tolerance = tolerance
        self.worst = (0.0, "")
        given = ("/batch/", "/draw/")
        self.unchecked = {
            key for key in self.arrays if not key.startswith("init/") and not any(part in key for part in given)
        }

    def under(self, prefix: str, device: str = "cpu") -> dict[str, Tensor]:
        """The arrays whose keys begin with `prefix`, by the rest of the key."""
        return {
            key.removeprefix(prefix): torch.tensor(value, device=device)
            for key, value in self.arrays.items()
            if key.startswith(prefix)
        }

    def check(self, key: str, mine: Tensor) -> None:
        """Compare with an array that must have been recorded."""
        recorded, found = self.arrays[key], mine.detach().cpu().numpy()
        assert found.shape == recorded.shape, key
        if recorded.dtype.kind in "biu":
            np.testing.assert_array_equal(found, recorded, err_msg=key)
        else:
            finite = np.isfinite(recorded)
            np.testing.assert_array_equal(found[~finite], recorded[~finite], err_msg=key)
            scale = max(float(np.abs(recorded[finite]).max(initial=0.0)), 1e-30)
            error = float(np.abs(found[finite].astype(np.float64) - recorded[finite]).max(initial=0.0)) / scale
            assert error <= self.tolerance, f"{key}: relative error {error:.2e}"
            self.worst = max(self.worst, (error, key))
        self.unchecked.discard(key)

    def check_known(self, key: str, mine: Tensor) -> None:
        """Compare with an array if it was recorded."""
        if key in self.arrays:
            self.check(key, mine)

    def lr(self, name: str, step: int) -> float:
        """The learning rate `lr` or `puzzle_emb_lr` of a step; runs that record none have a constant one."""
        self.unchecked.discard(f"step{step}/{name}")
        return float(self.arrays.get(f"step{step}/{name}", self.config[name]))
