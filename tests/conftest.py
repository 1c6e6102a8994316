"""What the tests share: every numeric test runs once per usable instruction set and dtype."""

import numpy as np
import pytest

from softxent import _kernels


@pytest.fixture(params=_kernels.usable_isas())
def isa(request):
    """The kernels of one instruction set, for the length of a test."""
    before = _kernels.isa_in_use()
    _kernels.use_isa(request.param)
    yield request.param
    _kernels.use_isa(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20261121)
