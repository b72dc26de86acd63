"""A folder that any static server serves: a page in which models solve puzzles, computed in the browser."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from dataset.tasks.sudoku import Sudoku
from dataset.tasks.sudoku.generate import generate_puzzle
from dataset.tasks.sudoku.rules import TOKEN_OFFSET
from evaluators.answers import HaltRule
from evaluators.loading import shipped_names
from evaluators.reasoner import SEARCH, Reasoner
from exporting.checks import TOLERANCE, Answers, compare, onnx_session, sample_puzzles
from exporting.examples import example_values
from exporting.int8 import quantised
from exporting.models import load_exact, name_of, steps_of
from exporting.npm import runtime_files
from exporting.onnx_models import network_model, step_model
from exporting.results import accept, check_int8
from exporting.step import step_parts
from models.factory import count_parameters
from models.recursive_reasoning.ldt import LatticeDeductionTransformer
from utils.errors import UserError
from utils.files import writing_to
from utils.settings import ExportConfig

PAGE = Path(__file__).parent / "page"
MODELS = "models.json"
_TASKS = {"sudoku": "Sudoku", "maze": "Maze"}
_EXAMPLES = 5
_OTHER_OUTPUT = "Choose another output."


def write_page(config: ExportConfig) -> Path:
    """Write the page, with one model or with all of weights/ that it can show: the folder.

    Raises:
        UserError: a model cannot be loaded, exported or shown, or onnxruntime-web cannot be had.
    """
    output = Path(config.output) if config.output is not None else Path("exports") / "page"
    if (
        output.resolve() == Path.cwd()
        or output.is_file()
        or (output.is_dir() and any(output.iterdir()) and not (output / MODELS).is_file())
    ):
        raise UserError(f"output={output} is there and is no page. Give a new folder, so that nothing is overwritten.")
    page_of(config, _models(config), output)
    print(f"page: {output}\nServe it, for example with: python -m http.server --directory {output}")
    return output


def page_of(config: ExportConfig, reasoners: list[Reasoner], output: Path) -> None:
    """Write a page with these models, which is complete or not there at all.

    Raises:
        UserError: see `write_page`.
    """
    runtime = runtime_files(config.onnxruntime_web)
    building = output.resolve().with_name(f".{output.name}.writing")
    shutil.rmtree(building, ignore_errors=True)  # of a program that was killed
    try:
        with writing_to(output, _OTHER_OUTPUT):
            building.mkdir(parents=True)
            shutil.copytree(PAGE, building, dirs_exist_ok=True)
            for folder in ("ort", "models"):
                (building / folder).mkdir()
            for name, content in runtime.items():
                (building / "ort" / name).write_bytes(content)
            entries = []
            for reasoner in reasoners:
                print(f"model: {reasoner.origin.path}\n{reasoner}")
                entries.append(_write_model(config, reasoner, building))
            (building / MODELS).write_text(json.dumps({"models": _titled(entries)}, indent=1) + "\n")
            if output.exists():
                shutil.rmtree(output)
            building.rename(output)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _models(config: ExportConfig) -> list[Reasoner]:
    """The models of the page: the one that is asked for, or those of weights/ that it can show.

    Raises:
        UserError: the one that is asked for cannot be loaded or shown.
    """
    if config.load_checkpoint is not None:
        reasoner = load_exact(config, config.load_checkpoint)
        _check_shown(reasoner)
        return [reasoner]
    shown: list[Reasoner] = []
    for name in sorted(shipped_names()):
        reasoner = load_exact(config, name)
        try:
            _check_shown(reasoner)
        except UserError as error:
            print(f"not on the page: {error}")
        else:
            shown.append(reasoner)
    return shown


def _check_shown(reasoner: Reasoner) -> None:
    """Check that the page can show the puzzles of a model.

    Raises:
        UserError: it cannot, or the model cannot be exported at all.
    """
    task, table = reasoner.task, reasoner.head.model.puzzle_emb
    step_parts(reasoner.head.model)
    if task.name not in _TASKS:
        raise UserError(
            f"{reasoner.origin.path}: the page shows {' and '.join(_TASKS)}, and this model is for {task.name}. "
            "Use format=onnx for it."
        )
    if reasoner.searches and task.name != "sudoku":
        raise UserError(
            f"{reasoner.origin.path}: the page searches for solutions of Sudokus only, and this LDT is for "
            f"{task.name}. Use format=onnx for it."
        )
    if table is not None and len(table.weights) > 1:
        raise UserError(
            f"{reasoner.origin.path}: the page has no puzzles by name, as this model needs. Use format=onnx."
        )
    if reasoner.head.model.inner.compares_continue:
        raise UserError(
            f"{reasoner.origin.path}: the page halts by the halting head alone, and this model (no_ACT_continue=false) "
            "compares it with another head. Use format=onnx."
        )


def _write_model(config: ExportConfig, reasoner: Reasoner, output: Path) -> dict[str, Any]:
    """Write the file of a model and compare it with the model: what the page must know of it."""
    name = name_of(reasoner)
    path = output / "models" / f"{name}.onnx"
    searches = reasoner.searches
    model = network_model(reasoner) if searches else step_model(reasoner)
    onnx.save_model(model, path)
    _check(config, reasoner, path)
    if config.int8:
        onnx.save_model(quantised(model), path)
        _check(config, reasoner, path, int8=True)
    look = reasoner.task.look()
    entry: dict[str, Any] = {
        "name": name,
        "task": reasoner.task.name,
        "kind": "search" if searches else "recursion",
        "file": f"models/{path.name}",
        "height": look.height,
        "width": look.width,
        "box": look.box,
        "cells": reasoner.task.seq_len,
        "parameters": count_parameters(reasoner.head),
        "examples": examples(reasoner, _EXAMPLES),
    }
    return entry | (_search_settings(reasoner) if searches else _recursion_settings(reasoner))


def _recursion_settings(reasoner: Reasoner) -> dict[str, Any]:
    parts, values = example_values(reasoner)
    kinds = {torch.float32: "float32", torch.bool: "bool"}
    states = {name: {"type": kinds[values[name].dtype], "shape": list(values[name].shape[1:])} for name in parts.states}
    steps = reasoner.origin.max_steps or reasoner.head.model.config.halt_max_steps
    return {"states": states, "max_steps": steps, "halt_threshold": HaltRule().threshold}


def _search_settings(reasoner: Reasoner) -> dict[str, Any]:
    model = reasoner.head.model
    assert isinstance(model, LatticeDeductionTransformer)
    places = model.permutations if model.uses_symmetries else model.permutations[:1]
    return {
        "candidates": model.network.candidates,
        "search": {
            "chains": SEARCH.chains,
            "rounds": SEARCH.rounds,
            "conflict_threshold": SEARCH.conflict_threshold,
            "kill_threshold": model.settings.kill_threshold,
            "temperature": model.settings.temperature,
            "symmetries": model.uses_symmetries,
            "permutations": places.tolist(),
        },
    }


def examples(reasoner: Reasoner, count: int) -> list[str]:
    """Puzzles that the page offers, as texts: harder ones for a model that searches."""
    task = reasoner.task
    if reasoner.searches and isinstance(task, Sudoku):
        inputs = _hard_sudokus(task, count)
    else:
        inputs, _ = sample_puzzles(reasoner, count)
    return ["\n".join(task.rows(tokens)).replace(" ", ".") for tokens in inputs]


def _hard_sudokus(task: Sudoku, count: int) -> np.ndarray:
    """Sudokus from which no clue can be taken."""
    puzzles = [generate_puzzle(task.box, random.Random(seed))[0] for seed in range(count)]
    return np.array(puzzles, np.uint8) + TOKEN_OFFSET


def _titled(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries in the order of the page, small puzzles first, each with a title that no other has."""
    ordered = sorted(entries, key=lambda entry: (list(_TASKS).index(entry["task"]), entry["cells"], entry["kind"]))
    for entry in ordered:
        title = f"{_TASKS[entry['task']]} {entry['height']}\u00d7{entry['width']}"
        entry["title"] = f"{title} by search" if entry["kind"] == "search" else title
    titles = [entry["title"] for entry in ordered]
    for entry in ordered:
        if titles.count(entry["title"]) > 1:
            entry["title"] = f"{entry['title']} ({entry['name']})"
    return ordered


# -- the check ---------------------------------------------------------------------------------------------------------


def _check(config: ExportConfig, reasoner: Reasoner, path: Path, int8: bool = False) -> None:
    """Compare the file of a model with the model.

    Raises:
        UserError: it computes something else, or in 8 bits solves fewer puzzles than allowed.
    """
    inputs, source = sample_puzzles(reasoner, config.check_puzzles)
    if reasoner.searches:
        _check_network(reasoner, path, inputs, config, int8)
        return
    result = compare(reasoner, step_answers(reasoner, path), inputs, steps_of(config, reasoner))
    print(f"compared on {source} puzzles")
    check_int8(result, config.int8_points) if int8 else accept(result, path.name)


def step_answers(reasoner: Reasoner, path: Path) -> Answers:
    """The answers of a file that `exporting.onnx_models.step_model` has made, one step after the other."""
    session = onnx_session(path)
    parts, values = example_values(reasoner)

    def answers(inputs: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        states = [np.zeros((len(inputs), *values[name].shape[1:]), values[name].numpy().dtype) for name in parts.states]
        logits, halts = [], []
        for step in range(steps):
            given = {f"given_{name}": state for name, state in zip(parts.states, states, strict=True)}
            feeds = {"begin": np.array(step == 0), "inputs": inputs, **given}
            outputs = ["logits", "halt_probability", *(f"next_{name}" for name in parts.states)]
            own, halt, *states = (np.asarray(value) for value in session.run(outputs, feeds))
            logits.append(own)
            halts.append(halt)
        return np.stack(logits), np.stack(halts)

    return answers


def _check_network(reasoner: Reasoner, path: Path, inputs: np.ndarray, config: ExportConfig, int8: bool) -> None:
    """Compare the network of an LDT on the lattices of puzzles, as they are and after some deductions.

    In 8 bits it may differ: what the search finds is checked by the rules, so that it can be slower but not wrong.

    Raises:
        UserError: it computes something else.
    """
    model = reasoner.head.model
    assert isinstance(model, LatticeDeductionTransformer)
    session, difference = onnx_session(path), 0.0
    lattice = model.lattice_of(torch.from_numpy(inputs[: config.check_puzzles]))
    for rows in lattice.split(16):
        states = {"lattice": rows, "puzzle": rows}
        for _ in range(2):
            with torch.inference_mode():
                heads = model.network.last(states["lattice"])
                feeds = {"lattice": states["lattice"].float().numpy()}
                states, _ = model.conclude(states, heads)
            for own, other in zip(session.run(["keep", "digit", "conflict"], feeds), heads, strict=True):
                size = np.maximum(1, np.abs(other.numpy()))
                difference = max(difference, float((np.abs(np.asarray(own) - other.numpy()) / size).max()))
    print(f"{path.name}{' in 8 bits' if int8 else ''}: {len(lattice)} puzzles, logits within {difference:.1e}")
    if difference > TOLERANCE and not int8:
        raise UserError(f"{path.name} does not compute what the model computes: logits differ by {difference:.1e}.")
