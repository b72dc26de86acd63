"""Traces: compared with the steps of the model itself, and with a file read by numpy alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.answers import HaltRule
from evaluators.trace.motion import motion
from evaluators.trace.trace import Trace, join, load_trace
from models.losses import log_stablemax
from tests.evaluators.small_reasoners import small_head
from tests.evaluators.trace.traces import TASK, made_trace, puzzles, small_trace
from utils.errors import UserError


def test_a_trace_holds_what_the_model_computes():
    head, data = small_head("sudoku").eval(), puzzles(5)
    trace = small_trace(head=head, data=data, inner=True)
    batch = {name: torch.from_numpy(values) for name, values in data.items()}
    before = None
    for step, (states, outputs) in enumerate(head.model.answer_steps(batch)):
        log = log_stablemax(outputs["logits"].float())
        probability = log.exp().amax(-1)
        entropy = -(log.exp() * log).sum(-1) / np.log(2)
        assert np.array_equal(trace["answers"][:, step], outputs["logits"].argmax(-1))
        np.testing.assert_allclose(trace["probability"][:, step], probability, atol=1e-3)
        np.testing.assert_allclose(trace["entropy"][:, step], entropy, atol=2e-3)
        np.testing.assert_array_equal(trace["halt"][:, step], outputs["q_halt_logits"].sigmoid())
        wants = (trace["halt"][:, step] > 0.5) & (trace["halted_at"] >= step + 1)
        assert np.array_equal(wants, trace["halted_at"] == step + 1)
        if before is not None:
            moved = (states["z_H"] - before).flatten(1).norm(dim=1) / states["z_H"].flatten(1).norm(dim=1)
            np.testing.assert_allclose(trace["change"][:, step, 0], moved, rtol=1e-5)
        before = states["z_H"]
    assert trace.about["updates"] == ["z_L", "z_L", "z_H"] * 2
    assert np.array_equal(trace["inner_answers"][:, :, -1], trace["answers"])
    np.testing.assert_allclose(trace["inner_halt"][:, :, -1], trace["halt"], atol=1e-6)
    solved = TASK.check(data["inputs"], trace["answers"][:, -1])["solved"]
    assert np.array_equal(trace["right"][:, -1], solved)
    assert np.isnan(trace["change"][:, 0]).all()
    assert trace["labels"].tolist() == data["labels"].tolist()


def test_the_number_of_puzzles_at_once_does_not_matter():
    one, other = small_trace(5), small_trace(5, rows=2)
    for name in one.arrays:
        np.testing.assert_allclose(one[name], other[name], atol=1e-3, err_msg=name)
    assert (len(other), other.steps) == (5, 6)


def test_an_answer_must_stay_for_the_rule_to_stop():
    trace = small_trace(6, rule=HaltRule(0.0, True))
    for row in range(6):
        same = [(trace["answers"][row, s] == trace["answers"][row, s - 1]).all() for s in range(1, trace.steps)]
        assert trace["halted_at"][row] == (same.index(True) + 2 if any(same) else 0)


def test_what_became_of_a_puzzle():
    right = [
        [False, True, True],
        [True, False, False],
        [False, False, True],
        [False, False, False],
        [True, True, False],
    ]
    trace = made_trace(right, [2, 0, 1, 0, 2])
    assert trace.solved.tolist() == [True, False, False, False, True]
    assert trace.halted_too_early.tolist() == [False, False, True, False, False]
    assert trace.lost.tolist() == [False, True, False, False, False]
    late = made_trace(right, [2, 0, 1, 0, 2], early_halting=False)
    assert late.solved.tolist() == [True, False, True, False, False]
    assert late.lost.tolist() == [False, True, False, False, True]
    assert join([trace, late]).take(np.array([5, 0]))["right"].tolist() == [right[0], right[0]]


def test_motion_of_a_latent():
    steps = 12
    falling, still = np.geomspace(1, 0.05, steps), np.full(steps, 0.001)
    cases = [
        (still, still),
        (falling, falling),
        (np.full(steps, 0.5), np.full(steps, 0.01)),
        (np.full(steps, 0.5),) * 2,
    ]
    trace = made_trace([[False] * steps] * 4, [0] * 4)
    arrays = trace.arrays | {
        "change": np.stack([case[0] for case in cases])[..., None],
        "change_two": np.stack([case[1] for case in cases])[..., None],
    }
    found = motion(Trace(trace.about, arrays, []))
    assert found == [["settled"], ["converging"], ["oscillating"], ["drifting"]]
    assert motion(made_trace([[True, True]], [0])) == [["unknown"]]


def test_the_file_is_read_by_numpy_alone(tmp_path: Path):
    trace = small_trace(inner=True)
    trace.save(tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz", allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        assert set(file.files) == {*trace.arrays, "about", "votes"}
        for name in trace.arrays:
            assert np.array_equal(file[name], trace[name], equal_nan=trace[name].dtype.kind == "f")
    assert about == trace.about
    assert about["characters"] == " .1234"
    assert load_trace(tmp_path / "trace.npz").about == trace.about


def test_damaged_files_are_refused(tmp_path: Path):
    path = tmp_path / "trace.npz"
    small_trace().save(path)
    whole = path.read_bytes()
    contents = [b"", b"text", whole[: len(whole) // 2], whole[:-30]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no trace, or damaged|cannot be read"):
            load_trace(path)
    np.savez(path, about=np.array("{}"), votes=np.array("[]"))
    with pytest.raises(UserError, match="format_version None"):
        load_trace(path)
    made = made_trace([[True]], [0])
    Trace(made.about, {**made.arrays, "halt": np.zeros((1, 2))}, []).save(path)
    with pytest.raises(UserError, match="has the shape"):
        load_trace(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_trace(tmp_path / "nowhere.npz")
