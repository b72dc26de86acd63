"""On-policy training of the LDT: the slots of a batch are a pool of lattices that the network itself moves.

A step of training

    1. moves every lattice by one deduction step of the present weights, without dropout and without gradient;
    2. replaces the lattices that are solved, that are rightly found to be in conflict, or that are too old, by starts
       on new examples (`models.lattice.starts`);
    3. computes the losses of the pool.

In the published order, 1 follows the optimizer's step and ends a step of training. Here it begins the next one, with
the same weights and the same lattices. (LDT, arXiv 2605.08605.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.act import Carry
from models.lattice.lattice import Deduction, choose_at_random, given_cells, in_conflict, surviving
from models.lattice.losses import lattice_losses
from models.lattice.starts import draw_starts
from models.losses import ACTLossHead
from models.recursive_reasoning.ldt import Choose, LatticeDeductionTransformer
from utils.counter_random import uniform

_START, _MOVE_SYMMETRY, _DECISION, _LOSS_SYMMETRY = range(1, 5)  # what random numbers are drawn for


class LatticeLossHead(ACTLossHead):
    """A step of the pool, with its loss and metrics. `loss_type` is the token loss that evaluations report."""

    model: LatticeDeductionTransformer

    def draw_step(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `ACTLossHead.draw_step`: a seed for each row, from which all its random numbers follow."""
        return {"row_seeds": torch.randint(2**62, (rows,), generator=generator)}

    def forward(
        self,
        carry: Carry,
        batch: dict[str, Tensor],
        return_keys: Sequence[str] = (),
        min_steps: Tensor | None = None,
        row_seeds: Tensor | None = None,
    ) -> tuple[Carry, Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
        """One step of every slot, see `ACTLossHead.forward`.

        Args:
            carry: the pool; slots that wait for an example have halted.
            batch: examples for the slots whose lattice is replaced.
            return_keys: in training nothing is returned.
            min_steps: not used.
            row_seeds: in training, a seed for each slot, int64 [batch]; drawn here if None.

        Returns:
            In training, the loss is the mean over the batch times its size, and the losses in the metrics are alike.
            The other metrics are sums over the slots whose lattice was replaced: their number (count), how many were
            solved (accuracy), how many rightly (exact_accuracy), how many were in conflict, and their steps.
        """
        if not self.training:
            return super().forward(carry, batch, return_keys)
        rows = len(carry.steps)
        if row_seeds is None:
            row_seeds = torch.randint(2**62, (rows,), device=carry.steps.device)
        with torch.no_grad():
            moved, metrics = self.move(carry, row_seeds)
            pool = self.refill(moved, batch, row_seeds)
        loss, losses = self.pool_losses(pool, row_seeds)
        metrics |= {name: value.detach() * rows for name, value in losses.items()}
        return pool, loss * rows, metrics, {}, pool.halted.all()

    # -- the parts of a step -------------------------------------------------------------------------------------------

    def move(self, carry: Carry, row_seeds: Tensor) -> tuple[Carry, dict[str, Tensor]]:
        """Move every lattice by one step; slots that are done halt. Returns (the pool, sums over these slots)."""
        states, config = carry.states, self.model.settings
        asked = self._asked(carry)
        given = given_cells(states["puzzle"]) | ~asked
        choose = random_choice(row_seeds, config.temperature)
        symmetry = self.model.draw_symmetry(_MOVE_SYMMETRY, row_seeds)
        found, _ = self.model.step(states["lattice"], given, choose, symmetry)
        steps = carry.steps + 1
        done = (found.solved | found.conflict & in_conflict(found.lattice, states["alpha"], asked)) & ~carry.halted
        done |= (steps > config.halt_max_steps) & ~carry.halted
        right = found.solved & ((found.lattice == states["alpha"]).all(-1) | ~asked).all(-1)
        metrics = {
            "count": done.sum(),
            "accuracy": (done & found.solved).sum(),
            "exact_accuracy": (done & right).sum(),
            "conflicts": (done & found.conflict).sum(),
            "steps": steps.where(done, 0).sum(),
        }
        states = {**states, "lattice": found.lattice}
        return Carry(states, steps, carry.halted | done, carry.current_data), metrics

    def refill(self, carry: Carry, batch: dict[str, Tensor], row_seeds: Tensor) -> Carry:
        """Start on the examples of the batch in the slots that have halted."""
        where, config, candidates = carry.halted[:, None], self.model.settings, self.model.candidates
        data = carry.next_data(batch)
        puzzle, solution = candidates.lattice_of(data["inputs"]), candidates.one_hot(data["labels"])
        solution = torch.where(solution.any(-1, keepdim=True), solution, puzzle)  # where nothing is asked, anything
        start, target = draw_starts(_START, row_seeds, puzzle, solution, config.bare_share, config.wrong_share)
        states, fresh = carry.states, where[:, :, None]
        lattice = torch.where(fresh, start, states["lattice"])
        # an example has one known solution here; the formula is for any number of them
        alpha = surviving(lattice, solution[:, None], torch.where(fresh, target, states["alpha"]))
        states = {"lattice": lattice, "puzzle": torch.where(fresh, start, states["puzzle"]), "alpha": alpha}
        return Carry(states, carry.steps.where(~carry.halted, 0), torch.zeros_like(carry.halted), data)

    def pool_losses(self, pool: Carry, row_seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(the mean loss, its parts by the names of metrics)."""
        lattice, puzzle, alpha = (pool.states[name] for name in ("lattice", "puzzle", "alpha"))
        symmetry = self.model.draw_symmetry(_LOSS_SYMMETRY, row_seeds)
        config, asked = self.model.settings, self._asked(pool)
        if symmetry is not None:
            lattice, puzzle, alpha = (symmetry.apply(x) for x in (lattice, puzzle, alpha))
            asked = asked.gather(1, symmetry.cells)
        logits = self.model.network(lattice, config.dropout)
        keep, digit, conflict = lattice_losses(
            logits, lattice, alpha, given_cells(puzzle), asked, in_conflict(lattice, alpha, asked),
            config.keep_weight, config.kill_weight,
        )  # fmt: skip
        loss = keep + config.digit_loss_weight * digit + config.conflict_loss_weight * conflict
        return loss, {"lm_loss": digit, "keep_loss": keep, "conflict_loss": conflict}

    def _asked(self, pool: Carry) -> Tensor:
        """The cells that have a label, bool [batch, cells]."""
        return self.model.candidates.one_hot(pool.current_data["labels"]).any(-1)


def random_choice(row_seeds: Tensor, temperature: float) -> Choose:
    """Decides a random cell for a random candidate (`choose_at_random`); a function of the seeds, int64 [batch]."""

    def choose(found: Deduction, logits: Tensor) -> tuple[Tensor, Tensor]:
        _, cells, candidates = logits.shape
        noise = uniform(_DECISION, row_seeds, cells + candidates)
        return choose_at_random(found.lattice, logits, temperature, noise[:, :cells], noise[:, cells:])

    return choose
