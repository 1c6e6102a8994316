"""What carries more than its numbers (a mask, units, a gradient, a graph of work, its own idea of axes) is refused for
every array argument of every function, by a TypeError that names the argument and what would do."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import softxent
from softxent import reference
from softxent._options import Options

Z = np.arange(12.0).reshape(4, 3)
ARRAYS = {
    "logits": Z,
    "labels": np.array([0, 1, 2, 0]),
    "class_weight": np.ones(3),
    "sample_weight": np.ones(4),
    "where": np.ones((4, 3), bool),
    "grad_output": np.ones(4),
    "v": np.ones((4, 3)),
    "g": np.ones((4, 3)),
    "target": np.full((4, 3), 0.5),
    "out": np.full((4, 3), 7.0),
}
MODULES = {"softxent": softxent, "reference": reference}
# Every argument that is an array, by the signatures, including those of functions that pass theirs on as **options.
ARGUMENTS = [
    (where, name, argument)
    for where, module in MODULES.items()
    for name in reference.__all__
    for argument in inspect.signature(getattr(softxent, name)).parameters
    if argument in ARRAYS and (argument != "out" or module is softxent)
]
assert len(ARGUMENTS) > 70


class Lazy:
    """An array like Dask's, as far as the check can tell."""

    dtype, ndim, shape = np.dtype(float), 2, (4, 3)

    def __dask_graph__(self):
        return {"not": "to be computed"}

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was computed")


class Units:
    """A quantity like pint's, which is no NumPy array."""

    units = "metre"

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("the units were stripped")


class ArrayWithUnit(np.ndarray):
    """A quantity like astropy's, which is a NumPy array."""

    unit = "metre"


class MaskedFrame:
    """An object like a table, which becomes a masked array."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.ma.masked_array(self.array, np.zeros_like(self.array, bool))


def sparse(kind):
    def make(array):
        module = pytest.importorskip("scipy.sparse")
        return getattr(module, kind)(np.atleast_2d(array))

    return make


def tensor(array):
    return pytest.importorskip("torch").tensor(np.asarray(array, np.float64))


KINDS = {
    "masked array": (lambda a: np.ma.masked_array(a, np.zeros_like(a, bool)), "a masked array, whose mask"),
    "masked array in a list": (lambda a: [np.ma.masked_array(row, False) for row in a], "a masked array"),
    "masked number in lists": (lambda a: [[[np.ma.masked]]], "a masked array"),
    "table of masks": (MaskedFrame, "a masked array"),
    "matrix": (lambda a: np.atleast_2d(a).view(np.matrix), r"a numpy\.matrix, .*: give numpy\.asarray\("),
    "dask": (lambda a: Lazy(), r"a dask Lazy, .*\.compute\(\)"),
    "units": (Units, "Units, which has units .*: give its plain numbers"),
    "units in a list": (lambda a: [Units(a)], "Units, which has units"),
    "unit of an array": (lambda a: a.view(ArrayWithUnit), "ArrayWithUnit, which has units"),
    "sparse matrix": (sparse("csr_matrix"), r"a sparse csr_matrix: give \w+\.toarray\(\)"),
    "sparse array": (sparse("coo_array"), r"a sparse coo_array: give \w+\.toarray\(\)"),
    "tensor that needs grad": (lambda a: tensor(a).requires_grad_(), r"that needs grad, .*: give \w+\.detach\(\)"),
    "tensor of bfloat16": (
        lambda a: tensor(a).bfloat16(),
        r"give \w+\.view\(torch\.uint16\)\.numpy\(\)\.view\(ml_dtypes\.bfloat16\)",
    ),
}


def call(module, name, argument, value):
    """Call the function with this argument. All other arguments are valid."""
    arguments = {argument: value}
    parameters = inspect.signature(getattr(softxent, name)).parameters
    for needed in ("logits", "labels", "target", "v", "g"):
        if needed in parameters:
            arguments.setdefault(needed, ARRAYS[needed])
    if argument in ("grad_output", "out") and "reduction" in parameters:
        arguments["reduction"] = "none"
    if argument == "out" and name == "cross_entropy_grad_hess":
        arguments["out"] = (None, value)
    return getattr(module, name)(**arguments)


def good(name, argument):
    if argument == "out" and name in ("cross_entropy", "cross_entropy_and_rank", "logsumexp", "entropy"):
        return np.full(4, 7.0)
    return ARRAYS[argument].copy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("where", "name", "argument"), ARGUMENTS)
def test_what_says_more_than_its_numbers_is_refused_by_name(where, name, argument, kind):
    make, message = KINDS[kind]
    value = make(good(name, argument))
    if argument == "out" and not isinstance(value, np.ndarray):
        message = "NumPy array; got"
    with pytest.raises(TypeError, match=f"^{argument} must be .*{message}"):
        call(MODULES[where], name, argument, value)
    if argument == "out" and isinstance(value, np.ndarray):
        np.testing.assert_array_equal(np.asarray(value), 7)


@pytest.mark.parametrize(("where", "name", "argument"), ARGUMENTS)
def test_the_same_numbers_alone_are_taken(where, name, argument):
    call(MODULES[where], name, argument, good(name, argument))


@pytest.mark.parametrize("what", [*Options._fields[3:], "normalizer"])  # those that are numbers
def test_numbers_that_say_more_are_refused_by_name(what):
    for value in (np.ma.masked, np.ma.array(0.5), Units(0.5)):
        with pytest.raises(TypeError, match=f"^{what} must be"):
            softxent.cross_entropy(Z, ARRAYS["labels"], **{what: value})


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("logits", ["where=~numpy.ma.getmaskarray(logits)", "sample_weight=0"]),
        ("labels", ["labels.filled(-100) with ignore_index=-100", "where="]),
        ("sample_weight", ["sample_weight.filled(0)"]),
        ("where", ["where.filled(False)"]),
    ],
)
def test_a_masked_array_is_told_which_option_is_its_mask(argument, options):
    for words in options:
        with pytest.raises(TypeError, match=re.escape(words)):
            call(softxent, "cross_entropy", argument, np.ma.array(ARRAYS[argument]))


def test_what_would_do_for_a_masked_array_does():
    logits = np.ma.array(Z, mask=Z % 5 == 1)
    losses = softxent.cross_entropy(
        logits.data, [0, 1, 2, 0], where=~np.ma.getmaskarray(logits), reduction="none", sample_weight=[1, 0, 1, 1]
    )
    sums = np.ma.log(np.ma.exp(logits).sum(axis=1))
    np.testing.assert_allclose(losses[[0, 2, 3]], (sums - Z[range(4), [0, 1, 2, 0]])[[0, 2, 3]], rtol=1e-12)
    labels = np.ma.array([0, 1, 2, 0], mask=[0, 1, 0, 0])
    expected = softxent.cross_entropy(Z[[0, 2, 3]], [0, 2, 0])
    assert softxent.cross_entropy(Z, labels.filled(-100), ignore_index=-100) == pytest.approx(expected, rel=1e-15)


def test_tensors_are_read_as_the_arrays_that_they_are(rng):
    torch, ml_dtypes = pytest.importorskip("torch"), pytest.importorskip("ml_dtypes")
    logits, labels = torch.randn(20, 7), torch.arange(20) % 7
    expected = torch.nn.functional.cross_entropy(logits.double(), labels).item()
    assert softxent.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-6)
    needs_grad = logits.clone().requires_grad_()
    assert softxent.cross_entropy(needs_grad.detach(), labels) == softxent.cross_entropy(logits, labels)
    halves = logits.bfloat16()
    as_array = halves.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    expected = torch.nn.functional.cross_entropy(halves.double(), labels).item()
    assert softxent.cross_entropy(as_array, labels) == pytest.approx(expected, rel=1e-6)


def test_subclasses_and_lists_that_say_no_more_are_taken(tmp_path):
    expected = softxent.cross_entropy(Z, ARRAYS["labels"])
    mapped = np.memmap(tmp_path / "logits", float, "w+", shape=Z.shape)
    mapped[...] = Z
    for logits in (mapped, Z.tolist(), tuple(map(tuple, Z)), [list(row) for row in Z], list(Z), Z.view(np.recarray)):
        assert softxent.cross_entropy(logits, ARRAYS["labels"]) == expected
    assert softxent.cross_entropy(Z, list(ARRAYS["labels"])) == expected
