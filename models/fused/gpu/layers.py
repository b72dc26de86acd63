"""SwiGLU whose sublayer `norm(x + swiglu(x))` runs in Triton kernels, in bf16 on CUDA.

It is made from the plain module that it replaces and shares that module's linear layers, so optimizers, averages and
state dicts are not affected.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.fused.gpu import swiglu_positions, swiglu_rows
from models.layers import CastsWeights, SwiGLU

Packed = swiglu_positions.Packed | swiglu_rows.Packed

# multiples that the hidden width and the inner width must be of
HIDDEN, INNER = 64, 256


class GPUSwiGLU(SwiGLU, CastsWeights):
    """`SwiGLU` with a fused sublayer. bf16 [..., width] -> the same, over positions [batch, width, hidden]."""

    def __init__(self, plain: SwiGLU):
        CastsWeights.__init__(self)  # not SwiGLU's, which would create new weights
        self.gate_up_proj, self.down_proj = plain.gate_up_proj, plain.down_proj
        self.over_positions, self.unit = plain.over_positions, plain.unit
        self.train(plain.training)

    @staticmethod
    def unfit(plain: SwiGLU, hidden_size: int) -> str | None:
        """Why the kernels cannot compute `plain` in a model of this hidden size, or None."""
        width, inner = plain.down_proj.weight.shape
        if plain.unit != "swiglu":
            return f"gated_unit {plain.unit} is no SwiGLU"
        if hidden_size % HIDDEN or inner % INNER:
            return f"hidden_size {hidden_size} is no multiple of {HIDDEN}, or the inner width {inner} of {INNER}"
        if plain.over_positions and width > swiglu_positions.MOST_POSITIONS:
            return f"{width} positions are more than {swiglu_positions.MOST_POSITIONS}"
        return None

    def cast_weights(self, dtype: torch.dtype) -> Packed:
        """The weights in `dtype`, in the layout that the kernels read."""
        pack = swiglu_positions.pack if self.over_positions else swiglu_rows.pack
        return pack(self.gate_up_proj.weight, self.down_proj.weight, dtype)

    def sublayer(self, x: Tensor, eps: float) -> Tensor:
        swiglu: Callable[..., Tensor] = swiglu_positions.swiglu if self.over_positions else swiglu_rows.swiglu
        packed = self.held_cast or self.cast_weights(x.dtype)
        return swiglu(x, self.gate_up_proj.weight, self.down_proj.weight, packed, eps)
