"""Imports point downward: no two modules need each other, and the package needs no command line and no extra."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src/softxent"
if not PACKAGE.exists():
    pytest.skip("the sources are not beside the tests of an installed wheel", allow_module_level=True)


def modules_of(folder, name):
    """The modules of a package, by their full names."""
    found = {}
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.pyx")]):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join([name, *parts]).removesuffix(".__init__")] = path
    return found


def imports(module, path):
    """What a module imports, anywhere in it: pairs of a module's full name and of a name in it, or None. A Cython
    module is not looked at: it is the lowest, and imports nothing of the package."""
    if path.suffix == ".pyx":
        return
    parent = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, None) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((start, name.name) for name in node.names)


def graph(modules):
    """The modules among these that each of them imports."""
    edges = {name: set() for name in modules}
    for module, path in modules.items():
        for start, name in imports(module, path):
            found = f"{start}.{name}" if f"{start}.{name}" in modules else start
            edges[module] |= {found} & modules.keys() - {module}
    return edges


def reached(edges, start):
    """All modules that an import of `start` may import."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges[name]
    return found


@pytest.mark.parametrize(("folder", "name"), [(PACKAGE, "softxent"), (ROOT / "benchmarks", "benchmarks")])
def test_no_two_modules_import_each_other(folder, name):
    edges = graph(modules_of(folder, name))
    assert len(edges) > 5
    graphlib.TopologicalSorter(edges).prepare()  # CycleError names the modules of the cycle


def test_the_package_imports_no_command_line():
    below = reached(graph(modules_of(PACKAGE, "softxent")), "softxent")
    assert "softxent._loss" in below
    assert not {name for name in below if name.startswith(("softxent._cli", "softxent.__main__"))}


def test_tests_import_no_tests():
    for path in (ROOT / "tests").glob("*.py"):
        assert not [start for start, _ in imports(path.stem, path) if start.startswith("test_")], path.name
