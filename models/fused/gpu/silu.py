"""The sigmoid inside the kernels."""

# the language of Triton has types of its own
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl


@triton.jit
def sigmoid(x, APPROXIMATE: tl.constexpr):
    """sigmoid(x) in fp32. `APPROXIMATE`: with one instruction of the GPU, off by at most 2.5e-4."""
    if APPROXIMATE:
        t = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [0.5 * x], dtype=tl.float32, is_pure=True, pack=1
        )
        return 0.5 * t + 0.5
    else:
        return 1 / (1 + tl.exp(-x))
