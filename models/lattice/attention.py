"""The attention of the LDT, by the kind of its positions: tables outside of it, rotations, or relations of cells."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import attend
from models.lattice.board import Board


class PackedAttention(nn.Module):
    """Multi-head self-attention whose query, key and value projections are one matrix."""

    def __init__(self, hidden: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * hidden, hidden)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.out_proj = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, dropout: float) -> Tensor:
        qkv = F.linear(x, self.in_proj_weight.to(x.dtype), self.in_proj_bias.to(x.dtype))
        q, k, v = (_split_heads(part, self.num_heads) for part in qkv.chunk(3, dim=-1))
        return linear(self.out_proj, _join_heads(self.attend(q, k, v, dropout)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """[batch, heads, positions, width] each -> the same."""
        return _attend(q, k, v, dropout)


class RelationAttention(PackedAttention):
    """The same with a learned bias for each head and kind of relation between two positions, added to the logits.

    A pair of cells may have several relations, such as a common row and a common box; their biases add up. (The idea
    is that of github.com/ad3002/colt.)

    Args:
        hidden, num_heads: sizes.
        relations: fp32 [kinds, positions, positions], 1 where a relation holds; see `relations_of`.
    """

    relations: Tensor

    def __init__(self, hidden: int, num_heads: int, relations: Tensor):
        super().__init__(hidden, num_heads)
        self.relation_bias = nn.Parameter(torch.randn(num_heads, len(relations)))
        self.register_buffer("relations", relations, persistent=False)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        bias = (self.relation_bias @ self.relations.flatten(1)).view(1, -1, *self.relations.shape[1:])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)


def relations_of(board: Board) -> Tensor:
    """Which relations hold between the positions, the cells and then CLS: fp32 [kinds, positions, positions].

    The kinds are: the cell itself, one of the two is CLS, no common unit, and for each kind of unit a common one.
    """
    positions = board.cells + 1
    itself = torch.eye(positions)
    cls = torch.zeros(positions, positions)
    cls[-1] = cls[:, -1] = 1
    shared = torch.zeros(len(board.units), positions, positions)
    for kind, units in zip(shared, board.units.values(), strict=True):
        for unit in units:
            cells = torch.tensor(unit, device=kind.device)
            kind[cells[:, None], cells] = 1
    shared = shared * (1 - itself)
    none = 1 - torch.cat((torch.stack((itself, cls)), shared)).amax(0)
    return torch.cat((torch.stack((itself, cls, none)), shared))


class RotaryAttention(nn.Module):
    """Multi-head self-attention with two-dimensional rotary positions; the CLS position is not rotated.

    The first half of each head is rotated by the row, the second by the column, in pairs of neighbouring channels
    (2i, 2i + 1) at the frequencies theta^(-2i / half).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, hidden: int, num_heads: int, rows: int, columns: int, theta: float):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(hidden, hidden) for _ in range(4))
        half = hidden // num_heads // 2
        frequencies = theta ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)
        row, column = torch.arange(rows, dtype=torch.float32), torch.arange(columns, dtype=torch.float32)
        places = torch.stack((row.repeat_interleave(columns), column.repeat(rows)), dim=1)  # [cells, 2]
        angles = (places[:, :, None] * frequencies).flatten(1)  # [cells, half], one angle for each pair
        angles = torch.cat((angles, torch.zeros(1, half)))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate [batch, heads, positions, width] in fp32, and cast back."""
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((even * self.cos - odd * self.sin, even * self.sin + odd * self.cos), dim=-1)
        return turned.flatten(-2).to(x.dtype)

    def forward(self, x: Tensor, dropout: float) -> Tensor:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (_split_heads(linear(projection, x), self.num_heads) for projection in projections)
        return linear(self.out_proj, _join_heads(_attend(self.rotate(q), self.rotate(k), v, dropout)))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)` in the dtype of x."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(-2)


def _attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout) if dropout else attend(q, k, v)
