"""Triton kernels of the SwiGLU over positions. Tensor descriptors pad with zeros what lies outside a tensor."""

# the language of Triton has types of its own
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl

from models.fused.gpu.pairs import alternate, halves
from models.fused.gpu.silu import sigmoid


@triton.jit
def forward(
    x_desc, gate_up_desc, down_desc, y_desc, factors, eps,
    POSITIONS: tl.constexpr, HIDDEN: tl.constexpr, INNER: tl.constexpr, PADDED: tl.constexpr,
    COLUMNS: tl.constexpr, CHUNK: tl.constexpr, APPROXIMATE: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """y = norm(x + down @ (silu(gate @ x) * (up @ x))) for one example and COLUMNS of its channels.

    Everything is computed transposed, [channels, positions], so that one product feeds the next from registers.
    """
    tiles: tl.constexpr = HIDDEN // COLUMNS
    example = tl.program_id(0) // tiles
    column = tl.program_id(0) % tiles * COLUMNS
    xt = x_desc.load([example, 0, column]).reshape(PADDED, COLUMNS).T
    total = tl.zeros([COLUMNS, PADDED], tl.float32)
    for inner in range(0, INNER, CHUNK):
        gate, up = halves(tl.dot(xt, gate_up_desc.load([2 * inner, 0]).T), COLUMNS, CHUNK)
        h = (gate * sigmoid(gate, APPROXIMATE) * up).to(y_desc.dtype)
        total = tl.dot(h, down_desc.load([inner, 0]), total)
    total += x_desc.load([example, 0, column]).reshape(PADDED, COLUMNS).T.to(tl.float32)
    factor = tl.rsqrt(tl.sum(total * total, 1) / POSITIONS + eps)
    y = (total * factor[:, None]).to(y_desc.dtype)
    y_desc.store([example, 0, column], y.T.reshape(1, PADDED, COLUMNS))
    if KEEP:
        tl.store(factors + example * HIDDEN + column + tl.arange(0, COLUMNS), factor)


@triton.jit
def norm_backward(
    dy_at, y_at, d_sum_at, factors,
    POSITIONS: tl.constexpr, HIDDEN: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of the sum before the norm, from those of y = sum * factor.

    It has a kernel of its own because the compiler would fuse it with what computes dy, and read that twice.
    """
    tiles: tl.constexpr = HIDDEN // COLUMNS
    example = tl.program_id(0) // tiles
    channels = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    positions = tl.arange(0, PADDED)[:, None]
    at = (example.to(tl.int64) * POSITIONS + positions) * HIDDEN + channels[None, :]
    there = positions < POSITIONS
    dy = tl.load(dy_at + at, there, 0).to(tl.float32)
    y = tl.load(y_at + at, there, 0).to(tl.float32)
    factor = tl.load(factors + example * HIDDEN + channels)
    mean = tl.sum(dy * y, 0) / POSITIONS
    tl.store(d_sum_at + at, (dy - y * mean[None, :]) * factor[None, :], there)


@triton.jit
def backward(
    d_sum_desc, x_desc, gate_up_desc, down_desc, dx_desc, h_desc, pair_desc,
    HIDDEN: tl.constexpr, INNER: tl.constexpr, PADDED: tl.constexpr,
    COLUMNS: tl.constexpr, CHUNK: tl.constexpr, APPROXIMATE: tl.constexpr,
):  # fmt: skip
    """The gradient of x, from that of the sum before the norm; and for the weights h and the gradients of gate and up.

    gate and up are computed again. For each channel a row of `inner` receives the gradients of gate and up in the order
    of the packed weights, and then h; `pair_desc` and `h_desc` describe tiles of it.
    """
    tiles: tl.constexpr = HIDDEN // COLUMNS
    example = tl.program_id(0) // tiles
    column = tl.program_id(0) % tiles * COLUMNS
    row = example * HIDDEN + column
    xt = x_desc.load([example, 0, column]).reshape(PADDED, COLUMNS).T
    d_sum = d_sum_desc.load([example, 0, column]).reshape(PADDED, COLUMNS).T
    dx = tl.zeros([COLUMNS, PADDED], tl.float32)
    for inner in range(0, INNER, CHUNK):
        w_gate_up = gate_up_desc.load([2 * inner, 0])
        gate, up = halves(tl.dot(xt, w_gate_up.T), COLUMNS, CHUNK)
        dh = tl.dot(d_sum, down_desc.load([inner, 0]).T)
        s = sigmoid(gate, APPROXIMATE)
        swish = gate * s
        h_desc.store([row, 2 * INNER + inner], (swish * up).to(h_desc.dtype))
        d_gate_up = alternate(dh * up * (s + swish * (1 - s)), dh * swish, COLUMNS, CHUNK).to(h_desc.dtype)
        pair_desc.store([row, 2 * inner], d_gate_up)
        dx = tl.dot(d_gate_up, w_gate_up, dx)
    dx += d_sum_desc.load([example, 0, column]).reshape(PADDED, COLUMNS).T.to(tl.float32)
    dx_desc.store([example, 0, column], dx.to(h_desc.dtype).T.reshape(1, PADDED, COLUMNS))


@triton.jit
def weight_gradient(
    inner_desc, z_desc, sums, first, count, steps_each, rows,
    HIDDEN: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The sum over examples and channels of inner [channels, :] times z [positions, channels], in parts.

    Program (i, part) writes sums[part, i * ROWS : (i + 1) * ROWS], fp32 [parts, count, PADDED], from the columns
    `first` + i * ROWS of inner.
    """
    tile, part = tl.program_id(0), tl.program_id(1)
    total = tl.zeros([ROWS, PADDED], tl.float32)
    for row in range(part * steps_each * DEPTH, tl.minimum((part + 1) * steps_each * DEPTH, rows), DEPTH):
        a = inner_desc.load([row, first + tile * ROWS]).T
        z = z_desc.load([row // HIDDEN, 0, row % HIDDEN]).reshape(PADDED, DEPTH).T
        total = tl.dot(a, z, total)
    at = (part * count + tile * ROWS + tl.arange(0, ROWS))[:, None] * PADDED + tl.arange(0, PADDED)[None, :]
    tl.store(sums + at, total)
