"""Acceleration without fused operators; test_fused.py tests it with them."""

import sys
from typing import Any

import pytest

from models.acceleration import accelerate
from tests.models.small import small_model
from utils.machine import Machine, choose_machine


def machine(compile: Any) -> Machine:
    return choose_machine("cpu", "float32", compile)


def test_an_absent_folder_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISABLE_COMPILE", raising=False)
    monkeypatch.setitem(sys.modules, "models.fused.convert", None)
    found = accelerate(small_model(), machine("auto"))
    assert (found.compiled, found.fused, found.fuse_reason) == (False, False, "models/fused is not here")
    assert found.optimizer_update is None
    assert "fused operators: no (models/fused is not here)" in str(found)


def test_the_folder_is_not_asked_where_the_user_wants_nothing_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "models.fused.convert", None)
    found = accelerate(small_model(), machine(False))
    assert (found.compile_reason, found.fuse_reason) == ("compile=false", "compile=false")


@pytest.mark.thorough
@pytest.mark.parametrize("compiles", [False, True])
def test_blocks_are_compiled_as_asked(compiles: bool):
    model = small_model()
    assert accelerate(model, machine(compiles)).compiled == compiles
    assert model.compiled == compiles
    blocks = model.blocks
    assert [block._compiled_call_impl is not None for block in blocks] == [compiles] * len(blocks)


@pytest.mark.parametrize("work", [0, 1e18])
def test_of_its_own_accord_a_cpu_compiles_long_runs_alone(work: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISABLE_COMPILE", raising=False)
    monkeypatch.setattr("utils.machine.cpp_compiler", lambda: "g++")
    assert accelerate(small_model(), machine("auto"), work).compiled == (work > 0)
