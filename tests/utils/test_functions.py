"""Finding classes by the names that configuration files use, and what is said where there is none."""

from importlib import import_module
from pathlib import Path

import pytest

from models.act import ACTModel
from models.losses import ACTLossHead
from models.recursive_reasoning.hrm import HierarchicalReasoningModel
from models.recursive_reasoning.transformers_baseline import TransformerBaseline
from models.recursive_reasoning.trm import TinyRecursiveModel
from models.recursive_reasoning.trm_hier6 import SixLatentModel
from models.recursive_reasoning.trm_singlez import SingleLatentModel
from utils.errors import UserError
from utils.functions import load_model_class


@pytest.mark.parametrize(
    ("identifier", "found"),
    [
        ("recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", TinyRecursiveModel),
        ("recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1", SingleLatentModel),
        ("recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1", SixLatentModel),
        ("recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1", HierarchicalReasoningModel),
        ("recursive_reasoning.transformers_baseline@Model_ACTV2", TransformerBaseline),
        ("hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", HierarchicalReasoningModel),
        ("recursive_reasoning.trm@TinyRecursiveModel", TinyRecursiveModel),
        ("losses@ACTLossHead", ACTLossHead),
    ],
)
def test_published_names_are_found(identifier: str, found: type):
    assert load_model_class(identifier) is found
    assert issubclass(found, ACTModel) or found is ACTLossHead


def test_the_prefix_tells_the_package():
    assert load_model_class("errors@UserError", prefix="utils.") is UserError


@pytest.mark.parametrize("identifier", ["", "losses", "losses@", "@ACTLossHead"])
def test_what_is_no_name_of_a_class_is_refused(identifier: str):
    with pytest.raises(UserError, match="write module@Class, for example losses@ACTLossHead"):
        load_model_class(identifier)


@pytest.mark.parametrize(
    ("identifier", "suggestion"),
    [
        ("losses@ACTLosHead", "ACTLossHead"),
        ("recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV2", "TinyRecursiveReasoningModel_ACTV1"),
    ],
)
def test_the_nearest_class_is_suggested(identifier: str, suggestion: str):
    with pytest.raises(UserError, match=f"Did you mean '{suggestion}'"):
        load_model_class(identifier)


@pytest.mark.parametrize("identifier", ["lossses@ACTLossHead", "losses.more@ACTLossHead", ".losses@ACTLossHead"])
def test_a_missing_module_is_named(identifier: str):
    with pytest.raises(UserError, match=rf"there is no module models\.{identifier.split('@')[0]}"):
        load_model_class(identifier)


@pytest.mark.parametrize(
    ("identifier", "named"),
    [("recursive_reasoning.tmr@TinyRecursiveModel", "trm"), ("losses@FocalLoss", "ACTLossHead")],
)
def test_what_there_is_is_named(identifier: str, named: str):
    with pytest.raises(UserError, match=rf"\b{named}\b"):
        load_model_class(identifier)


@pytest.mark.parametrize(
    "identifier",
    ["os@stat_result", "..os@stat_result", "../os@stat_result", "losses/../os@stat_result", " os@stat_result"],
)
def test_modules_of_others_are_not_imported(identifier: str, monkeypatch: pytest.MonkeyPatch):
    imported: list[str] = []
    monkeypatch.setattr("importlib.import_module", lambda name: imported.append(name) or import_module(name))
    with pytest.raises(UserError, match="there is no module models"):
        load_model_class(identifier)
    assert set(imported) <= {"models", "models.os"}


@pytest.mark.parametrize("identifier", ["losses@Tensor", "pretrained@Path"])
def test_classes_that_a_module_has_from_elsewhere_are_not_found(identifier: str):
    with pytest.raises(UserError, match="has no class"):
        load_model_class(identifier)


def test_a_function_is_no_class():
    with pytest.raises(UserError, match="has no class stablemax_cross_entropy"):
        load_model_class("losses@stablemax_cross_entropy")


def test_a_module_that_cannot_import_something_else_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_module.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_model_class("broken_module@Anything", prefix="")
