"""Figures about the structure of the source tree: `python -m tests.structure [ROOT]` prints them.

The rules behind them are tested in tests/test_structure.py.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "bench",
    "dataset",
    "evaluators",
    "exporting",
    "models",
    "scripts",
    "studies",
    "tiny_recursive_model",
    "utils",
)
PROGRAMS = ("pretrain", "pretrain_text", "evaluate", "search", "generate", "export", "report", "study")
# names whose attributes may be assigned: an object's own, and the context of an autograd function
OWN = {"self", "cls", "ctx"}


def sources(root: Path = ROOT) -> dict[str, Path]:
    """Module name -> file, of the programs and the packages (not of the tests)."""
    files = [root / f"{name}.py" for name in PROGRAMS]
    files += [file for package in PACKAGES for file in sorted((root / package).glob("**/*.py"))]
    return {_module_name(file, root): file for file in files if file.exists()}


def _module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: str, file: Path, known: set[str], top_level_only: bool = False) -> set[str]:
    """The modules of the project that `file` imports.

    Args:
        module, file: name and file of the module.
        known: all modules of the project.
        top_level_only: ignore imports inside functions, which cannot cause a circle.
    """
    tree = ast.parse(file.read_text())
    modules: set[str] = set()
    for node in _statements(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # in `from package import name` the name may be a module
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= (names & known) or {node.module}
    return (modules & known) - {module}


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
            yield from _statements(node)


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Modules that import one another in a circle, or None."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for other in sorted(graph[module]):
            found = visit(other, [*path, module])
            if found:
                return found
        done.add(module)
        return None

    return next((found for module in graph if (found := visit(module, []))), None)


def attributes_set_from_outside(file: Path) -> list[str]:
    """`line: target` of each assignment to an attribute of another object."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and _sets_from_outside(node):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(part, ast.Attribute) and ast.unparse(part.value).split(".")[0] not in OWN:
                    found.append(f"{part.lineno}: {ast.unparse(part)}")
    return found


def _sets_from_outside(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("setattr", "delattr") and ast.unparse(call.args[0]) not in OWN


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of each function, without its decorators."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def import_statements(file: Path) -> int:
    """Number of import statements at the top level of a file."""
    return sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(file.read_text()).body)


def figures(root: Path = ROOT) -> dict[str, object]:
    """The figures, by name."""
    files = sources(root)
    graph = {module: imports(module, file, set(files), top_level_only=True) for module, file in files.items()}
    lengths = [(lines, f"{module}.{name}") for module, file in files.items() for name, lines in functions(file)]
    outside = [
        f"{file.relative_to(root)}:{line}" for file in files.values() for line in attributes_set_from_outside(file)
    ]
    result: dict[str, object] = {
        "files": len(files),
        "lines": sum(len(file.read_text().splitlines()) for file in files.values()),
        "attributes set from outside": len(outside),
        "pyright ignores": sum(file.read_text().count("pyright: ignore") for file in files.values()),
        "longest function": "{1}, {0} lines".format(*max(lengths)),
        "circle of imports": circle(graph) or "none",
    }
    for program in PROGRAMS:
        file = files[program]
        main = max((lines, name) for name, lines in functions(file))
        result[f"{program}.py"] = f"{import_statements(file)} import statements; {main[1]}, {main[0]} lines"
    return result


def main() -> None:
    """Print the figures of the tree given as argument, or of this one."""
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    for name, value in figures(root).items():
        print(f"{name:<30}{value}")
    for file in sources(root).values():
        for line in attributes_set_from_outside(file):
            print(f"  {file.relative_to(root)}:{line}")


if __name__ == "__main__":
    main()
