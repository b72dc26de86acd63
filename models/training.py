"""The state of a training run, and one training step; both training programs use it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from models.acceleration import Acceleration
from models.act import Carry
from models.ema import EMA
from models.losses import ACTLossHead
from models.sparse_embedding import SparseSignSGD
from utils.counter_random import seed_of
from utils.distributed import GradientSum, Ranks, SummedScalars, gather_rows
from utils.errors import UserError
from utils.machine import to_device
from utils.muon import LR_RATIO
from utils.optimizers import AdamATan2, learning_rate, make_optimizer
from utils.random_streams import Stream
from utils.settings import OptimizationConfig


def _nothing(step: int) -> dict[str, float]:
    return {}


class StepMetrics:
    """The metrics of a step. The device may still be computing them and `read` waits for it, so read one step later."""

    def __init__(
        self,
        sums: dict[str, Tensor],
        config: OptimizationConfig,
        extra: dict[str, float | Tensor],
        asked: dict[str, float],
    ):
        device = next(iter(sums.values())).device
        self._asked = {name: torch.full((), value, device=device) for name, value in asked.items()}
        self._sums, self._config, self._extra = SummedScalars(sums | self._asked), config, extra

    def read(self) -> dict[str, float]:
        """Metrics of the global batch: losses per example; accuracy, exact_accuracy, q_halt_accuracy and steps as
        means over the slots that halted with a label (absent when none did), and their count."""
        total = self._sums.read()
        count = total.pop("count")
        metrics = {"train/count": count, **{name: total.pop(name) for name in self._asked}}
        for name, value in total.items():
            shown = name if "/" in name else f"train/{name}"
            if name.endswith("loss"):
                metrics[shown] = value / self._config.global_batch_size
            elif count:
                metrics[shown] = value / count
        return metrics | {name: float(value) for name, value in self._extra.items()}


class SkippedStep:
    """In the place of the metrics of a step that is left out."""

    def read(self) -> dict[str, float]:
        """The one metric of such a step, which has no losses."""
        return {"train/skipped": 1.0}


class PuzzleEmbRates(NamedTuple):
    """How the rows of the puzzle embedding are trained: by sign descent (`models.sparse_embedding.SparseSignSGD`)."""

    lr: float = 0.0
    weight_decay: float = 0.0


UNTRAINED = PuzzleEmbRates()


class TrainState:
    """Model, optimizers, EMA and the slots of this rank.

    Attributes:
        step: optimizer steps taken.
        carries: the slots, one carry for each micro-batch of gradient accumulation.
        ema: the averages of the weights, or None.
    """

    def __init__(
        self,
        head: ACTLossHead,
        config: OptimizationConfig,
        ranks: Ranks,
        total_steps: int,
        warmup_steps: int = 0,
        puzzle_emb: PuzzleEmbRates = UNTRAINED,
        freeze_weights: bool = False,
        skipped: Collection[int] = (),
    ):
        """Create the state before the first step.

        Args:
            head: the model, on its device.
            config: how the weights are trained.
            ranks: the rank of this process, and how many there are.
            total_steps: steps of the learning-rate schedule.
            warmup_steps: steps at the start in which the learning rate rises.
            puzzle_emb: how the puzzle embedding is trained, if there is one.
            freeze_weights: train only the puzzle embedding.
            skipped: steps to leave out: they count, but change nothing.

        Raises:
            UserError: there is nothing to train.
        """
        self.head, self.config, self.ranks = head, config, ranks
        self.total_steps, self.warmup_steps, self.puzzle_emb = total_steps, warmup_steps, puzzle_emb
        self.step, self.skipped = 0, skipped
        self.carries: list[Carry] = []
        if freeze_weights:
            head.requires_grad_(False)
        self.parameters = {name: p for name, p in head.named_parameters() if p.requires_grad}
        self.gradients = GradientSum(self.parameters.values())
        self.ema = EMA(head, config.ema_rate) if config.ema else None
        self._averages_in_step = False  # whether the optimizer's step also updates the averages
        self.dense: Optimizer | None = None
        if self.parameters:
            betas, model = (config.beta1, config.beta2), head.model
            parameters = list(self.parameters.values())
            self.dense = make_optimizer(
                config.optimizer,
                parameters,
                config.lr,
                betas,
                config.weight_decay,
                model.undecayed_parameters(),
                model.hidden_matrices(),
                config.adamw_lr_ratio,
            )
        self.sparse: SparseSignSGD | None = None
        if head.model.puzzle_emb is not None:
            self.sparse = SparseSignSGD([head.model.puzzle_emb], puzzle_emb.lr, puzzle_emb.weight_decay)
        if self.dense is None and self.sparse is None:
            raise UserError("freeze_weights=true leaves nothing to train: the model has no puzzle embedding.")

    def use_fast_update(self, acceleration: Acceleration) -> None:
        """From now on have AdamATan2 update each parameter and its average in one pass, if one is available.

        This is the operator in `acceleration`, or else a compiled pass if the blocks are compiled too.
        """
        update = acceleration.optimizer_update
        if isinstance(self.dense, AdamATan2) and (update is not None or acceleration.compiled):
            averages: dict[Tensor, Tensor] = {}
            if self.ema is not None:
                averages = {p: self.ema.shadow[name] for name, p in self.parameters.items()}
            self.dense.update_in_one_pass(averages, self.config.ema_rate, update)
            self._averages_in_step = True

    def averaged(self) -> AbstractContextManager[None]:
        """Within the block the model has its averaged weights, if averaging is on."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    @property
    def local_batch_size(self) -> int:
        """Rows of the global batch on this rank."""
        return self.config.global_batch_size // self.ranks.world_size

    def train_step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One optimizer step on this rank's rows, and its metrics (see `StepMetrics.read`)."""
        return self.launch_step(batch).read()

    def launch_step(
        self, batch: dict[str, Tensor], asks: Callable[[int], dict[str, float]] = _nothing
    ) -> StepMetrics | SkippedStep:
        """One optimizer step on this rank's rows, without waiting for the device.

        Args:
            batch: this rank's rows of the global batch.
            asks: gives numbers for a step that are summed over all ranks along with the metrics, and come with them.
        """
        self.step += 1
        if self.step in self.skipped:
            return SkippedStep()
        if not self.carries:
            self.carries = [self.head.initial_carry(micro) for micro in self._micro_batches(batch)]
        draws = self._micro_batches(self._draws(batch["inputs"].device))
        sums: dict[str, Tensor] = {}
        for index, micro in enumerate(self._micro_batches(batch)):
            with self.head.model.at_progress((self.step - 1) / self.total_steps):
                carry = self.carries[index]
                self.carries[index], loss, metrics, _, _ = self.head(carry=carry, batch=micro, **draws[index])
            # the gradients of all micro-batches and ranks are summed, so each is divided by the global batch size
            is_last = index == self.config.grad_accum_steps - 1
            with self.gradients.over_ranks() if is_last else nullcontext():
                (loss / self.config.global_batch_size).backward()
            if self.sparse is not None:
                self.sparse.collect()
            for name, value in metrics.items():
                sums[name] = sums[name] + value if name in sums else value
        return StepMetrics(sums, self.config, self.update(), asks(self.step))

    def update(self) -> dict[str, float | Tensor]:
        """Clip the gradients, step both optimizers at the rate of this step, update the averages. Returns metrics."""
        config = self.config
        extra: dict[str, float | Tensor] = {}
        if config.grad_clip_norm is not None:
            extra["optim/grad_norm"] = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.grad_clip_norm)
        for optimizer, base in ((self.dense, config.lr), (self.sparse, self.puzzle_emb.lr)):
            if optimizer is not None:
                rate = learning_rate(base, self.step, self.total_steps, self.warmup_steps, config.lr_min_ratio)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group.get(LR_RATIO, 1.0)
                optimizer.step()
                optimizer.zero_grad()
        if self.ema is not None and not self._averages_in_step:
            self.ema.update()
        shown = self.dense or self.sparse
        assert shown is not None
        return {"train/lr": shown.param_groups[0]["lr"], **extra}

    def _micro_batches(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        size = self.local_batch_size // self.config.grad_accum_steps
        starts = range(0, self.local_batch_size, size)
        return [{name: value[start : start + size] for name, value in batch.items()} for start in starts]

    def _draws(self, device: torch.device) -> dict[str, Tensor]:
        """The random numbers of this rank's slots, on `device`: draws for the global batch from (seed, step), no state.

        What uses torch's own generator, as dropout and the noise of EqR do, depends on (seed, step, rank) alone.
        """
        torch.manual_seed(seed_of(self.config.seed, Stream.DROPOUT, self.step, self.ranks.rank))
        seed = seed_of(self.config.seed, Stream.EXPLORATION, self.step)
        # the 63 leading bits of the seed, without its sign
        generator = torch.Generator().manual_seed((seed >> 1) & (2**63 - 1))
        drawn = self.head.draw_step(self.config.global_batch_size, generator)
        rows = slice(self.ranks.rank * self.local_batch_size, (self.ranks.rank + 1) * self.local_batch_size)
        return {name: to_device(value[rows], device) for name, value in drawn.items()}

    # -- saving and resuming ----------------------------------------------------------------------------------------

    def lasting_tensors(self) -> dict[str, Tensor]:
        """The weights and buffers, their averages and the state of the optimizer, on their device, by what they are."""
        tensors = dict(self.head.state_dict())
        if self.ema is not None:
            tensors |= {f"the average of {name}": value for name, value in self.ema.shadow.items()}
        if self.dense is not None:
            for name, p in self.parameters.items():
                for key, value in self.dense.state.get(p, {}).items():
                    if isinstance(value, Tensor):
                        tensors[f"{key} of the optimizer for {name}"] = value
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs besides the weights file, on the CPU, independent of the number of ranks.

        Collective: every rank must call it. The result is empty on all ranks but rank 0. Its tensors are copies, which
        later steps do not change.
        """
        whole = vars(_gather(self.carries)) if self.carries else None
        if not self.ranks.is_main:
            return {}  # only rank 0 writes
        return {
            "step": self.step,
            "parameters": {name: _copy(p.detach()) for name, p in self.parameters.items()},
            "ema": None if self.ema is None else {name: _copy(value) for name, value in self.ema.shadow.items()},
            "optimizer": None if self.dense is None else _optimizer_state(self.dense, self.parameters),
            "carry": whole,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`. The weights file (buffers, puzzle table) must have been loaded before."""
        self.step = state["step"]
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.dense is not None:
            _load_optimizer_state(self.dense, self.parameters, state["optimizer"])
        self.carries = []
        if state["carry"] is not None:
            whole = Carry(**state["carry"])
            device = next(self.head.parameters()).device
            size = self.local_batch_size // self.config.grad_accum_steps
            first = self.ranks.rank * self.local_batch_size
            for start in range(first, first + self.local_batch_size, size):
                carry = whole.map(lambda x, s=start: x[s : s + size].clone().to(device))
                # the run may have been computed in another dtype so far
                like = self.head.initial_carry(carry.current_data).states
                states = {name: z.to(like[name].dtype) for name, z in carry.states.items()}
                self.carries.append(Carry(states, carry.steps, carry.halted, carry.current_data))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", copy=True)


def _gather(carries: list[Carry]) -> Carry:
    """The carry of all slots of all ranks, on the CPU of rank 0; on other ranks it holds None. Collective.

    One tensor at a time, so a device holds no second carry.
    """
    first = carries[0]

    def gathered(rows: Iterable[Tensor]) -> Any:
        return gather_rows(torch.cat(list(rows)))

    return Carry(
        states={name: gathered(c.states[name] for c in carries) for name in first.states},
        steps=gathered(c.steps for c in carries),
        halted=gathered(c.halted for c in carries),
        current_data={name: gathered(c.current_data[name] for c in carries) for name in first.current_data},
    )


def _optimizer_state(optimizer: Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Any]:
    return {
        name: {key: _copy(value) if isinstance(value, Tensor) else value for key, value in optimizer.state[p].items()}
        for name, p in parameters.items()
        if p in optimizer.state
    }


def _load_optimizer_state(
    optimizer: Optimizer, parameters: Mapping[str, torch.nn.Parameter], saved: Mapping[str, Any]
) -> None:
    # This uses the optimizer's own loader, which knows the device of each tensor. The tensors are copied because the
    # file is memory-mapped. Learning rate and decay come from the configuration, not from the file.
    groups = optimizer.param_groups
    order = {p: number for number, p in enumerate(p for group in groups for p in group["params"])}
    state = {
        order[parameters[name]]: {
            key: value.clone() if isinstance(value, Tensor) else value for key, value in values.items()
        }
        for name, values in saved.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
