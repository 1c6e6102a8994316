"""Imports point downward: no two modules need each other, and the package needs no command line and no extra. And where
the same names are said in two places, they are the same."""

import ast
import graphlib
import re
from pathlib import Path

import numpy as np
import pytest

import softxent
from softxent import _kernels, reference

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


def test_cython_is_told_of_everything_in_the_header():
    """A field or a function that is left out is missed by nobody before a user wants it."""
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "cext/include/softxent.h").read_text(encoding="utf-8"), flags=re.S)
    declared = set(re.findall(r"[a-zA-Z_]\w*", header[header.index("enum softxent_status {") :]))
    told = set(re.findall(r"[a-zA-Z_]\w*", (PACKAGE / "cext.pxd").read_text(encoding="utf-8")))
    assert {"log_base", "top_stride", "softxent_begin_f32", "SOFTXENT_BFLOAT16"} <= declared
    words = {"SOFTXENT_API", "typedef", "ifdef", "endif", "__cplusplus", "enum", "unsigned"}
    types = set(re.findall(r"enum (\w+) \{", header))  # Cython has their values alone
    assert declared - words - types <= told


def test_every_instruction_set_has_its_files_and_is_named_where_it_can_be_chosen():
    listed = re.search(r"define SOFTXENT_ISAS\(ISA\) (.*)", (ROOT / "cext/src/kernels.h").read_text(encoding="utf-8"))[
        1
    ]
    names = re.findall(r"ISA\((\w+)\)", listed)
    assert names[-1] == "scalar"
    assert {*names} == {path.stem.removeprefix("kernels_") for path in ROOT.glob("cext/src/kernels_*.c")}
    assert {*names} == {path.stem.removeprefix("test_simd_") for path in ROOT.glob("cext/tests/test_simd_*.c")}
    header, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("cext/include/softxent.h", "README.md"))
    for name in names:
        assert f'"{name}"' in header
        assert re.search(rf"SOFTXENT_ISA=\S*\b{name}\b", readme)


def test_the_reference_has_every_function_of_numbers():
    housekeeping = {"__version__", "show_config", "get_num_threads", "set_num_threads"}
    housekeeping |= {"get_cmake_dir", "get_include", "get_library_dir"}
    assert {*softxent.__all__} - housekeeping == {*reference.__all__}


def holds_arrays(call, name):
    """Whether this attribute takes arrays and nothing else."""
    try:
        setattr(call, name, np.zeros(1))
    except (AttributeError, TypeError):
        return False
    try:
        setattr(call, name, "no array")
    except TypeError:
        return True
    return False


def test_every_array_of_a_call_with_entries_for_samples_is_cut_into_pieces():
    """One that is not would be written, or read, from its first sample on in every piece."""
    names = {name for name in dir(_kernels.Call) if not name.startswith("_") and holds_arrays(_kernels.Call(), name)}
    names -= {"class_weight"}
    call, arrays = _kernels.Call(), {name: np.zeros(1) for name in names}
    for name, array in arrays.items():
        setattr(call, name, array)
    assert {id(array) for array in call.arrays()} == {id(array) for array in arrays.values()}
    assert len(call.arrays()) == len(_kernels.FIELDS) == len(names)
