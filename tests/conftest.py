"""What the tests share: every numeric test runs once per usable instruction set and dtype."""

import numpy as np
import pytest

from command_line import sample, snapshot, store
from losses import LOSSES
from softxent import _kernels
from softxent._cli.main import main

# The marks of SciPy's own tests, which test_scipy.py runs: they choose among array libraries, of which NumPy is one.
SCIPYS_MARKS = ("array_api_backends", "skip_xp_backends", "uses_xp_capabilities", "xfail_xp_backends")


def pytest_configure(config):
    for mark in SCIPYS_MARKS:
        config.addinivalue_line("markers", f"{mark}: SciPy's")
    # And an iterator of theirs, which pytest 9 warns of while it collects.
    config.addinivalue_line("filterwarnings", "ignore:Passing a non-Collection iterable to parametrize")


@pytest.fixture(params=_kernels.usable_isas())
def isa(request):
    """The kernels of one instruction set, during a test."""
    before = _kernels.isa_in_use()
    _kernels.use_isa(request.param)
    yield request.param
    _kernels.use_isa(before)


@pytest.fixture(params=LOSSES)
def call(request):
    """Each of the functions that take the options of a loss."""
    return LOSSES[request.param]


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20261121)


@pytest.fixture
def run(capsys):
    """Run a command in this process. Return its exit status, stdout and stderr."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must fail. It must print one line to stderr and nothing to stdout, and leave no new file."""

    def refused(*arguments):
        before = snapshot(tmp_path)
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("softxent: error: ")
        assert err.count("\n") == 1
        assert snapshot(tmp_path) == before
        return err

    return refused


@pytest.fixture
def files(tmp_path):
    """Good files, which a test spoils one at a time, and a gradient from an earlier run."""
    np.save(tmp_path / "grad.npy", np.ones(3))
    return store(tmp_path, *sample((20, 5), -1))
