"""The layout in which the C++ operators read weights (common.h)."""

from torch import Tensor

PANEL = 32  # as in common.h; widths must be multiples of it


def panels(b: Tensor) -> Tensor:
    """The second operand of a matrix product, [k, n], packed: bf16 [n / PANEL, k / 2, PANEL, 2], without gradient."""
    k, n = b.shape
    return b.detach().bfloat16().reshape(k // 2, 2, n // PANEL, PANEL).permute(2, 0, 3, 1).contiguous()
