"""Exported models compute what the model computes, for any number of puzzles and steps."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluators.loading import load
from exporting.checks import TOLERANCE, Comparison, compare, onnx_session, original_answers
from exporting.program import answer_program, save_program
from exporting.results import check_int8
from exporting.step import EXPORTABLE, step_parts
from tests.evaluators.small_reasoners import write_run
from tests.exporting.small import ARCHITECTURES, SHORT, answers_of, small_reasoner
from tests.runs import environment, refused, start
from tests.structure import imports, sources
from utils.errors import UserError

QUICK = ("trm_mlp",)  # the others take as long, and are for the slow tests
RNG = np.random.default_rng(0)


def check_onnx(folder: Path, architecture: str, rows: int = 1) -> None:
    """Compare the ONNX model of an architecture with itself, at several numbers of puzzles and steps."""
    import onnx

    from exporting.onnx_models import answer_model

    reasoner = small_reasoner(architecture, rows)
    path = folder / "model.onnx"
    onnx.save_model(answer_model(reasoner), path)
    session = onnx_session(path)
    for count, steps in ((1, 3), (4, 1)):
        inputs = RNG.integers(1, reasoner.task.vocab_size, (count, reasoner.task.seq_len))
        ids = RNG.integers(0, rows, count)
        feeds = {"inputs": inputs, "steps": np.array(steps)} | ({"puzzle_identifiers": ids} if rows > 1 else {})
        logits, answers, halt = (np.asarray(value) for value in session.run(None, feeds))
        expected = answers_of(reasoner, inputs, steps, ids)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        assert (answers == expected.argmax(-1)).all()
        assert halt.shape == (steps, count)


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=pytest.mark.thorough if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES],
)
def test_onnx_computes_what_the_model_computes(tmp_path: Path, architecture: str):
    pytest.importorskip("onnxruntime")
    check_onnx(tmp_path, architecture)


@pytest.mark.slow
def test_onnx_with_an_embedding_for_each_puzzle(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    check_onnx(tmp_path, "trm", rows=3)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "rows"), [("trm", 3), ("ldt", 1)])
def test_torch_computes_what_the_model_computes(tmp_path: Path, architecture: str, rows: int):
    reasoner = small_reasoner(architecture, rows)
    save_program(answer_program(reasoner), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    inputs, ids = RNG.integers(1, 6, (3, 16)), RNG.integers(0, rows, 3)
    logits, halt = program(torch.from_numpy(inputs), torch.zeros(5), *([torch.from_numpy(ids)] if rows > 1 else []))
    np.testing.assert_allclose(logits.numpy(), answers_of(reasoner, inputs, 5, ids), rtol=1e-4, atol=1e-4)
    assert halt.shape == (5, 3)


def test_formats_without_onnx_do_without_its_packages():
    files = sources()
    seen, waiting = set(), ["export"]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        found = imports(module, files[module], set(files), top_level_only=True)
        waiting += [other for other in found if other not in seen]
    assert "exporting.program" in seen
    for module in seen:
        names = [line.split()[1] for line in files[module].read_text().splitlines() if re.match("(import|from) ", line)]
        assert not [name for name in names if name.split(".")[0].startswith("onnx")], module


def test_every_exportable_architecture_is_compared():
    compared = {
        str(arch.get("name", "recursive_reasoning.trm@")).split("@")[0].split(".")[1] for arch in ARCHITECTURES.values()
    }
    assert compared == set(EXPORTABLE)


def test_architectures_that_start_at_random_are_refused(tmp_path: Path):
    reasoner = load(write_run(tmp_path / "run", "sudoku", name="recursive_reasoning.eqr@EqRModel", **SHORT), "cpu")
    with pytest.raises(UserError, match="the architecture eqr cannot be exported.*Allowed are trm, "):
        step_parts(reasoner.head.model)


# -- export.py ---------------------------------------------------------------------------------------------------------

LOAD = """
import sys, numpy, torch
program = torch.export.load("model.pt2").module()
logits, halt = program(torch.from_numpy(numpy.load("inputs.npy")), torch.zeros(4))
numpy.save("logits.npy", logits.numpy())
assert "models" not in sys.modules and halt.shape == (4, 5)
"""


@pytest.mark.thorough
def test_files_of_export_py(tmp_path: Path):
    """Each format from the command to the file; the file of torch in a process that has none of this code."""
    run = write_run(tmp_path / "run", "sudoku", **SHORT)
    reasoner = load(run, "cpu", dtype="float32")
    inputs = RNG.integers(1, 6, (5, 16))
    expected = answers_of(reasoner, inputs, 4)

    common = [f"load_checkpoint={run}", "check_puzzles=5", "halt_max_steps=2"]
    output = start("export.py", [*common, "format=torch", "output=model.pt2"], tmp_path)
    assert "torch: 5 puzzles, 2 steps: 0 with another answer" in output
    np.save(tmp_path / "inputs.npy", inputs)
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-4)

    start("export.py", [*common, "format=safetensors", "output=saved"], tmp_path)
    assert (answers_of(load(tmp_path / "saved", "cpu", dtype="float32"), inputs, 4) == expected).all()

    pytest.importorskip("onnxruntime")
    output = start("export.py", [*common, "int8=true"], tmp_path)
    assert "ONNX: 5 puzzles" in output
    assert "int8: 5 puzzles" in output
    assert (tmp_path / "exports" / "run-step_3.onnx").is_file()


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ([], ["load_checkpoint is missing"]),
        (["load_checkpoint=nothing"], ["there is no model 'nothing'", "sudoku_6x6"]),
        (["load_checkpoint=sudoku_6x6", "format=torch", "int8=true"], ["int8=true: only for format=onnx"]),
        (["load_checkpoint=sudoku_6x6", "format=tflite"], ["format", "onnx", "safetensors"]),
        (["load_checkpoint=sudoku_6x6", "output=."], ["is a folder"]),
    ],
)
def test_wrong_settings_are_refused(settings: list[str], parts: list[str]):
    refused("export", settings, *parts)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
def test_broken_and_foreign_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "step_1").write_bytes(content)
    (tmp_path / "model.onnx").write_bytes(content)
    refused("export", [f"load_checkpoint={tmp_path / 'step_1'}"], str(tmp_path / "step_1"))
    refused("export", [f"load_checkpoint={tmp_path / 'model.onnx'}"], str(tmp_path / "model.onnx"))


# -- 8 bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_that_loses_puzzles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rounded to 3 bits instead of 8, the cells of a Sudoku are still mostly right, and its puzzles are not."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("exporting.int8._LARGEST_INT", 3)
    settings = ["check_puzzles=20", "halt_max_steps=4", f"output={tmp_path / 'model.onnx'}", "int8=true"]
    refused(
        "export",
        ["load_checkpoint=sudoku_6x6", *settings],
        "int8: with its weights in 8 bits the model solves",
        "of 20 puzzles, before 20",
        "int8_points=100",
    )
    assert not (tmp_path / "model.onnx").exists()


def test_rounding_that_grows_is_allowed_and_other_differences_are_not():
    reasoner = small_reasoner("trm")
    inputs, answers = RNG.integers(1, reasoner.task.vocab_size, (6, reasoner.task.seq_len)), original_answers(reasoner)

    def off(by: float, step: int):
        def exported(part: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
            logits, halt = answers(part, steps)
            logits[step:] += by
            return logits, halt

        return exported

    for by, step, same in ((0.0, 0, True), (TOLERANCE / 2, 0, True), (1e-2, 0, False), (1e-2, 2, False)):
        found = compare(reasoner, off(by, step), inputs, 4)
        assert found.same == same, (by, step)
        assert found.unexplained == (0 if same else 6)


def test_ties_are_no_other_answers():
    reasoner = small_reasoner("trm")
    inputs = RNG.integers(1, reasoner.task.vocab_size, (3, reasoner.task.seq_len))

    def answers(gaps: tuple[float, float, float]):
        """The second token is ahead of the first in one cell of each puzzle, by a gap."""

        def answer(part: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
            logits = np.full((steps, *part.shape, reasoner.task.vocab_size), -2.0, np.float32)
            logits[..., 1] = 0.5
            logits[:, :, 4, 2] = 0.5 + np.array(gaps)
            return logits, np.zeros((steps, len(part)), np.float32)

        return answer

    found = compare(reasoner, answers((-5e-5, 5e-5, -1e-3)), inputs, 1, original=answers((4e-5, 6e-5, 1e-3)))
    assert (found.wrong, found.tied) == (1, 1)
    assert not found.same
    found = compare(reasoner, answers((-5e-5, 5e-5, 1e-3)), inputs, 1, original=answers((4e-5, 6e-5, 1e-3)))
    assert (found.wrong, found.tied, found.same) == (0, 1, True)
    assert "1 puzzles differ in a tie" in str(found)


@pytest.mark.parametrize(("exact", "points", "refuses"), [(199, 0.5, False), (198, 0.5, True), (100, 50, False)])
def test_how_much_8_bits_may_lose(exact: int, points: float, refuses: bool):
    result = Comparison(200, 16, 0, 0, 0.01, 0.01, 0, 0, exact, 200, 1.0, 1.0, 1.0)
    if refuses:
        with pytest.raises(UserError, match=f"solves {exact} of 200 puzzles, before 200: it loses 1.0 points"):
            check_int8(result, points)
    else:
        check_int8(result, points)


def test_rounding_to_8_bits_takes_the_better_axis():
    pytest.importorskip("onnx")
    from exporting.int8 import _rounded

    values: Any = RNG.normal(size=(40, 50)).astype(np.float32)
    values[:, 7] *= 1000
    axis, whole, scale = _rounded(values)
    assert axis == 1
    assert whole.dtype == np.int8
    error = np.abs(whole * scale - values) / np.abs(values).max(axis=0)
    assert error.max() <= 0.5 / 127 + 1e-6
    assert _rounded(values.T)[0] == 0
    assert torch.from_numpy(whole).abs().max() == 127
