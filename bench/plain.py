"""TRM's training step written directly from the formulas, as a reference for the speed and results of models/.

It is eager, casts every weight at every use, transposes in memory, computes stablemax in fp64, and updates one tensor
at a time in the optimizer. It is deliberately a second implementation: it shares only the names of weights and
configuration keys with models/, and no code.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.inner import ReasonerConfig


class PlainTRM:
    """Runs training steps on a copy of the weights of a loss head from `models.factory.make_head`.

    Args:
        weights: the state dict of the loss head.
        config: `model.config` of the loss head.
        dtype: dtype of the recursion.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: ReasonerConfig, dtype: torch.dtype):
        self.config, self.dtype = config, dtype
        own = {name.removeprefix("model.inner."): value.detach().clone() for name, value in weights.items()}
        self.table = own.pop("puzzle_emb.weights", None)
        self.initial = {"z_H": own.pop("H_init"), "z_L": own.pop("L_init")}
        self.weights = {name: value.requires_grad_() for name, value in own.items()}
        self.optimizer = PlainOptimizer(self.weights)
        self.slots: dict[str, Tensor] | None = None

    # -- the network

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"].to(x.dtype))

    def swiglu(self, x: Tensor, name: str) -> Tensor:
        gate, up = self.linear(x, f"{name}.gate_up_proj").chunk(2, -1)
        return self.linear(F.silu(gate) * up, f"{name}.down_proj")

    def norm(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.config.rms_norm_eps)).to(x.dtype)

    def attention(self, x: Tensor, name: str) -> Tensor:
        batch, positions, hidden = x.shape
        heads = self.config.num_heads
        d = hidden // heads
        q, k, v = self.linear(x, f"{name}.qkv_proj").view(batch, positions, 3 * heads, d).transpose(1, 2).chunk(3, 1)
        if self.config.pos_encodings == "rope":
            q, k = self.rotate(q), self.rotate(k)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.linear(y.transpose(1, 2).reshape(batch, positions, hidden), f"{name}.o_proj")

    def rotate(self, x: Tensor) -> Tensor:
        positions, d = x.shape[-2:]
        frequencies = self.config.rope_theta ** (-torch.arange(0, d, 2, device=x.device) / d)
        angles = torch.outer(torch.arange(positions, device=x.device), frequencies).repeat(1, 2)
        x32 = x.float()
        first, second = x32.chunk(2, -1)
        return (x32 * angles.cos() + torch.cat((-second, first), -1) * angles.sin()).to(x.dtype)

    def level(self, h: Tensor) -> Tensor:
        for i in range(self.config.L_layers):
            layer = f"L_level.layers.{i}"
            if self.config.mlp_t:
                transposed = h.transpose(1, 2)
                h = self.norm(transposed + self.swiglu(transposed, f"{layer}.mlp_t")).transpose(1, 2)
            else:
                h = self.norm(h + self.attention(h, f"{layer}.self_attn"))
            h = self.norm(h + self.swiglu(h, f"{layer}.mlp"))
        return h

    def cycle(self, z_H: Tensor, z_L: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(self.config.L_cycles):
            z_L = self.level(z_L + (z_H + x))
        return self.level(z_H + z_L), z_L

    # -- a step

    def train_step(self, batch: dict[str, Tensor], min_steps: Tensor, lr: float, puzzle_lr: float) -> float:
        """Run one ACT step, update the weights, and return the loss per example.

        Args:
            batch: `inputs`, `labels` [rows, seq_len] and `puzzle_identifiers` [rows].
            min_steps: minimum number of ACT steps of each slot [rows].
            lr: learning rate of the dense weights.
            puzzle_lr: learning rate of the puzzle embedding.
        """
        config, rows, prefix = self.config, len(batch["inputs"]), 0
        if self.slots is None:
            self.slots = {"halted": torch.ones(rows, dtype=torch.bool, device=min_steps.device)}
        # halted slots start a new example
        fresh = self.slots["halted"]
        data = {key: _pick(fresh, new, self.slots.get(key)) for key, new in batch.items()}
        steps = _pick(fresh, torch.zeros_like(min_steps), self.slots.get("steps")) + 1
        x = math.sqrt(config.hidden_size) * self.weights["embed_tokens.embedding_weight"].to(self.dtype)[data["inputs"]]
        touched = None
        if self.table is not None:
            touched = self.table[data["puzzle_identifiers"]].requires_grad_()
            prefix = config.puzzle_emb_len or -(-config.puzzle_emb_ndim // config.hidden_size)
            padded = F.pad(touched.to(self.dtype), (0, prefix * config.hidden_size - config.puzzle_emb_ndim))
            x = torch.cat((math.sqrt(config.hidden_size) * padded.view(rows, prefix, -1), x), 1)
        z_H, z_L = (
            _pick(fresh, initial.to(self.dtype).expand(*x.shape), self.slots.get(name))
            for name, initial in self.initial.items()
        )
        with torch.no_grad():
            for _ in range(config.H_cycles - 1):
                z_H, z_L = self.cycle(z_H, z_L, x)
        z_H, z_L = self.cycle(z_H, z_L, x)
        logits = self.linear(z_H, "lm_head")[:, prefix:]
        q_halt = F.linear(
            z_H[:, 0], self.weights["q_head.weight"].to(self.dtype), self.weights["q_head.bias"].to(self.dtype)
        )[:, 0].float()

        labels = data["labels"].long()
        logits64 = logits.double()
        s = torch.where(logits64 < 0, 1 / (1 - logits64), logits64 + 1)
        token_loss = -torch.log(s / s.sum(-1, keepdim=True)).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        right = (logits.argmax(-1) == labels).all(-1)
        halting = F.binary_cross_entropy_with_logits(q_halt, right.float(), reduction="sum")
        loss = token_loss.mean(-1).sum() + 0.5 * halting
        (loss / rows).backward()
        halted = (steps >= config.halt_max_steps) | ((q_halt > 0) & (steps >= min_steps))
        self.slots = {"z_H": z_H.detach(), "z_L": z_L.detach(), "steps": steps, "halted": halted, **data}
        self.optimizer.update(lr)
        if touched is not None and touched.grad is not None and self.table is not None:
            gradient = torch.zeros_like(self.table).index_add_(0, data["puzzle_identifiers"].long(), touched.grad)
            for row in data["puzzle_identifiers"].unique().tolist():
                self.table[row] = self.table[row] * (1 - puzzle_lr * 0.1) - puzzle_lr * gradient[row].sign()
        return float(loss.detach()) / rows


class PlainOptimizer:
    """AdamATan2 and the moving average of the weights, one tensor at a time."""

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights
        self.moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
        self.average = {name: w.detach().clone() for name, w in weights.items()}
        self.steps_made = 0

    @torch.no_grad()
    def update(self, lr: float, betas: tuple[float, float] = (0.9, 0.95), decay: float = 0.1, rate: float = 0.999):
        """Update all weights from their gradients, then clear the gradients."""
        self.steps_made += 1
        for name, weight in self.weights.items():
            assert weight.grad is not None
            m, v = self.moments[name]
            weight.mul_(1 - lr * decay)
            m.copy_(m + (1 - betas[0]) * (weight.grad - m))
            v.copy_(betas[1] * v + (1 - betas[1]) * weight.grad**2)
            denominator = v.sqrt() / math.sqrt(1 - betas[1] ** self.steps_made)
            weight.sub_(lr / (1 - betas[0] ** self.steps_made) * torch.atan2(m, denominator))
            weight.grad = None
            self.average[name] = (1 - rate) * weight + rate * self.average[name]


def _pick(condition: Tensor, new: Tensor, old: Tensor | None) -> Tensor:
    return new if old is None else torch.where(condition.view(-1, *[1] * (new.ndim - 1)), new, old)
