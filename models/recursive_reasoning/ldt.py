"""LDT, the Lattice Deduction Transformer (arXiv 2605.08605), which solves puzzles by deduction and search.

The state of an example is a lattice: which candidates of each cell are alive. A step calls the network once on the
lattice, kills the candidates that are improbable, and looks at what is left:

    conflict    a cell has no candidate left, or the conflict head says that there is no solution
    solved      each cell has one candidate
    undecided   neither; one candidate of one open cell is then chosen, and the others of that cell die

In training the slots of a batch are a pool of lattices that move in this way (`models.lattice.loss_head`). To solve
puzzles, many random chains run side by side, and start again after a conflict (`evaluators.search`). The evaluation
during training follows a single chain for each puzzle, without any randomness and without starting again: it decides
the cell of which the network is most certain.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.act import ACTModel, Carry
from models.lattice.candidates import Candidates
from models.lattice.lattice import Deduction, choose_most_certain, deduce, given_cells, pin
from models.lattice.network import HeadLogits, LatticeConfig, LatticeNetwork
from models.lattice.symmetry import Symmetry, cell_permutations, draw_symmetries
from utils.errors import UserError

# (the lattices after killing, logits of the digit head) -> the cell to decide and its candidate, int64 [batch] each
Choose = Callable[[Deduction, Tensor], tuple[Tensor, Tensor]]
_DEAD = 30.0  # taken from the logit of a dead candidate, so that no answer names one; finite, as it enters the loss
_UNSOLVED = -10.0  # halting logit of an example that is not solved


def _choose_most_certain(found: Deduction, logits: Tensor) -> tuple[Tensor, Tensor]:
    return choose_most_certain(found.lattice, logits)


class LatticeDeductionTransformer(ACTModel):
    """The LDT with its deduction step.

    Raises:
        UserError: the network does not fit the data (see `LatticeNetwork`), or they lack the symmetries asked for.
    """

    inner_class: ClassVar[Any] = LatticeNetwork
    allowed: Tensor  # see `Candidates`
    candidate_tokens: Tensor
    permutations: Tensor  # symmetries of the grid, int64 [number, cells]
    answer_places: Tensor  # int64 [vocab]
    renamed: Tensor  # candidates that may be renamed among one another, int64 [number]

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        board, wanted = self.network.board, self.settings.symmetries
        if wanted is True and not board.has_symmetries:
            raise UserError(
                "arch.symmetries=true: the task has no turns of its grid and no symbols that can be renamed "
                "(`Task.turns`, `Task.renamed`). Use arch.symmetries=auto or false."
            )
        self.uses_symmetries = wanted is not False and board.has_symmetries
        allowed, tokens = Candidates.of(board)
        renamed = torch.tensor([board.candidates.index(token) for token in board.renamed], dtype=torch.int64)
        # token -> its place among the logits of an answer, where that of tokens that are no candidates is the first
        places = [board.candidates.index(t) + 1 if t in board.candidates else 0 for t in range(len(board.allowed))]
        permutations = cell_permutations(board)
        self.register_buffer("allowed", allowed, persistent=False)
        self.register_buffer("candidate_tokens", tokens, persistent=False)
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("renamed", renamed, persistent=False)
        self.register_buffer("answer_places", torch.tensor(places), persistent=False)

    @property
    def network(self) -> LatticeNetwork:
        """The network."""
        return self.get_submodule("inner")  # pyright: ignore[reportReturnType]

    @property
    def settings(self) -> LatticeConfig:
        """The configuration."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.network.input_proj.weight.device

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.network.backbone.layers)

    def compile_recursion(self) -> None:
        """Compile the loop. All loops are calls of one compiled function; parameter names do not change."""
        self.compiled = True
        self.network.compile_loop()

    @property
    def candidates(self) -> Candidates:
        """Which tokens are candidates of a cell."""
        return Candidates(self.allowed, self.candidate_tokens)

    def lattice_of(self, tokens: Tensor) -> Tensor:
        """The lattice of puzzles, bool [batch, cells, candidates], from tokens [batch, cells]."""
        return self.candidates.lattice_of(tokens)

    def draw_symmetry(self, purpose: int, row_seeds: Tensor) -> Symmetry | None:
        """A random symmetry for each row of a call (see `draw_symmetries`); None if the model uses none."""
        if not self.uses_symmetries:
            return None
        return draw_symmetries(purpose, row_seeds, self.permutations, self.network.candidates, self.renamed)

    # -- a step of deduction ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(
        self,
        lattice: Tensor,
        given: Tensor,
        choose: Choose,
        symmetry: Symmetry | None = None,
        dropout: float = 0.0,
        conflict_threshold: float | None = None,
        loops: int | None = None,
    ) -> tuple[Deduction, HeadLogits]:
        """One step: (the lattices after it, with what was found; the logits of the heads).

        Args:
            lattice: bool [batch, cells, candidates].
            given: bool [batch, cells]; cells of which no candidate is killed.
            choose: decides a cell; asked for all rows and used for the undecided ones.
            symmetry: transforms the network's input; its outputs are transformed back.
            dropout: dropout rate.
            conflict_threshold: None: that of the configuration.
            loops: loops of the network, all of which are supervised in training; None: as in training.
        """
        seen = lattice if symmetry is None else symmetry.apply(lattice)
        logits = self.network.last(seen, dropout, loops)
        if symmetry is not None:
            logits = HeadLogits(symmetry.undo(logits.keep), symmetry.undo(logits.digit), logits.conflict)
        return self.decide(lattice, given, logits, choose, conflict_threshold), logits

    def decide(
        self,
        lattice: Tensor,
        given: Tensor,
        logits: HeadLogits,
        choose: Choose,
        conflict_threshold: float | None = None,
    ) -> Deduction:
        """What follows from the logits of the heads; see `step`."""
        config = self.settings
        threshold = config.conflict_threshold if conflict_threshold is None else conflict_threshold
        found = deduce(lattice, given, logits, config.kill_threshold, threshold)
        cells, candidates = choose(found, logits.digit)
        return found._replace(lattice=pin(found.lattice, found.undecided, cells, candidates))

    # -- answers without search ---------------------------------------------------------------------------------------

    def forward(
        self,
        carry: Carry,
        batch: Mapping[str, Tensor],
        min_steps: Tensor | None = None,
        compute_target_q: bool | None = None,
        max_steps: int | None = None,
        row_seeds: Tensor | None = None,
    ) -> tuple[Carry, dict[str, Tensor]]:
        """One step of the single chain of every slot, for evaluation; a slot halts early if its lattice is solved.

        Args:
            carry, batch, max_steps: see `ACTModel.forward`.
            min_steps, compute_target_q, row_seeds: not used.

        Returns:
            (new carry, outputs): see `ACTModel.forward`. `q_halt_logits` are above 0 where the lattice is solved.
        """
        halted = carry.halted
        data = carry.next_data(batch)
        fresh = self.lattice_of(data["inputs"])
        where = halted.view(-1, 1, 1)
        lattice = torch.where(where, fresh, carry.states["lattice"])
        steps = torch.where(halted, 0, carry.steps) + 1
        states, outputs = self.advance({**carry.states, "lattice": lattice, "puzzle": fresh}, data)
        stops = (steps >= self.steps_limit(max_steps)) | (outputs["q_halt_logits"] > 0)
        return Carry(states, steps, stops, data), outputs

    def advance(
        self, states: dict[str, Tensor], data: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step of the single chain: (new states; outputs, see `forward`)."""
        return self.conclude(states, self.network.last(states["lattice"]))

    def conclude(self, states: dict[str, Tensor], logits: HeadLogits) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What follows from the logits of the heads in a step of the single chain; see `advance`."""
        found = self.decide(states["lattice"], given_cells(states["puzzle"]), logits, _choose_most_certain)
        answer = logits.digit.where(found.lattice, logits.digit - _DEAD)
        others = answer.amin(-1, keepdim=True) - _DEAD  # of tokens that are no candidates
        q_halt = torch.where(found.solved, -logits.conflict.clamp_max(0.0) + 1e-3, _UNSOLVED)
        outputs = {
            "logits": torch.cat((others, answer), dim=-1)[..., self.answer_places],
            "q_halt_logits": q_halt,
            "q_continue_logits": torch.full_like(q_halt, _UNSOLVED),
        }
        return {**states, "lattice": found.lattice}, outputs

    @torch.no_grad()
    def answer_steps(
        self, data: dict[str, Tensor], max_steps: int | None = None, halting: bool = False
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """See `ACTModel.answer_steps`; `halting` has no effect."""
        puzzle = self.lattice_of(data["inputs"])
        states = {"lattice": puzzle, "puzzle": puzzle}
        for _ in range(max_steps or self.config.halt_max_steps):
            states, outputs = self.advance(states, data)
            yield states, outputs
