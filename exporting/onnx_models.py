"""A model as ONNX: with the recursion inside, one step at a time, and for the LDT its network alone."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from evaluators.reasoner import Reasoner
from exporting.examples import Examples, call_part, example_values
from exporting.graph import Carried, Graph, value_info
from exporting.step import Part, StepParts, lattice_network
from exporting.trace import ROWS
from models.recursive_reasoning.ldt import LatticeDeductionTransformer


def answer_model(reasoner: Reasoner) -> onnx.ModelProto:
    """The model with its recursion inside.

    Inputs: `inputs` int64 [batch, seq], `steps` int64 [], and `puzzle_identifiers` int64 [batch] if the model knows
    puzzles by their ids. Outputs, with the result of every ACT step: `all_logits` fp32 [steps, batch, seq, vocab],
    `answers` int32 [steps, batch, seq], `halt_probability` fp32 [steps, batch].
    """
    parts, examples = example_values(reasoner)
    graph = Graph()
    graph.include(parts.start, [examples["inputs"]], "start", {name: f"first_{name}" for name in parts.states})
    body = Graph(graph)
    _add_step(body, parts, examples)
    carried = [Carried(f"first_{name}", name, f"next_{name}", f"last_{name}", examples[name]) for name in parts.states]
    graph.loop("steps_loop", "steps", body, carried, {"logits": "all_logits", "q_halt_logits": "halt_of_steps"})
    _add_answers(graph, "all_logits", "halt_of_steps")
    given = [value_info(name, examples[name]) for name in parts.inputs if name not in parts.states]
    given.append(helper.make_tensor_value_info("steps", TensorProto.INT64, []))
    results = [
        value_info("all_logits", examples["logits"], "steps"),
        value_info("answers", examples["answers"], "steps"),
        value_info("halt_probability", examples["q_halt_logits"], "steps"),
    ]
    return graph.model(given, results, _metadata(reasoner, "answers"))


def step_model(reasoner: Reasoner) -> onnx.ModelProto:
    """One ACT step at a time.

    Inputs: `begin` bool [], whether the step is the first one; `inputs` and `puzzle_identifiers` as in `answer_model`;
    and the states, which are not looked at in the first step. Outputs: `answers` int32 [batch, seq],
    `halt_probability` fp32 [batch], `logits` fp32 [batch, seq, vocab] and the new states, called `next_` + their names.
    """
    parts, examples = example_values(reasoner)
    graph = Graph()
    graph.include(parts.start, [examples["inputs"]], "start", {name: f"first_{name}" for name in parts.states})
    for name in parts.states:
        graph.add("Where", ["begin", f"first_{name}", f"given_{name}"], [name])
    _add_step(graph, parts, examples)
    _add_answers(graph, "logits", "q_halt_logits")
    given = [helper.make_tensor_value_info("begin", TensorProto.BOOL, [])]
    given += [value_info(name, examples[name]) for name in parts.inputs if name not in parts.states]
    given += [value_info(f"given_{name}", examples[name]) for name in parts.states]
    results = [
        value_info("answers", examples["answers"]),
        value_info("halt_probability", examples["q_halt_logits"]),
        value_info("logits", examples["logits"]),
        *(value_info(f"next_{name}", examples[name]) for name in parts.states),
    ]
    return graph.model(given, results, _metadata(reasoner, "step"))


def network_model(reasoner: Reasoner) -> onnx.ModelProto:
    """The network of an LDT, for a search.

    Input: `lattice` fp32 [batch, cells, candidates] of 0 and 1. Outputs: the logits of the heads `keep` and `digit`,
    [batch, cells, candidates], and `conflict` [batch].
    """
    model = reasoner.head.model
    assert isinstance(model, LatticeDeductionTransformer)
    network = model.network
    lattice = torch.ones(ROWS, network.cells, network.candidates)
    examples: Examples = {"lattice": lattice}
    graph = Graph()
    before, loop, heads = lattice_network(model)
    _add_network(graph, before, loop, model.settings.n_loops, examples)
    graph.include(heads, [examples["h"], examples["cls"]], "heads", {"h": "last_h", "cls": "last_cls"})
    results = [value_info(name, lattice) for name in ("keep", "digit")] + [value_info("conflict", lattice[:, 0, 0])]
    return graph.model([value_info("lattice", lattice)], results, _metadata(reasoner, "network"))


def _add_step(graph: Graph, parts: StepParts, examples: Examples) -> None:
    """Add a step: from the values `parts.inputs` to `logits`, `q_halt_logits` and the following states."""
    renamed: Mapping[str, str] = {}
    if parts.before is not None and parts.loop is not None:
        _add_network(graph, parts.before, parts.loop, parts.loops, examples)
        renamed = {"h": "last_h", "cls": "last_cls"}
    graph.include(parts.after, [examples[name] for name in parts.after.inputs], "step", renamed)


def _add_network(graph: Graph, before: Part, loop: Part, loops: int, examples: Examples) -> None:
    """Add the looped network of an LDT: from `lattice` to `last_h` and `last_cls`."""
    graph.include(before, [examples["lattice"]], "before", {})
    examples |= call_part(before, examples)
    h = examples["h0"].clone()  # torch would take one tensor in two places for one argument
    examples |= {"h": h, "cls": h[:, 0].clone()}
    graph.constant("loops", loops, np.int64)
    graph.constant("first_place", 0, np.int64)
    graph.add("Gather", ["h0", "first_place"], ["first_cls"], axis=1)  # of the right shape; no loop reads it
    body = Graph(graph)
    following = {"h": "next_h", "cls": "next_cls"}
    arguments = [examples[name] for name in loop.inputs]
    body.include(Part(loop.module, loop.inputs, ("next_h", "next_cls")), arguments, "loop", {})
    carried = [
        Carried(first, name, following[name], f"last_{name}", examples[name])
        for first, name in (("h0", "h"), ("first_cls", "cls"))
    ]
    graph.loop("network_loop", "loops", body, carried, {})


def _add_answers(graph: Graph, logits: str, q_halt: str) -> None:
    graph.add("ArgMax", [logits], ["answers_int64"], axis=-1, keepdims=0)
    graph.add("Cast", ["answers_int64"], ["answers"], to=TensorProto.INT32)
    graph.add("Sigmoid", [q_halt], ["halt_probability"])


def _metadata(reasoner: Reasoner, kind: str) -> dict[str, str]:
    """Texts in the file that say what it is."""
    task, arch = reasoner.task, reasoner.origin.arch
    values: dict[str, Any] = {
        "task": task.name,
        "task_options": reasoner.origin.task_options,
        "architecture": arch.name,
        "seq_len": task.seq_len,
        "vocabulary": "".join(task.look().character(token) for token in range(task.vocab_size)),
        "max_steps": reasoner.origin.max_steps or reasoner.head.model.config.halt_max_steps,
        "kind": kind,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
