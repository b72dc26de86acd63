"""Triton kernels of the SwiGLU over channels. Tensor descriptors pad with zeros what lies outside a tensor."""

# the language of Triton has types of its own
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl

from models.fused.gpu.pairs import alternate, halves
from models.fused.gpu.silu import sigmoid


@triton.jit
def forward(
    x_desc, gate_up_desc, h_desc, kept_desc, rows,
    WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    APPROXIMATE: tl.constexpr, KEEP: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """h = silu(gate(x)) * up(x). `KEEP`: also store gate and up, in the order of the packed weights."""
    across: tl.constexpr = INNER // COLUMNS
    tiles = tl.cdiv(rows, ROWS) * across
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        row = tile // across * ROWS
        column = tile % across * COLUMNS
        pair = tl.zeros([ROWS, 2 * COLUMNS], tl.float32)
        for k in range(0, WIDTH, DEPTH):
            pair = tl.dot(x_desc.load([row, k]), gate_up_desc.load([2 * column, k]).T, pair)
        if KEEP:
            left, right = tl.split(pair.reshape(ROWS, 2, COLUMNS).permute(0, 2, 1))
            kept_desc.store([row, 2 * column], left.to(h_desc.dtype))
            kept_desc.store([row, 2 * column + COLUMNS], right.to(h_desc.dtype))
        gate, up = halves(pair, ROWS, COLUMNS)
        h_desc.store([row, column], (gate * sigmoid(gate, APPROXIMATE) * up).to(h_desc.dtype))


@triton.jit
def backward(
    d_sum_desc, down_desc, kept_desc, d_gate_up_desc, rows,
    WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    APPROXIMATE: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """The gradients of gate and up, from that of the product of h and down and the kept gate and up."""
    across: tl.constexpr = INNER // COLUMNS
    tiles = tl.cdiv(rows, ROWS) * across
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        row = tile // across * ROWS
        column = tile % across * COLUMNS
        dh = tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in range(0, WIDTH, DEPTH):
            dh = tl.dot(d_sum_desc.load([row, k]), down_desc.load([k, column]), dh)
        gate, up = halves(kept_desc.load([row, 2 * column]).to(tl.float32), ROWS, COLUMNS)
        s = sigmoid(gate, APPROXIMATE)
        swish = gate * s
        pair = alternate(dh * up * (s + swish * (1 - s)), dh * swish, ROWS, COLUMNS)
        d_gate_up_desc.store([row, 2 * column], pair.to(kept_desc.dtype))
