"""Every bound of tests/bounds.py holds, on every instruction set of this machine; and docs/accuracy.md says them."""

from pathlib import Path

import numpy as np
import pytest

import softxent
from bounds import BOUNDS, errors, line, worst
from softxent import _kernels, reference
from softxent._options import Options

PAGE = Path(__file__).parent.parent / "docs" / "accuracy.md"
beside_the_page = pytest.mark.skipif(not PAGE.exists(), reason="the page is not beside the tests")


# One test covers all instruction sets: the exact truth takes longest to compute, and is the same for all.
@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: f"{bound.operation}: {bound.options}")
def test_each_result_is_as_exact_as_promised(bound, dtype):
    before = _kernels.isa_in_use()
    try:
        for isa in _kernels.usable_isas():
            _kernels.use_isa(isa)
            share, _, where = worst(bound, dtype)
            assert share <= 1, f"{isa}: {share:.3g} of the bound at {where}"
    finally:
        _kernels.use_isa(before)


def test_every_option_and_every_function_of_the_softmax_family_has_a_bound():
    options = {name for bound in BOUNDS for case in bound.cases for name in case}
    assert {*Options._fields} <= options
    operations = {name for bound in BOUNDS for name in bound.operation.split(", ")}
    family = {name for name in reference.__all__ if not name.startswith("cross_entropy")}
    assert family - {"SparseTarget"} <= operations
    assert {"sparse", "target_logits"} <= options


@pytest.mark.parametrize(
    ("operation", "function"),
    [
        ("gradient", "cross_entropy_and_grad"),
        ("entropy_and_grad", "entropy_and_grad"),
        ("kl_divergence_and_grad", "kl_divergence_and_grad"),
    ],
)
def test_the_bounds_can_be_broken(operation, function, monkeypatch):
    """The test notices a result that is off by a little more than its bound, wherever it is."""
    bound = next(b for b in BOUNDS if b.operation == operation)
    exactly = getattr(softxent, function)

    def a_little_off(*args, **options):
        loss, grad = exactly(*args, **options)
        grad[4, 1] *= 1 + np.float32(2.0**-23) * 400
        return loss, grad

    monkeypatch.setattr(softxent, function, a_little_off)
    share, _ = errors(bound, bound.cases[0], 9, np.float32)
    assert (share > 1).sum() == 1


@beside_the_page
def test_the_page_says_the_bounds_that_are_tested():
    said = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.endswith("% |")]
    assert [row.rsplit("|", 5)[0] + "|" for row in said] == [line(bound) for bound in BOUNDS]


@beside_the_page
def test_no_error_on_the_page_is_above_its_bound():
    for row in PAGE.read_text(encoding="utf-8").splitlines():
        if row.endswith("% |"):
            assert all(float(cell.strip(" %")) <= 100 for cell in row.split("|") if cell.endswith("% "))
