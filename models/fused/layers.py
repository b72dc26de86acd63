"""Attention and SwiGLU whose sublayer `norm(x + f(x))` is one operator, forward and backward, in bf16 on CPUs.

Each is made from the plain module that it replaces and shares that module's linear layers, so optimizers, averages and
state dicts are not affected.
"""

import torch
from torch import Tensor

from models.fused import attention, swiglu
from models.fused.packing import PANEL
from models.layers import Attention, CastsWeights, SwiGLU
from models.view import View


def fused_layer(layer: Attention | SwiGLU) -> "FusedAttention | FusedSwiGLU | None":
    """`layer` with a fused sublayer, on the same weights. Itself if fused already; None if its widths do not fit."""
    if isinstance(layer, FusedAttention | FusedSwiGLU):
        return layer
    if isinstance(layer, Attention):
        return FusedAttention(layer) if FusedAttention.fits(layer) else None
    return FusedSwiGLU(layer) if FusedSwiGLU.fits(layer) else None


class FusedAttention(Attention, CastsWeights):
    """`Attention` with a fused sublayer. [batch, positions, hidden] -> the same, bf16."""

    def __init__(self, plain: Attention):
        CastsWeights.__init__(self)  # not Attention's, which would create new weights
        self.num_heads, self.head_dim = plain.num_heads, plain.head_dim
        self.qkv_proj, self.o_proj = plain.qkv_proj, plain.o_proj
        self.train(plain.training)

    @staticmethod
    def fits(plain: Attention) -> bool:
        """Whether the operator can compute attention of these widths."""
        return plain.head_dim % PANEL == 0 and plain.o_proj.weight.shape[0] % PANEL == 0

    def cast_weights(self, dtype: torch.dtype) -> attention.Packed:
        """The weights in the layout that the operator reads, in bf16 whatever `dtype` is."""
        return attention.pack(self.qkv_proj.weight, self.o_proj.weight, backward=torch.is_grad_enabled())

    def sublayer(self, x: Tensor, view: View, eps: float) -> Tensor:
        rotation = view.rotation
        if rotation is not None and rotation.sections > 1:  # the operator rotates whole heads
            return super().sublayer(x, view, eps)
        angles = None if rotation is None else (rotation.cos, rotation.sin)
        weights, packed = (self.qkv_proj.weight, self.o_proj.weight), self.held_cast or self.cast_weights(x.dtype)
        return attention.attention(x, *weights, packed, angles, self.num_heads, eps)


class FusedSwiGLU(SwiGLU, CastsWeights):
    """`SwiGLU` with a fused sublayer. bf16 [..., width] -> the same, over positions [batch, width, hidden]."""

    def __init__(self, plain: SwiGLU):
        CastsWeights.__init__(self)  # not SwiGLU's, which would create new weights
        self.gate_up_proj, self.down_proj = plain.gate_up_proj, plain.down_proj
        self.over_positions, self.unit = plain.over_positions, plain.unit
        self.train(plain.training)

    @staticmethod
    def fits(plain: SwiGLU) -> bool:
        """Whether the operator can compute a SwiGLU of these widths (over positions, any number of positions fits)."""
        width, inner = plain.down_proj.weight.shape
        return inner % PANEL == 0 and (plain.over_positions or width % PANEL == 0)

    def cast_weights(self, dtype: torch.dtype) -> swiglu.Packed:
        """The weights in the layout that the operator reads, in bf16 whatever `dtype` is."""
        pack = swiglu.pack_positions if self.over_positions else swiglu.pack_rows
        return pack(self.gate_up_proj.weight, self.down_proj.weight, backward=torch.is_grad_enabled())

    def sublayer(self, x: Tensor, eps: float) -> Tensor:
        compute = swiglu.positions if self.over_positions else swiglu.rows
        packed = self.held_cast or self.cast_weights(x.dtype)
        return compute(x, self.gate_up_proj.weight, self.down_proj.weight, packed, eps)
