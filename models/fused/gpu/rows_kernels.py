"""Triton kernels of the SwiGLU over channels. Tensor descriptors pad with zeros what lies outside a tensor."""

import triton
import triton.language as tl

from models.fused.gpu.silu import sigmoid


@triton.jit
def forward(
    x_desc, gate_up_desc, h_desc, kept_desc, rows,
    WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    APPROXIMATE: tl.constexpr, KEEP: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """h = silu(gate(x)) * up(x). `KEEP`: also store [gate | up]."""
    across: tl.constexpr = INNER // COLUMNS
    tiles = tl.cdiv(rows, ROWS) * across
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        row = tile // across * ROWS
        column = tile % across * COLUMNS
        gate = tl.zeros([ROWS, COLUMNS], tl.float32)
        up = tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in range(0, WIDTH, DEPTH):
            x = x_desc.load([row, k])
            gate = tl.dot(x, gate_up_desc.load([column, k]).T, gate)
            up = tl.dot(x, gate_up_desc.load([INNER + column, k]).T, up)
        h_desc.store([row, column], (gate * sigmoid(gate, APPROXIMATE) * up).to(h_desc.dtype))
        if KEEP:
            kept_desc.store([row, column], gate.to(h_desc.dtype))
            kept_desc.store([row, INNER + column], up.to(h_desc.dtype))


@triton.jit
def backward(
    d_sum_desc, down_desc, kept_desc, d_gate_up_desc, rows,
    WIDTH: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    APPROXIMATE: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """The gradients of [gate | up] from that of the product of h and down, and the kept [gate | up]."""
    across: tl.constexpr = INNER // COLUMNS
    tiles = tl.cdiv(rows, ROWS) * across
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        row = tile // across * ROWS
        column = tile % across * COLUMNS
        dh = tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in range(0, WIDTH, DEPTH):
            dh = tl.dot(d_sum_desc.load([row, k]), down_desc.load([k, column]), dh)
        gate = kept_desc.load([row, column]).to(tl.float32)
        up = kept_desc.load([row, INNER + column]).to(tl.float32)
        s = sigmoid(gate, APPROXIMATE)
        swish = gate * s
        d_gate_up_desc.store([row, column], (dh * up * (s + swish * (1 - s))).to(kept_desc.dtype))
        d_gate_up_desc.store([row, INNER + column], (dh * swish).to(kept_desc.dtype))
