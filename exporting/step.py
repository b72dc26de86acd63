"""The ACT step of a model in parts that are functions of tensors alone, so that they can be traced."""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.act import ACTModel
from models.lattice.network import HeadLogits
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.errors import UserError

# modules of models/recursive_reasoning/ whose export the tests compare with the model; in the others the start of an
# example is drawn at random, or the number of iterations depends on the values
EXPORTABLE = ("trm", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline", "urm", "trm_wta", "ldt")


@dataclass(frozen=True)
class Part:
    """A module to be traced.

    Attributes:
        module: the module; all its arguments and results are tensors [batch, ...].
        inputs, outputs: the names of its arguments and results.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def takes_any_number(self) -> bool:
        """Whether the module has one parameter for all its arguments."""
        parameters = inspect.signature(self.module.forward).parameters.values()
        return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


@dataclass(frozen=True)
class StepParts:
    """An ACT step, cut into parts.

    Attributes:
        start: `inputs`, int64 [batch, seq] -> the states before the first step.
        before, loop, after: run one after the other, where `loop` runs `loops` times; `before` and `loop` are None if
            `after` is the whole step. The arguments of all parts are `inputs`, `puzzle_identifiers` int64 [batch], the
            states, and results of the parts before; the results of `after` are `logits` fp32 [batch, seq, vocab],
            `q_halt_logits` fp32 [batch] and the new states, called `next_` + their names.
        states: the names of the states.
        loops: how often `loop` runs.
        reads_puzzle_ids: whether a part has the argument `puzzle_identifiers`.
    """

    start: Part
    before: Part | None
    loop: Part | None
    after: Part
    states: tuple[str, ...]
    loops: int
    reads_puzzle_ids: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the arguments of the whole step."""
        ids = ("puzzle_identifiers",) if self.reads_puzzle_ids else ()
        return ("inputs", *ids, *self.states)


def step_parts(model: ACTModel) -> StepParts:
    """The parts of a model, which must compute on the CPU, in float32 and in evaluation mode.

    Raises:
        UserError: its architecture cannot be exported.
    """
    name = type(model).__module__.rpartition(".")[2]
    if name not in EXPORTABLE:
        raise UserError(
            f"a model of the architecture {name} cannot be exported: its steps depend on random numbers or on values "
            f"in a way that other runtimes do not know. Allowed are {', '.join(EXPORTABLE)}."
        )
    if isinstance(model, LatticeDeductionTransformer):
        return _lattice_parts(model)
    states = tuple(model.inner.states)
    reads_ids = model.puzzle_emb is not None and len(model.puzzle_emb.weights) > 1
    step = _Step(model, states, reads_ids)
    ids = ("puzzle_identifiers",) if reads_ids else ()
    after = Part(step, ("inputs", *ids, *states), ("logits", "q_halt_logits", *_following(states)))
    return StepParts(Part(_Start(model), ("inputs",), states), None, None, after, states, 1, reads_ids)


def whole_step(model: ACTModel) -> Part:
    """The step as one part, with the arguments `StepParts.inputs`."""
    parts = step_parts(model)
    return Part(_Whole(parts), parts.inputs, parts.after.outputs) if parts.loop is not None else parts.after


def lattice_network(model: LatticeDeductionTransformer) -> tuple[Part, Part, Part]:
    """The network of an LDT: (before, loop, heads): `lattice` fp32 -> `keep`, `digit` and `conflict` logits."""
    before, loop = _network_parts(model)
    return before, loop, Part(_Heads(model), ("h", "cls"), ("keep", "digit", "conflict"))


def _following(states: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"next_{name}" for name in states)


class _Start(nn.Module):
    def __init__(self, model: ACTModel):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        rows = inputs.shape[0]
        states = self.model.inner.empty_states(rows, inputs.device)
        halted = torch.ones_like(inputs[:, 0], dtype=torch.bool)
        return tuple(self.model.reset(states, halted, {"inputs": inputs}).values())


class _Step(nn.Module):
    def __init__(self, model: ACTModel, states: tuple[str, ...], reads_ids: bool):
        super().__init__()
        self.model, self.states, self.reads_ids = model, states, reads_ids

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        inputs, *states = arguments
        ids = states.pop(0) if self.reads_ids else torch.zeros_like(inputs[:, 0])
        data = {"inputs": inputs, "puzzle_identifiers": ids}
        new, outputs = self.model.advance(dict(zip(self.states, states, strict=True)), data)
        return (*_answer(outputs), *(new[name] for name in self.states))


def _answer(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return outputs["logits"].float(), outputs["q_halt_logits"].float()


class _Whole(nn.Module):
    def __init__(self, parts: StepParts):
        super().__init__()
        assert parts.before is not None
        assert parts.loop is not None
        self.before, self.loop, self.after = parts.before.module, parts.loop.module, parts.after.module
        self.loops = parts.loops

    def forward(self, inputs: Tensor, lattice: Tensor) -> tuple[Tensor, ...]:
        h0 = self.before(lattice)
        h, cls = h0, h0[:, 0]
        for _ in range(self.loops):
            h, cls = self.loop(h, cls, h0)
        return self.after(inputs, lattice, h, cls)


# -- the LDT, whose network is a loop --------------------------------------------------------------------------------


def _lattice_parts(model: LatticeDeductionTransformer) -> StepParts:
    before, loop = _network_parts(model)
    start = Part(_LatticeStart(model), ("inputs",), ("lattice",))
    outputs = ("logits", "q_halt_logits", "next_lattice")
    after = Part(_Deduce(model), ("inputs", "lattice", "h", "cls"), outputs)
    return StepParts(start, before, loop, after, ("lattice",), model.settings.n_loops, False)


def _network_parts(model: LatticeDeductionTransformer) -> tuple[Part, Part]:
    return Part(_Project(model), ("lattice",), ("h0",)), Part(_Loop(model), ("h", "cls", "h0"), ("h", "cls"))


class _OfLattice(nn.Module):
    def __init__(self, model: LatticeDeductionTransformer):
        super().__init__()
        self.model = model


class _LatticeStart(_OfLattice):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.model.lattice_of(inputs)


class _Project(_OfLattice):
    def forward(self, lattice: Tensor) -> Tensor:
        return self.model.network.input_proj(lattice.float())


class _Loop(_OfLattice):
    def forward(self, h: Tensor, cls: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.network.loop(h, h0, 0.0)


class _Heads(_OfLattice):
    def forward(self, h: Tensor, cls: Tensor) -> HeadLogits:
        return self.model.network.heads(h, cls)


class _Deduce(_OfLattice):
    def forward(self, inputs: Tensor, lattice: Tensor, h: Tensor, cls: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        states = {"lattice": lattice, "puzzle": model.lattice_of(inputs)}
        new, outputs = model.conclude(states, model.network.heads(h, cls))
        return (*_answer(outputs), new["lattice"])
