"""Muon: momentum whose update has orthogonal rows or columns, for matrices; AdamW for all other parameters.

`Muon` is that of the published URM, for every matrix. `HiddenMuon` is PyTorch's, for the matrices in the blocks alone.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

MOMENTUM = 0.95
UPDATE_RMS = 0.2  # root mean square of the update of a matrix, as that of AdamW is about
ITERATIONS = 5
EPS = 1e-8
LR_RATIO = "lr_ratio"  # key of a parameter group: its learning rate divided by that of the run
# coefficients (a, b, c) of the iterations of `orthogonal`; the last are used again if there are more
_COEFFICIENTS = (
    (7.2086, -15.5131, 9.0178),
    (3.9623, -2.5813, 0.4542),
    (3.9466, -2.5765, 0.4544),
    (3.8991, -2.5671, 0.4566),
    (3.7186, -2.5308, 0.4653),
    (3.1390, -2.3073, 0.4733),
    (2.1715, -1.5246, 0.3885),
    (1.8648, -1.2224, 0.3577),
)


def orthogonal(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, approximately. fp32 [rows, columns] -> the same.

    With X = matrix / its Frobenius norm, each iteration is `A = X X^T; X = a X + (b A + c A^2) X`, which drives all
    singular values towards 1.
    """
    x = matrix / matrix.norm().clamp_min(1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    for number in range(iterations):
        a, b, c = _COEFFICIENTS[min(number, len(_COEFFICIENTS) - 1)]
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Muon for parameters with two dimensions, AdamW for the others, as the published URM uses them.

    A matrix, with B its momentum (Nesterov):

        B  = 0.95 * B + g
        p *= 1 - lr * weight_decay
        p -= lr * 0.2 * sqrt(max(rows, columns)) * orthogonal(g + 0.95 * B)

    where g + 0.95 * B is rounded to bf16 first. Any other parameter, after t steps:

        m  = beta1 * m + (1 - beta1) * g
        v  = beta2 * v + (1 - beta2) * g^2
        p *= 1 - lr * weight_decay
        p -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + 1e-8)

    Args:
        params: the parameters.
        lr: learning rate of both.
        betas: decay of the averages of AdamW.
        weight_decay: decoupled weight decay of both.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient.

        Raises:
            ValueError: a closure is given; it is not supported.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    update = self._of_matrix if p.ndim == 2 else self._of_other
                    update(p, p.grad, self.state[p], group)

    def _of_matrix(self, p: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        momentum = state["momentum_buffer"].mul_(MOMENTUM).add_(gradient)
        direction = gradient.add(momentum, alpha=MOMENTUM).bfloat16().float()
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(orthogonal(direction), alpha=group["lr"] * UPDATE_RMS * math.sqrt(max(p.shape)))

    def _of_other(self, p: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        beta1, beta2 = group["betas"]
        state["step"] += 1
        m = state["exp_avg"].lerp_(gradient, 1 - beta1)
        v = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
        correction = math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.addcdiv_(m, v.sqrt().add_(EPS), value=-group["lr"] * correction)


class HiddenMuon(Optimizer):
    """`torch.optim.Muon` for the matrices of hidden layers and `torch.optim.AdamW` for all else, as one optimizer.

    A hidden matrix [rows, columns], with B its momentum (Nesterov) and NS five Newton-Schulz iterations in bf16, which
    bring all singular values near 1:

        B  = 0.95 * B + 0.05 * g
        p *= 1 - lr * weight_decay
        p -= lr * sqrt(max(1, rows / columns)) * NS(0.05 * g + 0.95 * B)

    (Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024.) Embeddings, heads, biases and filters are
    left to AdamW, whose learning rate has to be much smaller: its update has a size of 1 a number, and that of Muon
    about 1 / sqrt(columns).

    Args:
        hidden: matrices.
        others: all other parameters, as parameters or as parameter groups.
        lr: learning rate of Muon.
        betas: decay of the averages of AdamW.
        weight_decay: decoupled weight decay of both.
        adamw_lr_ratio: learning rate of AdamW divided by `lr`; also under `LR_RATIO` in its parameter groups, so that
            whoever changes the rates keeps it.
    """

    def __init__(
        self,
        hidden: Iterable[nn.Parameter],
        others: Any,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        adamw_lr_ratio: float,
    ):
        self.muon = torch.optim.Muon(hidden, lr, weight_decay, MOMENTUM)
        rate = lr * adamw_lr_ratio
        self.adamw = torch.optim.AdamW(others, rate, betas, weight_decay=weight_decay) if others else None
        groups = self.muon.param_groups + (self.adamw.param_groups if self.adamw is not None else [])
        super().__init__([*groups[:1], *({**group, LR_RATIO: adamw_lr_ratio} for group in groups[1:])], {})
        self._share()

    def _share(self) -> None:
        """Let both parts work on the groups and on the state of this optimizer."""
        self.muon.__setstate__({"state": self.state, "param_groups": self.param_groups[:1]})
        if self.adamw is not None:
            self.adamw.__setstate__({"state": self.state, "param_groups": self.param_groups[1:]})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient.

        Raises:
            ValueError: a closure is given; it is not supported.
        """
        if closure is not None:
            raise ValueError("HiddenMuon takes no closure")
        self.muon.step()
        if self.adamw is not None:
            self.adamw.step()
