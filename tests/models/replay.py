"""Replays the recorded runs of all architectures with ACT: eight training steps, then an evaluation."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.optimizer import Optimizer

from models.act import ACTModel, Carry
from models.ema import EMA
from models.losses import ACTLossHead, Score
from models.random_start import RandomStartModel
from models.sparse_embedding import SparseSignSGD
from tests.models.recorded import ACT_KINDS, Recording
from utils.functions import load_model_class
from utils.optimizers import make_optimizer

# what the published code does and the defaults here do not
PUBLISHED_BEHAVIOUR = {"serrm": {"q_halt_is_probability": True}, "fprm": {"eval_stops_together": True}}
OUTPUTS = ("logits", "q_halt_logits", "q_continue_logits", "preds", "target_q_continue")


def model_of(recording: Recording, **overrides: object) -> ACTModel:
    """The recorded model with its initial weights; a `RecordedStarts` if it starts at random."""
    cls = load_model_class("recursive_reasoning." + ACT_KINDS[recording.kind])
    if issubclass(cls, RandomStartModel):
        cls = type("Replayed", (RecordedStarts, cls), {})
    model = cls(recording.config | PUBLISHED_BEHAVIOUR.get(recording.kind.split("_")[0], {}) | overrides)
    model.load_state_dict(recording.under("init/"), strict=True)
    return model


class RecordedStarts(RandomStartModel):
    """Starts from recorded latents, which lie in `draws` for the slots that halted, in order."""

    draws: Mapping[str, Tensor] = {}

    def set_draws(self, draws: Mapping[str, Tensor]) -> None:
        """From now on start from these."""
        self.draws = draws

    def reset(
        self, states: dict[str, Tensor], halted: Tensor, data: dict[str, Tensor], row_seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See `RandomStartModel.reset`; the seed of a slot is its place in the draws."""
        assert not halted.any() or all(len(self.draws[name]) == halted.sum() for name in self.start_stds)
        return super().reset(states, halted, data, (halted.cumsum(0) - 1).clamp(min=0))

    def starts(self, row_seeds: Tensor) -> dict[str, Tensor]:
        return {name: self.draws[name][row_seeds] for name in self.start_stds if name in self.draws}


class Replay:
    """A recorded run with its model, its optimizers and its averages."""

    def __init__(self, recording: Recording, device: str):
        config = recording.config
        self.recording, self.device = recording, device
        self.model = model_of(recording)
        self.head = ACTLossHead(self.model, config["loss_type"]).to(device)
        self.ema = EMA(self.model, rate=0.999)
        name = "muon" if config.get("use_muon") else config.get("optimizer", "adam_atan2")
        betas = (config["beta1"], config["beta2"])
        decayed = config["lr"], betas, config["weight_decay"]
        self.dense = make_optimizer(name, list(self.model.parameters()), *decayed, self.model.undecayed_parameters())
        self.sparse: SparseSignSGD | None = None
        if self.model.puzzle_emb is not None:
            decay = config["puzzle_emb_weight_decay"]
            self.sparse = SparseSignSGD([self.model.puzzle_emb], config["puzzle_emb_lr"], decay)

    def train(self) -> None:
        """The recorded training steps."""
        self.head.train()
        carry = self.head.initial_carry(self._batch(1))
        for step in range(1, 9):
            carry = self._step(step, carry)
        for name, value in self.model.state_dict().items():
            self.recording.check(f"step8/weights/{name}", value)
        for name, value in self.ema.shadow.items():
            self.recording.check(f"step8/ema/{name}", value)

    def _step(self, step: int, carry: Carry) -> Carry:
        at, check = f"step{step}/", self.recording.check
        self._set_draws(at)
        carry, loss, metrics, outputs, all_finished = self.head(
            carry=carry, batch=self._batch(step), return_keys=OUTPUTS, min_steps=self._min_steps(at)
        )
        (loss / self.recording.config["batch_size"]).backward()
        check(at + "loss", loss)
        check(at + "all_finish", all_finished)
        self._check_scores(at, carry, metrics, outputs, loss)
        states = dict(carry.states)
        if "z" in states:
            states["z_row0"] = states["z"][0]  # SE-RRM; the whole of z was recorded only once
        for name, value in {**states, "steps": carry.steps, "halted": carry.halted}.items():
            self.recording.check_known(f"{at}carry/{name}", value)
        if step == 1:
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    check(f"{at}grad/{name}", parameter.grad)
            if self.model.puzzle_emb is not None:
                local_weights = self.model.puzzle_emb.local_weights
                assert local_weights is not None
                assert local_weights.grad is not None
                check(f"{at}grad/puzzle_emb.local_weights", local_weights.grad)
        self._update("puzzle_emb_lr", self.sparse, step)
        self._update("lr", self.dense, step)
        self.ema.update()
        return carry

    def _update(self, rate: str, optimizer: Optimizer | None, step: int) -> None:
        if optimizer is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.recording.lr(rate, step)
            optimizer.step()
            optimizer.zero_grad()

    def evaluate(self, at: str = "eval/", halt_max_steps: int | None = None) -> None:
        """The recorded evaluation on the last batch, from a fresh carry, with the weights of the last step."""
        head = self.head
        if halt_max_steps is not None:
            longer = model_of(self.recording, halt_max_steps=halt_max_steps)
            longer.load_state_dict(self.model.state_dict())
            head = ACTLossHead(longer, self.recording.config["loss_type"]).to(self.device)
        head.eval()
        batch, loss, taken = self._batch(8), torch.zeros(()), 0
        with torch.inference_mode():
            self._set_draws(at)
            carry, all_finished = head.initial_carry(batch), torch.tensor(False)
            residues: dict[str, list[Tensor]] = {name: [] for name in ("residues", "stepsize") if name in carry.states}
            metrics: dict[str, Tensor] = {}
            outputs: dict[str, Tensor] = {}
            while not all_finished:
                carry, loss, metrics, outputs, all_finished = head(carry=carry, batch=batch, return_keys=OUTPUTS)
                for name in residues:  # FPRM
                    residues[name].append(carry.states[name].flatten())
                taken += 1
        self.recording.check(at + "all_finish", all_finished)
        self.recording.check_known(at + "steps_taken", torch.tensor(taken))
        for name, values in residues.items():
            self.recording.check(at + name, torch.stack(values))
        self._check_scores(at, carry, metrics, outputs, loss)

    # -- what is compared ---------------------------------------------------------------------------------------------

    def _check_scores(
        self, at: str, carry: Carry, metrics: dict[str, Tensor], outputs: dict[str, Tensor], loss: Tensor
    ) -> None:
        """Outputs and metrics; what this program computes and the published one did not is not compared."""
        everything = metrics if self.recording.kind in _COMPLETE else {}
        assert all(f"{at}metric/{name}" in self.recording.arrays for name in everything)
        if self.recording.kind.startswith("eqr"):
            metrics = metrics | equilibrium_metrics(carry, outputs, loss)
        if "exact_accuracy" in metrics:
            metrics = metrics | {"sequence_accuracy": metrics["exact_accuracy"]}  # its name in FPRM
        for name, value in metrics.items():
            self.recording.check_known(f"{at}metric/{name}", value)
        for name, value in outputs.items():
            self.recording.check_known(f"{at}out/{name}", value)

    def _set_draws(self, at: str) -> None:
        if isinstance(self.model, RecordedStarts):
            self.model.set_draws(self.recording.under(at + "draw/", self.device))

    def _min_steps(self, at: str) -> Tensor | None:
        """Of SE-RRM, which halts by chance; for other systems nothing was drawn."""
        uniform = self.recording.under(at + "draw/", self.device).get("halt_uniform")
        if uniform is None:
            return None
        config = self.model.config
        return torch.where(uniform < config.halt_exploration_prob, 0, config.halt_max_steps)

    def _batch(self, step: int) -> dict[str, Tensor]:
        return self.recording.under(f"step{step}/batch/", self.device)


# runs in which each metric was recorded under the name that it has here
_COMPLETE = [kind for kind in ACT_KINDS if not kind.startswith(("eqr", "fprm"))]


def equilibrium_metrics(carry: Carry, outputs: Mapping[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
    """The metrics that the published EqR computes from its latents and its halting logits."""
    labels, q_halt = carry.current_data["labels"], outputs["q_halt_logits"]
    score = Score(outputs["preds"], q_halt, labels)
    counted = carry.halted & score.labelled
    count, halts, exact = counted.sum(), q_halt > 0, score.exact
    hits = (halts & exact).sum()  # precision and recall are those of the whole batch
    z_H, z_L = (carry.states[name].float() for name in ("z_H", "z_L"))
    centred = [z - z.mean(-1, keepdim=True) for z in (z_H, z_L)]
    steps = carry.steps.float()

    def total(values: Tensor) -> Tensor:
        return values.where(counted, 0).sum()

    def extreme(values: Tensor, largest: bool) -> Tensor:
        filled = values.where(counted, -torch.inf if largest else torch.inf)
        found = filled.max() if largest else filled.min()
        return found if count or not largest else torch.zeros(())

    return {
        "q_halt_accuracy": (counted & (halts == exact)).sum(),
        "q_halt_precision": hits / halts.sum().clamp_min(1) * count,
        "q_halt_recall": hits / exact.sum().clamp_min(1) * count,
        "halted_q_logits": total(q_halt),
        "max_q_logits": extreme(q_halt, True),
        "min_q_logits": extreme(q_halt, False),
        "steps": total(steps),
        "max_steps": extreme(steps, True),
        "min_steps": extreme(steps, False),
        "raw_steps": steps[counted],
        "zH_zL_cos_sim": F.cosine_similarity(z_H, z_L, dim=-1).mean(-1).sum(),
        "zH_zL_pearson": F.cosine_similarity(centred[0], centred[1], dim=-1).mean(-1).sum(),
        "zH_mean": z_H.mean((1, 2)).sum(),
        "zH_std": z_H.std(-1).mean(-1).sum(),
        "zL_mean": z_L.mean((1, 2)).sum(),
        "zL_std": z_L.std(-1).mean(-1).sum(),
        "total_loss": loss,
    }
