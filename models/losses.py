"""Token losses, and the loss head: the loss and the metrics of one supervised ACT step."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.act import ACTModel, Carry
from models.recipes.improvement import improvement_targets
from utils.constants import IGNORE_LABEL_ID

TokenLoss = Callable[..., Tensor]  # (logits, labels, label smoothing=0.0) -> loss of each token


def log_stablemax(logits: Tensor) -> Tensor:
    """`log(s / sum s)` over the last axis, s(v) = v + 1 for v >= 0 and 1 / (1 - v) below (arXiv 2501.04697)."""
    # clamped so that the branch not taken has a finite gradient at a logit of exactly 1
    s = torch.where(logits < 0, 1 / (1 - logits.clamp_max(0) + 1e-30), logits + 1)
    return torch.log(s / s.sum(-1, keepdim=True))


def stablemax_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Loss of each token, 0 where the label is ignored. [..., vocab], [...] -> float64 [...].

    With label smoothing e (arXiv 1512.00567) the target has 1 - e on the label, and e spread over the vocabulary:
    `-(1 - e) log p[label] - e * mean over v of log p[v]`.

    Apple GPUs have no float64; there, and only there, it is computed in float32.
    """
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    valid = labels != IGNORE_LABEL_ID
    log_p = log_stablemax(logits.to(dtype))
    picked = log_p.gather(-1, torch.where(valid, labels, 0).long().unsqueeze(-1)).squeeze(-1)
    if smoothing:
        picked = (1 - smoothing) * picked + smoothing * log_p.mean(-1)
    return -torch.where(valid, picked, 0)


def softmax_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Loss of each token, 0 where the label is ignored. [..., vocab], [...] -> float32 [...].

    Label smoothing as in `stablemax_cross_entropy`.
    """
    flat = F.cross_entropy(
        logits.float().flatten(0, -2),
        labels.flatten().long(),
        ignore_index=IGNORE_LABEL_ID,
        reduction="none",
        label_smoothing=smoothing,
    )
    return flat.view(labels.shape)


TOKEN_LOSSES: dict[str, TokenLoss] = {
    "stablemax_cross_entropy": stablemax_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}


class ACTLossHead(nn.Module):
    """One ACT step with its loss and metrics.

    Loss per example: mean token loss + 0.5 * (BCE(q_halt, all tokens right) + BCE(q_continue, target)), **summed**
    over the batch; the caller divides by the global batch size. (TRM paper, section 4, figure 3.) In training, recipes
    of the architecture (`models.recipes.config`) change the 0.5, the weight of a step, and the targets of the token
    loss.

    Class attributes:
        loss_types: the token losses that `loss_type` may name.

    Raises:
        ValueError: there is no such `loss_type`.
    """

    loss_types: ClassVar[dict[str, TokenLoss]] = TOKEN_LOSSES

    def __init__(self, model: ACTModel, loss_type: str = "stablemax_cross_entropy"):
        super().__init__()
        if loss_type not in self.loss_types:
            raise ValueError(f"loss_type {loss_type!r}: allowed are {', '.join(self.loss_types)}")
        self.model = model
        self.loss_fn = self.loss_types[loss_type]

    def initial_carry(self, batch: dict[str, Tensor]) -> Carry:
        """A carry in which every slot waits for an example."""
        return self.model.initial_carry(batch)

    def draw_step(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of a training step, as arguments of `forward`: tensors on the CPU, [rows, ...] each.

        Args:
            rows: rows of the global batch.
            generator: what to draw from; nothing else may be used.
        """
        return self.model.draw_step(rows, generator)

    def forward(
        self,
        carry: Carry,
        batch: dict[str, Tensor],
        return_keys: Sequence[str] = (),
        min_steps: Tensor | None = None,
        row_seeds: Tensor | None = None,
    ) -> tuple[Carry, Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
        """One step of every slot.

        Args:
            carry: the slots.
            batch: examples for the slots that have halted: inputs, labels [batch, seq], puzzle_identifiers [batch].
            return_keys: outputs to return, out of logits, preds, q_halt_logits, q_continue_logits, target_q_continue.
            min_steps: minimum number of steps for each slot, int [batch]; drawn here if None (see
                `models.act.draw_min_steps`).
            row_seeds: a seed for each slot, int64 [batch], of the random numbers of architectures that draw some at
                each step; drawn here if None, in evaluation from the example.

        Returns:
            (new carry, summed loss, metrics, the requested outputs, whether all slots have halted). Metrics are sums:
            count, accuracy, exact_accuracy, q_halt_accuracy and steps over the slots that halted on this step and
            have a label; the losses over the whole batch, all steps counting the same.
        """
        carry, outputs = self.model(carry=carry, batch=batch, min_steps=min_steps, row_seeds=row_seeds)
        labels = carry.current_data["labels"]
        with torch.no_grad():
            scored = Score(outputs["logits"].argmax(-1), outputs["q_halt_logits"], labels)
            outputs["preds"] = scored.preds
            counted = carry.halted & scored.labelled
            metrics = {
                "count": counted.sum(),
                "accuracy": scored.accuracy.where(counted, 0).sum(),
                "exact_accuracy": (counted & scored.exact).sum(),
                "q_halt_accuracy": (counted & scored.q_halt_right).sum(),
                "steps": carry.steps.where(counted, 0).sum(),
            }
        lm_losses, q_halt_losses = self.example_losses(outputs, self.targets(carry), scored)
        losses = {"lm_loss": lm_losses, "q_halt_loss": q_halt_losses}
        if "target_q_continue" in outputs:
            continues, target = outputs["q_continue_logits"], outputs["target_q_continue"]
            losses["q_continue_loss"] = _binary_cross_entropy(continues, target)
        sums = {name: values.sum() for name, values in losses.items()}
        metrics |= {name: value.detach() for name, value in sums.items()}
        weights = self.step_weights(carry.steps)
        if weights is not None:
            sums = {name: (weights * values).sum() for name, values in losses.items()}
        lm_loss, q_halt_loss, *q_continue_loss = sums.values()
        q_loss = sum(q_continue_loss, q_halt_loss)
        wanted = {key: outputs[key].detach() for key in return_keys if key in outputs}
        loss = lm_loss + self.model.config.halt_loss_weight * q_loss
        return carry, loss, metrics, wanted, carry.halted.all()

    def targets(self, carry: Carry) -> Tensor:
        """What the token loss compares the answers with, int [batch, seq]: the labels, or a step on the way to them."""
        data, config = carry.current_data, self.model.config
        if not (self.training and config.deep_improvement):
            return data["labels"]
        return improvement_targets(data["inputs"], data["labels"], carry.steps, config.halt_max_steps)

    def step_weights(self, steps: Tensor) -> Tensor | None:
        """The weight of the loss at step t of an example, `supervision_decay ** (t - 1)`: fp32 [batch], or None for 1.

        (Hierarchical supervision weighting of CGAR, arXiv 2511.08653, without the constant that divides the weights of
        all steps there. The published code takes the mean of t over the batch.)
        """
        decay = self.model.config.supervision_decay
        return decay ** (steps - 1).float() if self.training and decay != 1 else None

    def example_losses(self, outputs: dict[str, Tensor], targets: Tensor, scored: "Score") -> tuple[Tensor, Tensor]:
        """(mean token loss, halting loss) of each example, [batch] each. Without labels the token loss is 0."""
        smoothing = self.model.config.label_smoothing if self.training else 0.0
        token_losses = self.loss_fn(outputs["logits"], targets, smoothing)
        lm_loss = (token_losses / scored.label_count.clamp_min(1).unsqueeze(-1)).sum(-1)
        return lm_loss, _binary_cross_entropy(outputs["q_halt_logits"], scored.exact)


class Score:
    """How well predictions [batch, seq] and halting logits [batch] fit labels [batch, seq]; scores are [batch]."""

    def __init__(self, preds: Tensor, q_halt_logits: Tensor, labels: Tensor):
        valid = labels != IGNORE_LABEL_ID
        self.preds = preds
        right = (valid & (preds == labels)).sum(-1)
        self.label_count = valid.sum(-1)
        self.labelled = self.label_count > 0
        self.accuracy = right.float() / self.label_count.clamp_min(1)
        self.exact = right == self.label_count  # an example without labels counts as right
        self.q_halt_right = (q_halt_logits >= 0) == self.exact


def _binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
