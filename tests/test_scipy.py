"""SciPy's own tests of softmax, log_softmax and logsumexp, for real numbers, with this package's functions in the place
of SciPy's.

They are imported from where SciPy is installed, and collected here as they are there; a copy of SciPy without its tests
has none to run, which is said by a skip. What differs on purpose is in two lists: what a call of SciPy's means here, in
the stand-ins, and the tests that are about something else, in EXCEPTIONS.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import math

import numpy as np
import pytest

import softxent

# Where versions 1.11 to 1.17 have them.
MODULES = ("test_logsumexp", "test_softmax", "test_log_softmax")

# Tests that are not about real numbers in NumPy's arrays. Patterns of their names, with parameters.
EXCEPTIONS = {
    "test_wrap_radians*": "is about a helper of SciPy's, for complex numbers",
    "*complex*": "has complex numbers, which have no order: TypeError",
    "test_gh21610*": "has complex numbers",
    "test_gh21709*": "has complex numbers",
    "*[[]*j*[]]": "has a complex number as its parameter",
    "*_b": "has b=, the weights of the terms: add log(b) to the logits",
    "*_b_*": "has b=",
    "*_dtypes_ab*": "has b=",
    "test_no_writeback*": "has b=",
    "test_device*": "has b=",
    "test_gh22903*": "has b= and return_sign=",
    "test_gh23548*": "has return_sign=",
    "*_sign*": "has return_sign=, for sums with negative terms",
    "test_logsumexp_shape*": "has b=",
    "test_softmax_scalar_no_axis*": "asks for an axis of a number",
}


def as_array(logits):
    """SciPy takes a number for an array of one; here there must be an axis."""
    logits = np.asarray(logits)
    return logits.reshape(1) if logits.ndim == 0 else logits


def softmax(x, axis=None):
    return softxent.softmax(as_array(x), axis).reshape(np.shape(x))[()]


def log_softmax(x, axis=None):
    return softxent.log_softmax(as_array(x), axis).reshape(np.shape(x))[()]


def logsumexp(a, axis=None, *, keepdims=False):
    """SciPy's sum over no terms is 0; here there must be a class."""
    logits = as_array(a)
    if logits.size == 0:
        return np.float64(-math.inf)
    return softxent.logsumexp(logits, axis, keepdims=keepdims)[()]


STAND_INS = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}


def installed_modules():
    for name in MODULES:
        try:
            yield importlib.import_module(f"scipy.special.tests.{name}")
        except ImportError:
            continue


def is_for_pytest(name, value):
    """A test, a class of tests, or what they take."""
    return (
        name.startswith(("test_", "Test"))
        or type(value).__name__ == "FixtureFunctionDefinition"
        or (hasattr(value, "_pytestfixturefunction"))
    )


SCIPYS = list(installed_modules())
for module in SCIPYS:
    globals().update({name: value for name, value in vars(module).items() if is_for_pytest(name, value)})


def test_scipys_own_tests_are_here():
    if not SCIPYS:
        pytest.skip("SciPy is not installed, or without its tests: none of softmax, log_softmax and logsumexp were run")
    sources = [inspect.getsource(module) for module in SCIPYS]
    for name in STAND_INS:
        assert any(f"{name}(" in source for source in sources)


@pytest.fixture(autouse=True)
def stand_ins(request, monkeypatch):
    """For the length of each of SciPy's tests, which call a function by its name or as one of scipy.special."""
    for pattern, reason in EXCEPTIONS.items():
        if any(fnmatch.fnmatchcase(name, pattern) for name in (request.node.name, request.node.originalname)):
            pytest.skip(f"SciPy's test {reason}")
    special = [importlib.import_module("scipy.special")] if SCIPYS else []
    for module in (*SCIPYS, *special):
        for name, function in STAND_INS.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, function)


@pytest.fixture
def xp():
    """The namespace of arrays that newer tests ask for: NumPy's."""
    return np


@pytest.fixture
def devices():
    return ["cpu"]


@pytest.fixture
def skip_xp_backends():
    """NumPy is not skipped."""
