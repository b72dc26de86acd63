"""A small model of every file in config/arch, in the loss head that the programs give it, with its batches."""

from typing import Any

from torch import Tensor

from models.factory import complete_arch, make_head, model_class
from models.losses import ACTLossHead
from models.training import TrainState
from tests.models import small, small_lattice, small_text
from utils.distributed import Ranks
from utils.hydra import CONFIG_DIR, compose
from utils.settings import ArchConfig

# other values of the keys of eqr and se_rrm, which are alike at these sizes
_ALIKE = {"eqr_maze", "se_rrm_sudoku"}
ARCHITECTURES = sorted({file.stem for file in (CONFIG_DIR / "arch").glob("*.yaml")} - _ALIKE)
TEXT = [name for name in ARCHITECTURES if name.startswith("text_")]
PUZZLES = [name for name in ARCHITECTURES if name not in TEXT]
WITH_ROWS = 4  # of a batch
SETTINGS: dict[str, Any] = {
    "global_batch_size": WITH_ROWS,
    "grad_accum_steps": 2,
    "grad_clip_norm": 1.0,
    "seed": 3,
    "lr": 1e-3,
    "lr_min_ratio": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "ema": True,
    "ema_rate": 0.9,
    "puzzle_emb_lr": 1e-2,
    "puzzle_emb_weight_decay": 0.1,
}
_SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "H_cycles": 2, "L_cycles": 1, "halt_max_steps": 3,
    "halt_exploration_prob": 0.5, "forward_dtype": "float32", "puzzle_emb_ndim": 16, "puzzle_emb_len": 2,
    "n_loops": 2, "dropout": 0.0, "inner_size": 24, "num_experts": 5, "expert_size": 8, "num_attention_experts": 3,
}  # fmt: skip
_NO_TABLE: dict[str, Any] = {"puzzle_emb_ndim": 0, "puzzle_emb_len": 0}
# beginning of a name -> the sizes that it needs
_FIXED: dict[str, dict[str, Any]] = {
    "text_flat": {"halt_max_steps": 1},
    "trm_l4": {"L_cycles": 2},
    "text_moeut": {"H_cycles": 1},
    "eqr": {**_NO_TABLE, "noise_in_evaluation": False},
    "fprm": {**_NO_TABLE, "board_height": 2, "board_width": 3},
    "se_rrm_arc": {"board_height": 2, "board_width": 3, "puzzle_emb_ndim": 1, "puzzle_emb_len": 0},
    "se_rrm": {"board_height": 2, "board_width": 3, **_NO_TABLE},
}


def arch_of(name: str, **changes: Any) -> ArchConfig:
    """The file in config/arch in a small size, with all keys."""
    text = name in TEXT
    given = compose("cfg_text" if text else "cfg_pretrain", [f"arch={name}"]).arch
    keys = model_class(given).inner_class.config_class.model_fields
    fixed = next((sizes for start, sizes in _FIXED.items() if name.startswith(start)), {})
    small_sizes = {key: value for key, value in (_SIZES | fixed | changes).items() if key in keys}
    arch = ArchConfig(name=given.name, loss=given.loss, **(given.own_keys | small_sizes))
    return complete_arch(arch, "text" if text else "puzzles")


def head_of(name: str, **changes: Any) -> ACTLossHead:
    """The model in training mode, the same at each call, on the CPU; of its slots, some want to halt early."""
    arch = arch_of(name, **changes)
    if name in TEXT:
        sizes = small_text.CONFIG
        return make_head(arch, sizes["vocab_size"], sizes["seq_len"], data="text")
    if name == "ldt":
        return make_head(arch, small_lattice.SMALL.vocab_size, small_lattice.SMALL.cells)
    sizes = small.CONFIG
    head = make_head(arch, sizes["vocab_size"], sizes["seq_len"], sizes["num_puzzle_identifiers"])
    if not name.startswith("se_rrm"):  # whose halting head is another
        small.spread_q(head.model)
    return head


def batch_of(name: str, seed: int) -> dict[str, Tensor]:
    """Random examples, on the CPU."""
    if name in TEXT:
        return small_text.small_text(WITH_ROWS, seed)
    return (small_lattice if name == "ldt" else small).small_batch(WITH_ROWS, seed)


def state_of(head: ACTLossHead, **settings: Any) -> TrainState:
    """A training state with gradient accumulation, clipping, averages, and the sparse optimizer if it has a use."""
    return small.train_state(head, SETTINGS | settings, Ranks(), total_steps=8)
