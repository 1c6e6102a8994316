"""The package as such: its names, its instruction sets, its documentation's examples, what importing it costs."""

import doctest
import importlib
import inspect
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import softxent
from softxent import _config, _kernels, reference

NAMES = [getattr(softxent, name) for name in softxent.__all__ if name != "__version__"]
FUNCTIONS = [f for f in NAMES if not inspect.isclass(f)]


def run(code, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["_divergence", "_labels", "_loss", "_softmax", "_threads", "_config", "reference"])
def test_the_examples_in_the_docstrings_are_true(name):
    module = importlib.import_module(f"softxent.{name}")
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_every_public_function_has_an_example_and_is_annotated(function):
    assert ">>>" in function.__doc__
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def parameters(function):
    """The parameters without `**unknown`, which exists only for the text of an error."""
    return {name: p for name, p in inspect.signature(function).parameters.items() if p.annotation != "Never"}


def documented_parameters(function):
    """The names before the colons of the numpydoc section, and in lines without a colon."""
    section = inspect.getdoc(function).partition("Parameters\n----------\n")[2]
    lines = itertools.takewhile(lambda line: not line.startswith("---"), section.splitlines())
    names = [line.partition(" :")[0].split(", ") for line in lines if line and not line.startswith(" ")]
    return {name for line in names for name in line}


@pytest.mark.parametrize("function", NAMES, ids=lambda f: f.__name__)
def test_every_parameter_is_documented(function):
    assert set(parameters(function)) <= documented_parameters(function)


@pytest.mark.parametrize("name", [name for name in reference.__all__ if name != "__version__"])
def test_the_reference_defines_what_the_package_offers(name):
    """The names and defaults are the same, except those about where results go and how fast they come."""
    here = parameters(getattr(softxent, name))
    there = dict(inspect.signature(getattr(reference, name)).parameters)
    if there.pop("options", None):  # those that it hands on
        there |= {p: default for p, default in parameters(reference.cross_entropy).items() if p not in there}
    assert set(here) - set(there) <= {"out", "accumulate", "n_threads"}
    assert set(there) <= set(here)
    assert all(here[p].default == there[p].default for p in there)


def test_a_sparse_target_is_documented_and_a_pair_of_arrays_by_name():
    assert [c for c in NAMES if inspect.isclass(c)] == [softxent.SparseTarget]
    target = softxent.SparseTarget(values=[[1.0]], indices=[[0]])
    assert target == ([[0]], [[1.0]])
    assert ">>>" in softxent.SparseTarget.__doc__
    assert softxent.SparseTarget is reference.SparseTarget


def test_the_readmes_example_is_true():
    readme = pathlib.Path(__file__).parents[1] / "README.md"
    if not readme.exists():
        pytest.skip("the README is not beside the tests")
    failed, tried = doctest.testfile(str(readme), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 0
    assert failed == 0


def test_the_forced_instruction_set_is_used():
    for name in _kernels.usable_isas():
        done = run("import softxent; print(softxent._kernels.isa_in_use())", SOFTXENT_ISA=name)
        assert done.stdout.strip() == name


def test_the_fastest_instruction_set_is_the_default():
    done = run("import softxent; print(softxent._kernels.isa_in_use())", SOFTXENT_ISA="")
    assert done.stdout.strip() == _kernels.usable_isas()[0]
    assert _kernels.usable_isas()[-1] == "scalar"


@pytest.mark.parametrize("name", ["avx1024", "AVX2", "neon" if "neon" not in _kernels.usable_isas() else "avx2"])
def test_an_unknown_or_unusable_instruction_set_is_an_error_that_lists_the_usable(name):
    done = run("import softxent; softxent.softmax([0.0])", SOFTXENT_ISA=name)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"RuntimeError: SOFTXENT_ISA={name!r} is unknown or cannot run here; usable are: "
        + ", ".join(_kernels.usable_isas())
    )


def test_the_instruction_sets_agree_to_a_few_eps(dtype, rng):
    z, labels = rng.normal(size=(50, 300)).astype(dtype), rng.integers(0, 300, 50)
    results = []
    before = _kernels.isa_in_use()
    for name in _kernels.usable_isas():
        _kernels.use_isa(name)
        results.append(softxent.cross_entropy_and_grad(z, labels, reduction="none"))
    _kernels.use_isa(before)
    for losses, grad in results[1:]:
        np.testing.assert_allclose(losses, results[0][0], rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad, results[0][1], rtol=60 * np.finfo(dtype).eps)


def test_show_config_tells_what_runs(capsys):
    softxent.show_config()
    printed = capsys.readouterr().out
    for value in (softxent.__version__, _kernels.isa_in_use(), np.__version__):
        assert value in printed
    assert str(_config.config()["num_threads"]) in printed


def test_importing_brings_in_nothing_but_numpy():
    code = "import sys, softxent; print(sorted({m.split('.')[0] for m in sys.modules} & set(%r)))"
    others = ["rich", "matplotlib", "scipy", "torch", "argparse", "multiprocessing", "json"]
    imported_by_numpy = run(f"import sys, numpy; print(sorted(set({others}) & set(sys.modules)))").stdout
    assert run(code % others).stdout == imported_by_numpy


def test_it_is_marked_as_typed():
    assert (pathlib.Path(softxent.__file__).parent / "py.typed").exists()
