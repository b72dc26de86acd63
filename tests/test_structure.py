"""The structure of the source tree: the direction of imports, who may set attributes, and the length of programs."""

from pathlib import Path

import pytest

from tests.structure import (
    PROGRAMS,
    attributes_set_from_outside,
    circle,
    functions,
    import_statements,
    imports,
    sources,
)

FILES = sources()
# package -> packages that it may import, besides itself
ALLOWED = {
    "utils": set(),
    "models": {"utils"},
    "dataset": {"utils"},
    "evaluators": {"dataset", "models", "utils"},
    "exporting": {"evaluators", "dataset", "models", "utils"},
    "studies": {"evaluators", "dataset", "models", "utils"},
}
# libraries that a package must not know
FOREIGN = {"models": {"hydra", "omegaconf", "wandb"}, "dataset": {"hydra", "omegaconf", "wandb"}}
# the interfaces of torch, tokenizers, pydantic and onnxruntime: gradients, storages, parts, defaults and threads
LIBRARY_ATTRIBUTES = (".grad", ".data", ".pre_tokenizer", "field.default", ".intra_op_num_threads", ".cache_key_tag")
LONGEST_TRAIN = 92


@pytest.mark.parametrize("module", FILES)
def test_imports_go_one_way(module: str):
    package = module.split(".")[0]
    allowed = ALLOWED.get(package)
    if allowed is None:
        return  # programs, benchmarks and scripts import everything
    found = {other.split(".")[0] for other in imports(module, FILES[module], set(FILES))}
    assert found <= allowed | {package}


def test_there_is_no_circle_of_imports():
    graph = {module: imports(module, file, set(FILES), top_level_only=True) for module, file in FILES.items()}
    assert circle(graph) is None


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize("package", FOREIGN)
def test_libraries_of_the_programs_stay_out(package: str):
    for module, file in FILES.items():
        if module.split(".")[0] == package:
            lines = [line.split() for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
            words = {line[1].split(".")[0] for line in lines}
            assert not words & FOREIGN[package], module


@pytest.mark.parametrize("module", FILES)
def test_nobody_sets_the_attributes_of_another(module: str):
    found = [line for line in attributes_set_from_outside(FILES[module]) if not line.endswith(LIBRARY_ATTRIBUTES)]
    assert not found


def test_attributes_set_from_outside_are_found(tmp_path: Path):
    file = tmp_path / "source.py"
    lines = ["def f(self, x):", "self.a = 1", "x.b = 2", "x.c, y = 1, 2", "x.d += 1", "setattr(x, 'e', 1)"]
    file.write_text("\n    ".join(lines))
    assert attributes_set_from_outside(file) == ["3: x.b", "4: x.c", "5: x.d", "6: setattr(x, 'e', 1)"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_read_in_one_sitting(program: str):
    lengths = dict(functions(FILES[program]))
    assert max(lengths.values()) <= LONGEST_TRAIN
    assert import_statements(FILES[program]) <= 20
