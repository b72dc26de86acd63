"""AdamATan2, the choice of the dense optimizer by name, and the learning-rate schedule."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from utils.errors import UserError
from utils.machine import COMPILE_OPTIONS
from utils.muon import HiddenMuon, Muon

OptimizerName = Literal["adam_atan2", "adam_atan2_cuda", "adamw", "muon", "muon_hidden"]


# atan(t) = t + t^3 * polynomial(t^2) for t in [0, 1], error below 1e-7 (fitted by reweighted least squares)
_ATAN = (-0.00435524729, 0.0230395634, -0.0577727708, 0.0979417588, -0.139765603, 0.199627001, -0.333316588)


def atan2_above(y: Tensor, x: Tensor) -> Tensor:
    """atan2(y, x) for x >= 0 in fp32, elementwise, with an error below 3e-7; atan2(0, 0) is 0.

    It uses only operations that vectorise everywhere: torch's own atan2 takes two thirds of the time of a compiled
    update on the CPU.
    """
    size = y.abs()
    t = torch.minimum(size, x) / torch.maximum(size, x).clamp_min(1e-37)
    t2 = t * t
    polynomial = _ATAN[0]
    for coefficient in _ATAN[1:]:
        polynomial = polynomial * t2 + coefficient
    angle = t + t * t2 * polynomial
    angle = torch.where(size > x, math.pi / 2 - angle, angle)
    return torch.where(y < 0, -angle, angle)


def _update_at_once(
    p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, average: Tensor | None,
    keep: float, rate: float, correction: float, beta1: float, beta2: float, ema_rate: float,
) -> None:  # fmt: skip
    """The update of `AdamATan2` and of an EMA on flat fp32 tensors; compiled, it reads and writes each value once."""
    p.mul_(keep)
    m.lerp_(gradient, 1 - beta1)
    v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    p.sub_(rate * atan2_above(m, v.sqrt() * correction))
    if average is not None:
        average.mul_(ema_rate).add_((1 - ema_rate) * p)


def for_each(update: Callable[..., None]) -> Callable[..., None]:
    """From an update with the arguments of `_update_at_once`, one that takes a list in place of each tensor."""

    def update_all(*arguments: Any) -> None:
        tensors, scalars = arguments[:5], arguments[5:]
        for each in zip(*tensors, strict=True):
            update(*each, *scalars)

    return update_all


class AdamATan2(Optimizer):
    """Adam with atan2 instead of the division, hence no epsilon (arXiv 2407.05872), as in the package adam-atan2 0.0.3.

        p *= 1 - lr * weight_decay
        m  = m + (1 - beta1) * (g - m)
        v  = beta2 * v + (1 - beta2) * g^2
        p -= lr / (1 - beta1^t) * atan2(m, sqrt(v) / sqrt(1 - beta2^t))

    Note the places of the two bias corrections: packages with similar names put them elsewhere. lr = 0 is allowed.

    Args:
        params: the parameters, or parameter groups.
        lr: learning rate.
        betas: decay of the averages of gradients and of squared gradients.
        weight_decay: decoupled weight decay.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ):
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"lr={lr}, weight_decay={weight_decay}, betas={betas}: lr and weight_decay must be >= 0, "
                "betas in [0, 1)"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self._one_pass: Callable[..., None] | None = None
        self._averages: dict[Tensor, Tensor] = {}
        self._ema_rate = 0.0

    def update_in_one_pass(
        self,
        averages: dict[Tensor, Tensor] | None = None,
        ema_rate: float = 0.0,
        update: Callable[..., None] | None = None,
    ) -> None:
        """From now on, update each parameter in one fused pass, together with its average if `averages` has one.

        Args:
            averages: parameter -> its exponential moving average, fp32, updated in place after each step.
            ema_rate: decay of the averages (see `models.ema.EMA`).
            update: function for the pass, with the arguments of `_update_at_once`, but a list in place of each tensor;
                None: that function, compiled.
        """
        self._one_pass = update or for_each(torch.compile(_update_at_once, dynamic=True, options=COMPILE_OPTIONS))
        self._averages, self._ema_rate = averages or {}, ema_rate

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient.

        Raises:
            ValueError: a closure is given; it is not supported.
        """
        if closure is not None:
            raise ValueError("AdamATan2 takes no closure")
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter] = {
                        "step": 0,
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
                self.state[parameter]["step"] += 1
            for idle in (p for p in group["params"] if p.grad is None and p in self._averages):
                self._averages[idle].mul_(self._ema_rate).add_(idle, alpha=1 - self._ema_rate)
            # parameters with the same number of steps are updated together
            for step in sorted({self.state[p]["step"] for p in parameters}):
                self._update([p for p in parameters if self.state[p]["step"] == step], step, group)

    def _update(self, parameters: list[Tensor], step: int, group: dict[str, Any]) -> None:
        lr, (beta1, beta2), weight_decay = group["lr"], group["betas"], group["weight_decay"]
        if self._one_pass is not None:
            flat = [
                [p.view(-1) for p in parameters],
                [p.grad.reshape(-1) for p in parameters if p.grad is not None],
                *([self.state[p][name].view(-1) for p in parameters] for name in ("exp_avg", "exp_avg_sq")),
                [None if (average := self._averages.get(p)) is None else average.view(-1) for p in parameters],
            ]
            self._one_pass(
                *flat, 1 - lr * weight_decay, lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step), beta1, beta2,
                self._ema_rate,
            )  # fmt: skip
            return
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        averages = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**step))
        for parameter, average, denominator in zip(parameters, averages, denominators, strict=True):
            parameter.sub_(torch.atan2(average, denominator), alpha=lr / (1 - beta1**step))


def make_optimizer(
    name: OptimizerName,
    parameters: Sequence[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    undecayed: Iterable[nn.Parameter] = (),
    hidden: Iterable[nn.Parameter] = (),
    adamw_lr_ratio: float = 1.0,
) -> Optimizer:
    """The dense optimizer called `name`.

    Args:
        name: its name.
        parameters: what it updates.
        lr, betas, weight_decay: see the optimizers.
        undecayed: those of the parameters that have no weight decay.
        hidden: those of the parameters that muon_hidden has Muon for.
        adamw_lr_ratio: with muon_hidden, the learning rate of AdamW divided by `lr`.

    Raises:
        UserError: muon_hidden has no matrices to update; the CUDA package is requested but cannot be used here.
    """
    params: Any = _groups(parameters, set(undecayed))
    match name:
        case "adam_atan2":
            return AdamATan2(params, lr=lr, betas=betas, weight_decay=weight_decay)
        case "adamw":
            return torch.optim.AdamW(params, lr=lr, betas=betas, weight_decay=weight_decay)
        case "muon":
            return Muon(params, lr=lr, betas=betas, weight_decay=weight_decay)
        case "muon_hidden":
            matrices = [p for p in parameters if p in set(hidden)]
            if not matrices:
                raise UserError(
                    "optimizer=muon_hidden: the blocks of this model have no matrix to train. Use optimizer=adamw."
                )
            others = _groups([p for p in parameters if p not in set(matrices)], set(undecayed))
            return HiddenMuon(matrices, others, lr, betas, weight_decay, adamw_lr_ratio)
        case "adam_atan2_cuda":
            how = (
                "It is a CUDA source build: with nvcc of torch's CUDA version on PATH run "
                "`uv pip install --no-build-isolation adam-atan2`. optimizer=adam_atan2 computes the same update "
                "without it, on every device."
            )
            if not torch.cuda.is_available():
                raise UserError(f"optimizer=adam_atan2_cuda runs on CUDA only, and there is no CUDA device here. {how}")
            try:
                from adam_atan2 import AdamATan2 as CudaAdamATan2  # pyright: ignore[reportMissingImports]
            except ImportError as error:
                raise UserError(f"optimizer=adam_atan2_cuda needs the package adam-atan2 ({error}). {how}") from None
            # the package rejects lr = 0 at construction; the schedule sets the learning rate before each step anyway
            return CudaAdamATan2(params, lr=lr or 1e-12, betas=betas, weight_decay=weight_decay)


def _groups(parameters: Sequence[nn.Parameter], undecayed: set[nn.Parameter]) -> Any:
    """The parameters, or if some have no weight decay, groups of those that have and those that have not."""
    without = [p for p in parameters if p in undecayed]
    if not without:
        return list(parameters)
    return [{"params": [p for p in parameters if p not in undecayed]}, {"params": without, "weight_decay": 0.0}]


def learning_rate(base: float, step: int, total_steps: int, warmup_steps: int, min_ratio: float) -> float:
    """Linear warm-up to `base`, then cosine decay to `base * min_ratio` (1.0: constant). Steps count from 1."""
    if step < warmup_steps:
        return base * step / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
