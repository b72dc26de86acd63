"""The loss head of text models."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.act import Carry
from models.losses import ACTLossHead, TokenLoss, softmax_cross_entropy
from models.text.model import TextModel
from utils.constants import IGNORE_LABEL_ID

# Number of tokens whose logits are held at a time. With a vocabulary of 10,000 in fp32 they take 10 MB, which fits in
# the caches of a CPU, or 330 MB, enough to keep a GPU busy.
CHUNK_CPU, CHUNK_GPU = 256, 8192


class TokenScores(NamedTuple):
    """How well each token is predicted, [rows, seq] each."""

    losses: Tensor  # fp32, in nats, 0 where there is no label
    right: Tensor  # bool, whether the most likely token is the label; False where there is none
    steps: Tensor  # int32, ACT steps taken for the answer


class _ChunkedCrossEntropy(torch.autograd.Function):
    """See `weighted_cross_entropy`. The forward pass computes the gradients too; the backward pass only scales them.

    With e = exp(logits - max), the loss of a token is log(sum e) - (logit of the label - max), and its gradient with
    respect to the logits is e / sum e - (1 at the label). The factors of a token, its weight and 1 / sum e, are applied
    to the narrow operands of the products, so that the logits are read only a few times; none of them are kept.

    With label smoothing s, the logit of the label gives way to (1 - s) times itself plus s times the mean of all, and
    the 1 at the label to 1 - s there and s / vocab everywhere.
    """

    @staticmethod
    def forward(
        ctx: Any, answer: Tensor, table: Tensor, labels: Tensor, weights: Tensor, trains: bool, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses, right = torch.zeros_like(weights), torch.zeros_like(weights, dtype=torch.bool)
        cast = table.to(answer.dtype)
        answer_gradient = torch.zeros_like(answer) if trains else None
        table_gradient = torch.zeros_like(table) if trains else None
        labelled = labels != IGNORE_LABEL_ID
        labels, weights = labels.where(labelled, 0).long(), weights.where(labelled, 0)
        for index in _chunks(labelled):
            z = answer.index_select(0, index)
            wanted = labels.index_select(0, index).unsqueeze(1)
            logits = F.linear(z, cast).float()
            largest, best = logits.max(-1, keepdim=True)
            own = logits.gather(1, wanted) - largest
            aim = (1 - smoothing) * own + smoothing * (logits.mean(-1, keepdim=True) - largest) if smoothing else own
            e = logits.sub_(largest).exp_()
            total = e.sum(-1, keepdim=True)
            losses.index_copy_(0, index, (total.log() - aim).squeeze(1))
            right.index_copy_(0, index, (best == wanted).squeeze(1))
            if answer_gradient is not None and table_gradient is not None:
                factor = weights.index_select(0, index).unsqueeze(1) / total
                if smoothing:
                    e = e.sub_(smoothing / e.shape[1] * total).scatter_add_(1, wanted, (smoothing - 1) * total)
                else:
                    e = e.scatter_(1, wanted, own.exp() - total)
                e = e.to(z.dtype)
                answer_gradient.index_copy_(0, index, (factor * (e @ cast)).to(z.dtype))
                table_gradient.add_(e.t() @ (factor * z).to(z.dtype))
        losses, right = losses.where(labelled, 0), right & labelled
        if trains:
            ctx.save_for_backward(answer_gradient, table_gradient)
        ctx.mark_non_differentiable(losses, right)
        return (losses * weights).sum(), losses, right

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        answer_gradient, table_gradient = ctx.saved_tensors
        scaled = answer_gradient * upstream[0].to(answer_gradient.dtype), table_gradient * upstream[0]
        return *scaled, None, None, None, None


def _chunks(labelled: Tensor) -> Sequence[Tensor]:
    """Indices of the tokens to compute, a chunk at a time.

    On the CPU they are those with a label. Elsewhere they are all, because the host would have to wait for the device
    to learn which have one, and rows are packed so that few have none.
    """
    if labelled.device.type == "cpu":
        return labelled.nonzero().squeeze(1).split(CHUNK_CPU)
    return torch.arange(len(labelled), device=labelled.device).split(CHUNK_GPU)


def weighted_cross_entropy(
    answer: Tensor, table: Tensor, labels: Tensor, weights: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """`sum of weights * cross-entropy(softmax(answer @ table^T), labels)`, for a chunk of tokens at a time.

    Args:
        answer: [rows, seq, hidden].
        table: fp32 [vocab, hidden], cast to the dtype of `answer`; the softmax is computed in fp32.
        labels: int [rows, seq]; ignored ones count for nothing.
        weights: fp32 [rows, seq]; they get no gradient.
        smoothing: share of the target that is spread evenly over the vocabulary (see `models.losses`).

    Returns:
        (the sum, fp32 scalar; without gradient, the losses fp32 [rows, seq], 0 where ignored, and whether the most
        likely token is the label, bool [rows, seq], False where ignored).
    """
    loss, losses, right = _ChunkedCrossEntropy.apply(  # pyright: ignore[reportGeneralTypeIssues]
        answer.flatten(0, 1), table, labels.flatten(), weights.flatten(), torch.is_grad_enabled(), smoothing
    )
    return loss, losses.view(labels.shape), right.view(labels.shape)


class TextLossHead(ACTLossHead):
    """One ACT step of a text model with its loss and metrics.

    Loss of a row: the sum, over its positions that have a label and have not settled, of the token loss and, if there
    is more than one step, of 0.5 * BCE(q_halt, this token is right), divided by the number of its positions with a
    label. The losses are **summed** over the rows. The 0.5 is `halt_loss_weight`, and `label_smoothing` and
    `supervision_decay` apply to training as they do for puzzles; the steps are those of the row. Mixtures of experts
    add their regulariser, times the number of rows.
    """

    model: TextModel
    loss_types: ClassVar[dict[str, TokenLoss]] = {"softmax_cross_entropy": softmax_cross_entropy}

    def initial_carry(self, batch: dict[str, Tensor]) -> Carry:
        """A carry in which every row waits for text.

        Besides the states of the model it holds, for the current answer of each position, answer_loss, fp32 [rows,
        seq], and answer_right, bool [rows, seq].
        """
        carry = super().initial_carry(batch)
        labels = batch["labels"]
        carry.states["answer_loss"] = torch.zeros(labels.shape, device=labels.device)
        carry.states["answer_right"] = torch.zeros_like(labels, dtype=torch.bool)
        return carry

    def forward(
        self,
        carry: Carry,
        batch: dict[str, Tensor],
        return_keys: Sequence[str] = (),
        min_steps: Tensor | None = None,
        row_seeds: Tensor | None = None,
    ) -> tuple[Carry, Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
        """One step of every row.

        Args:
            carry: the rows.
            batch: text for the rows that are finished: inputs, labels, documents, int [rows, seq].
            return_keys: outputs to return, out of answer, q_halt_logits, active (see `models.text.model`).
            min_steps: steps before which no position of a row settles, int [rows]; drawn here if None.
            row_seeds: not used.

        Returns:
            (new carry, summed loss, metrics, the requested outputs, whether all rows are finished). Metrics are sums:
            count, accuracy and steps over the labelled positions of the rows that finished on this step; lm_loss over
            the rows, each the mean loss of its current answers (a settled answer keeps the loss of the step at which
            it settled); q_halt_loss (with more than one step) and moe_loss (with experts) over the rows, as in the
            loss; moe/* times count.
        """
        carry, outputs = self.model(carry=carry, batch=batch, min_steps=min_steps)
        labels, states = carry.current_data["labels"], carry.states
        labelled = labels != IGNORE_LABEL_ID
        active = outputs["active"] & labelled
        share = 1 / labelled.sum(-1, keepdim=True).clamp_min(1)  # weight of a position in its row
        weights = active * share
        config, step_weights = self.model.config, self.step_weights(carry.steps)
        trained_weights = weights if step_weights is None else weights * step_weights.unsqueeze(1)
        smoothing = config.label_smoothing if self.training else 0.0

        table = self.model.inner.embed_tokens.embedding_weight
        trained_labels = labels.where(active, IGNORE_LABEL_ID)
        loss, losses, right = weighted_cross_entropy(
            outputs["answer"], table, trained_labels, trained_weights, smoothing
        )
        with torch.no_grad():
            states["answer_loss"] = torch.where(active, losses, states["answer_loss"] * labelled)
            states["answer_right"] = torch.where(active, right, states["answer_right"] & labelled)
            finished = carry.halted.unsqueeze(1) & labelled
            metrics = {
                "count": finished.sum(),
                "accuracy": (states["answer_right"] & finished).sum(),
                "steps": states["answer_steps"].where(finished, 0).sum(),
                "lm_loss": (states["answer_loss"] * share).sum(),
            }
        if config.halt_max_steps > 1:
            q_halt_losses = F.binary_cross_entropy_with_logits(
                outputs["q_halt_logits"], right.float(), reduction="none"
            )
            q_halt_loss = (q_halt_losses * trained_weights).sum()
            loss = loss + config.halt_loss_weight * q_halt_loss
            plain = q_halt_loss if step_weights is None else (q_halt_losses * weights).sum()
            metrics["q_halt_loss"] = plain.detach()
        if "moe_loss" in outputs:
            moe_loss = outputs["moe_loss"] * len(labels)
            loss = loss + moe_loss
            metrics["moe_loss"] = moe_loss.detach()
        metrics |= {name: value * metrics["count"] for name, value in outputs.items() if name.startswith("moe/")}
        wanted = {key: outputs[key].detach() for key in return_keys if key in outputs}
        return carry, loss, metrics, wanted, carry.halted.all()

    @torch.no_grad()
    def scores(self, batch: dict[str, Tensor], halting: bool = False, max_steps: int | None = None) -> TokenScores:
        """How well a batch is predicted, without gradients and without changing any state.

        Args:
            batch: inputs, labels, documents, int [rows, seq].
            halting, max_steps: see `models.text.model.TextModel.answers`.
        """
        answer, steps = self.model.answers(batch["inputs"], batch["documents"], halting, max_steps)
        labels = batch["labels"]
        table = self.model.inner.embed_tokens.embedding_weight
        weights = torch.ones(labels.shape, device=labels.device)
        _, losses, right = weighted_cross_entropy(answer, table, labels, weights)
        return TokenScores(losses, right, steps)
