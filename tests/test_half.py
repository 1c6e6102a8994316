"""Half precision, float16 and ml_dtypes' bfloat16: computed in float32, and rounded to nearest even once, on the way
out; any axis, strides, byte order and mixture with other dtypes; no temporary of the logits' size.

ml_dtypes is optional: without it the tests of bfloat16 are skipped.
"""

import tracemalloc

import numpy as np
import pytest

import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import reference
from softxent._options import Options

INF, NAN = np.inf, np.nan
EPS32, TINY32 = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)


class Half:
    """A half type: its dtype, the bits of its significand (with the hidden bit), and its smallest normal exponent."""

    def __init__(self, dtype, bits, least_exponent):
        self.dtype, self.bits, self.least_exponent = np.dtype(dtype), bits, least_exponent
        self.eps = 2.0 ** (1 - bits)

    def ulp(self, x):
        """The distance between neighbours at the size of x."""
        _, exponent = np.frexp(np.asarray(x, np.float64))
        return np.ldexp(1.0, np.maximum(exponent - 1, self.least_exponent) + 1 - self.bits)

    def rounded(self, x):
        with np.errstate(over="ignore"):
            return np.asarray(x).astype(self.dtype)

    def all_values(self):
        return np.arange(2**16, dtype=np.uint16).view(self.dtype)


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    if request.param == "float16":
        return Half(np.float16, 11, -14)
    return Half(pytest.importorskip("ml_dtypes").bfloat16, 8, -126)


def wide(array):
    with np.errstate(invalid="ignore"):  # a signalling nan becomes a quiet nan
        return np.asarray(array).astype(np.float64)


def steps(half, a, b):
    """The number of steps of the half type from each entry to the other. A nan is at no distance from a nan."""

    def in_order(x):
        bits = np.asarray(x, half.dtype).view(np.int16).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    return np.where(np.isnan(wide(a)) & np.isnan(wide(b)), 0, np.abs(in_order(a) - in_order(b)))


def assert_nearly_same(half, got, expected):
    """Compare values: all are within one step, and nearly all of many values are equal."""
    assert got.dtype == half.dtype
    distance = steps(half, got, half.rounded(expected))
    assert distance.max() <= 1
    assert np.mean(distance) <= 0.02 + 1 / distance.size


def assert_rounded_once(half, got, exact, relative):
    """Compare with the exact value: within half a step, and the error of the float32 computation."""
    assert got.dtype == half.dtype
    error = np.abs(wide(got) - exact)
    assert np.all(error <= half.ulp(exact) / 2 + np.abs(exact) * relative + TINY32)


PROBLEMS = {
    "few classes": ((50, 10), 1),
    "rows": ((20, 70), 1),
    "long rows": ((5, 701), 1),
    "class axis first": ((70, 23), 0),
    "class axis between": ((2, 40, 9), 1),
}


@pytest.fixture(params=PROBLEMS)
def problem(request, half, rng):
    """Draw logits and labels, and give the class axis."""
    shape, axis = PROBLEMS[request.param]
    labels = rng.integers(0, shape[axis], tuple(np.delete(shape, axis)))
    return (rng.normal(size=shape) * 4).astype(half.dtype), labels, axis


def target_like(z, axis, rng):
    t = rng.random(z.shape)
    return (t / t.sum(axis=axis, keepdims=True)).astype(z.dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Widened and rounded.


LAYOUTS_OF_HALVES = ["C", "Fortran", "every second"]  # loaded and stored by lanes, transposed or not, or one by one


@pytest.mark.parametrize("n_classes", [1, 33, 65, 601])
@pytest.mark.parametrize("layout", LAYOUTS_OF_HALVES)
def test_every_half_is_widened_and_rounded_back_to_itself(n_classes, layout, half, isa):
    """The logsumexp of one class is its logit, also if it is denormal, infinite or nan."""
    values = half.all_values()[:: 1 if n_classes == 1 else n_classes // 7]
    z = laid_out(np.full((len(values), n_classes), -INF), layout, half.dtype)
    z[:, n_classes // 2] = values
    out = laid_out(np.zeros(len(values)), layout, half.dtype)
    assert softxent.logsumexp(z, out=out) is out
    np.testing.assert_array_equal(wide(out), wide(values))


@pytest.mark.parametrize("n_classes", [2, 64, 512])
@pytest.mark.parametrize("layout", LAYOUTS_OF_HALVES)
def test_rounding_is_to_nearest_even(n_classes, layout, half, isa):
    """The gradient of equal logits is g / C, in which no digit is lost.

    Here g / C is at the middle of neighbours, just above it, and just below it.
    """
    positive = half.all_values()[: 2**15]
    finite = wide(positive[wide(positive) < INF])
    # Beyond these numbers of classes an upstream gradient over C 2^24 is no normal number of float32. 2^24 is the
    # headroom of the terms.
    finite = finite[(finite == 0) | ((finite > 2.0**-90) & (finite < 2.0**90))]
    middle = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    entries = np.concatenate([middle, np.nextafter(middle, np.float32(INF)), np.nextafter(middle, np.float32(0))])
    entries = entries[:: max(1, n_classes // 16)]
    z = laid_out(np.zeros((len(entries), n_classes)), layout, half.dtype)
    labels, out = np.zeros(len(entries), int), laid_out(np.zeros(z.shape), layout, half.dtype)
    for sign in (1, -1):
        upstream = entries * np.float32(sign * n_classes)
        softxent.cross_entropy_and_grad(z, labels, reduction="none", grad_output=upstream, out=out)
        expected = half.rounded(sign * entries)
        for k in (1, n_classes // 2, n_classes - 1):
            np.testing.assert_array_equal(out[:, k].copy().view(np.int16), expected.view(np.int16))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "entropy"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_softmax_family_is_that_of_float32_rounded(name, temperature, problem, half, isa):
    z, _, axis = problem
    function = getattr(softxent, name)
    got = function(z, axis, temperature=temperature)
    assert_nearly_same(half, got, function(z.astype(np.float32), axis, temperature=temperature))
    exact = getattr(reference, name)(wide(z), axis, temperature=temperature)
    distance = 60 if name == "softmax" else 4
    assert_rounded_once(half, got, exact, 4 * EPS32 * (1 + distance / temperature))


@pytest.mark.parametrize("target", [False, True])
def test_losses_and_gradients_are_those_of_float32_rounded(target, problem, half, isa, rng):
    z, labels, axis = problem
    y = target_like(z, axis, rng) if target else labels
    options = {"axis": axis, "reduction": "none"}
    losses, grad = softxent.cross_entropy_and_grad(z, y, **options)
    in_float32 = softxent.cross_entropy_and_grad(z.astype(np.float32), y, **options)
    assert losses.dtype == half.dtype
    assert_nearly_same(half, losses, in_float32[0])
    assert_nearly_same(half, grad, in_float32[1])
    np.testing.assert_array_equal(softxent.cross_entropy(z, y, **options), losses)
    exact = reference.cross_entropy_and_grad(wide(z), wide(y) if target else y, **options)
    assert_rounded_once(half, losses, exact[0], 4 * EPS32 * 20)
    # p - t may cancel, so the bound is on the sizes of p and t.
    t = wide(y) if target else np.zeros(z.shape)
    subtracted = reference.softmax(wide(z), axis) * 60 + t + np.abs(exact[1]) * 60
    assert np.all(np.abs(wide(grad) - exact[1]) <= half.ulp(exact[1]) / 2 + 4 * EPS32 * subtracted)
    for reduction in ("mean", "sum"):
        loss, grad = softxent.cross_entropy_and_grad(z, y, axis=axis, reduction=reduction)
        exact = reference.cross_entropy_and_grad(wide(z), wide(y) if target else y, axis=axis, reduction=reduction)
        assert type(loss) is float
        assert loss == pytest.approx(exact[0], rel=50 * EPS32)  # the losses are not rounded to halves
        assert softxent.cross_entropy(z, y, axis=axis, reduction=reduction) == loss
        assert grad.dtype == half.dtype


@pytest.mark.parametrize("kind", ["exact", "xgboost", "lightgbm"])
def test_hessians_are_those_of_float32_rounded(kind, problem, half, isa, rng):
    z, labels, axis = problem
    v = rng.normal(size=z.shape).astype(half.dtype)
    options = {"axis": axis, "reduction": "sum"}
    loss, grad, hess = softxent.cross_entropy_grad_hess(z, labels, kind=kind, **options)
    exact = reference.cross_entropy_grad_hess(wide(z), labels, kind=kind, **options)
    assert type(loss) is float
    assert loss == pytest.approx(exact[0], rel=50 * EPS32)
    assert_rounded_once(half, grad, exact[1], 4 * EPS32 * 60)
    assert_rounded_once(half, hess, exact[2], 8 * EPS32 * 60)
    in_float32 = softxent.cross_entropy_grad_hess(z.astype(np.float32), labels, kind=kind, **options)
    assert_nearly_same(half, grad, in_float32[1])
    assert_nearly_same(half, hess, in_float32[2])
    product = softxent.cross_entropy_hvp(z, labels, v, **options)
    assert_nearly_same(half, product, softxent.cross_entropy_hvp(z.astype(np.float32), labels, wide(v), **options))


def test_jacobians_are_those_of_float32_rounded(problem, half, isa, rng):
    z, _, axis = problem
    v, z32 = rng.normal(size=z.shape).astype(half.dtype), z.astype(np.float32)
    for function in (softxent.softmax_jvp, softxent.softmax_vjp):
        assert_nearly_same(half, function(z, v, axis), function(z32, wide(v), axis))
    jacobian = softxent.softmax_jacobian(z, axis)
    assert_nearly_same(half, jacobian, softxent.softmax_jacobian(z32, axis))
    assert_rounded_once(half, jacobian, reference.softmax_jacobian(wide(z), axis), 8 * EPS32 * 60)


OPTIONS = {
    "class_weight": lambda c, shape, rng: {"class_weight": rng.random(c)},
    "sample_weight": lambda c, shape, rng: {"sample_weight": rng.random(shape)},
    "label_smoothing": lambda c, shape, rng: {"label_smoothing": 0.1},
    "temperature": lambda c, shape, rng: {"temperature": 1.7},
    "softcap": lambda c, shape, rng: {"softcap": 5.0},
    "z_loss": lambda c, shape, rng: {"z_loss": 0.01},
    "base": lambda c, shape, rng: {"base": 2},
    "normalizer": lambda c, shape, rng: {"normalizer": 40.0},
    "ignore_index": lambda c, shape, rng: {"ignore_index": 1},
    "grad_output": lambda c, shape, rng: {"grad_output": 3.0},
}
assert {*Options._fields} - {"where"} <= {*OPTIONS}  # a new one has its value here


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_that_of_float32_rounded(name, problem, half, isa, rng):
    z, labels, axis = problem
    options = OPTIONS[name](z.shape[axis], labels.shape, rng) | {"axis": axis, "reduction": "sum"}
    loss, grad = softxent.cross_entropy_and_grad(z, labels, **options)
    in_float32 = softxent.cross_entropy_and_grad(z.astype(np.float32), labels, **options)
    assert loss == pytest.approx(in_float32[0], rel=50 * EPS32)
    assert_nearly_same(half, grad, in_float32[1])
    exact = reference.cross_entropy_and_grad(wide(z), labels, **options)
    np.testing.assert_allclose(wide(grad), exact[1], rtol=0.6 * half.eps, atol=half.ulp(0) + 1e-6)


def test_removed_classes_are_removed(problem, half, isa, rng):
    z, labels, axis = problem
    where = rng.random(z.shape) < 0.7
    np.put_along_axis(where, np.expand_dims(labels, axis), True, axis)
    z[~where] = NAN
    options = {"axis": axis, "where": where}
    _, grad = softxent.cross_entropy_and_grad(z, labels, reduction="sum", **options)
    in_float32 = softxent.cross_entropy_and_grad(z.astype(np.float32), labels, reduction="sum", **options)
    assert_nearly_same(half, grad, in_float32[1])
    assert np.all(grad[~where] == 0)
    probability = softxent.softmax(z, axis, where=where)
    assert_nearly_same(half, probability, softxent.softmax(z.astype(np.float32), axis, where=where))
    assert np.all(probability[~where] == 0)


# ----------------------------------------------------------------------------------------------------------------------
# Layouts.


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, half, isa, rng):
    z, v, target = (laid_out(rng.normal(size=shape), layout, half.dtype) for _ in range(3))
    target = np.abs(target)
    labels = rng.integers(0, shape[axis], tuple(np.delete(shape, axis)))
    near = {"rtol": 0.6 * half.eps, "atol": half.ulp(0) + 1e-6}
    out = laid_out(np.zeros(shape), layout, half.dtype)
    for y in (labels, target):
        options = {"axis": axis, "reduction": "none"}
        exact = (
            reference.cross_entropy_and_grad(wide(z), wide(y), **options)
            if y is target
            else (reference.cross_entropy_and_grad(wide(z), y, **options))
        )
        losses, grad = softxent.cross_entropy_and_grad(z, y, out=out, **options)
        assert grad is out
        np.testing.assert_allclose(wide(losses), exact[0], **near)
        np.testing.assert_allclose(wide(grad), exact[1], **near)
        # The result has the same bits as with a new array of another layout: conversion and transposition change
        # nothing.
        np.testing.assert_array_equal(wide(softxent.cross_entropy_and_grad(z, y, **options)[1]), wide(grad))
        losses_out = laid_out(np.zeros(labels.shape), layout, half.dtype)
        assert softxent.cross_entropy(z, y, out=losses_out, **options) is losses_out
        np.testing.assert_array_equal(wide(losses_out), wide(losses))
    np.testing.assert_allclose(
        wide(softxent.softmax_jvp(z, v, axis)), reference.softmax_jvp(wide(z), wide(v), axis), **near
    )
    for name in ("softmax", "log_softmax"):
        assert getattr(softxent, name)(z, axis, out=out) is out
        np.testing.assert_allclose(wide(out), getattr(reference, name)(wide(z), axis), **near)


def test_unaligned_halves_are_taken(half, isa, rng):
    record = np.zeros((30, 60), [("tag", "u1"), ("z", half.dtype)])
    record["z"] = rng.normal(size=(30, 60))
    z, labels = record["z"], rng.integers(0, 60, 30)
    assert not z.flags.aligned
    _, expected = softxent.cross_entropy_and_grad(z.copy(), labels)
    _, grad = softxent.cross_entropy_and_grad(z, labels)
    assert_nearly_same(half, grad, expected)
    softxent.cross_entropy_and_grad(z, labels, out=z)
    assert_nearly_same(half, record["z"].copy(), expected)
    assert np.all(record["tag"] == 0)


@pytest.mark.parametrize("n_classes", [1, 10, 70, 700])
def test_no_entry_outside_the_views_is_written(n_classes, half, isa, rng):
    for shape, axis in (((6, n_classes), 1), ((n_classes, 6), 0), ((6, n_classes), 1)):
        for layout in ("every second", "padded"):
            out = laid_out(np.zeros(shape), layout, half.dtype)
            out.base[...] = 7
            z, labels = rng.normal(size=shape).astype(half.dtype), rng.integers(0, n_classes, 6)
            softxent.cross_entropy_and_grad(z, labels, axis=axis, out=out)
            softxent.softmax(z, axis, out=out)
            out[...] = 7
            assert np.all(wide(out.base) == 7)


@pytest.mark.parametrize("name", PROBLEMS)
def test_float16_of_the_other_byte_order_is_taken(name, isa, rng):
    (shape, axis), half = PROBLEMS[name], Half(np.float16, 11, -14)
    z = rng.normal(size=shape).astype(np.float16)
    labels = rng.integers(0, shape[axis], tuple(np.delete(shape, axis)))
    swapped, out = z.astype(z.dtype.newbyteorder()), np.zeros(shape, z.dtype.newbyteorder())
    options = {"axis": axis, "label_smoothing": 0.1}
    loss, grad = softxent.cross_entropy_and_grad(z, labels, **options)
    other_loss, other_grad = softxent.cross_entropy_and_grad(swapped, labels, **options)
    assert other_grad.dtype == np.float16
    assert other_grad.dtype.isnative
    assert other_loss == pytest.approx(loss, rel=8 * EPS32)
    assert_nearly_same(half, other_grad, grad)
    assert softxent.cross_entropy_and_grad(z, labels, out=out, **options)[1] is out
    assert_nearly_same(half, out.astype(np.float16), grad)
    assert_nearly_same(half, softxent.softmax(swapped, axis), softxent.softmax(z, axis))
    assert_nearly_same(half, softxent.softmax_jvp(z, swapped, axis), softxent.softmax_jvp(z, z, axis))


# ----------------------------------------------------------------------------------------------------------------------
# In place, added to, and mixed.


def test_results_may_overwrite_the_logits(problem, half, isa, rng):
    z, labels, axis = problem
    v = rng.normal(size=z.shape)
    calls = [
        lambda z, out: softxent.cross_entropy_and_grad(z, labels, axis=axis, out=out)[1],
        lambda z, out: softxent.cross_entropy_and_grad(z, labels, axis=axis, softcap=4.0, z_loss=0.1, out=out)[1],
        lambda z, out: softxent.cross_entropy_grad_hess(z, labels, axis=axis, out=(out, None))[1],
        lambda z, out: softxent.cross_entropy_hvp(z, labels, v, axis=axis, out=out),
        lambda z, out: softxent.softmax(z, axis, out=out),
        lambda z, out: softxent.log_softmax(z, axis, out=out),
    ]
    for call in calls:
        expected, in_place = call(z, None), z.copy(order="K")
        assert call(in_place, in_place) is in_place
        np.testing.assert_array_equal(in_place.view(np.int16), expected.view(np.int16))


def test_adding_rounds_the_sum_once(problem, half, isa, rng):
    z, labels, axis = problem
    start = rng.normal(size=z.shape).astype(half.dtype)
    exact = wide(start) + reference.cross_entropy_and_grad(wide(z), labels, axis=axis, reduction="sum")[1]
    out = start.copy()
    softxent.cross_entropy_and_grad(z, labels, axis=axis, reduction="sum", out=out, accumulate=True)
    assert np.all(np.abs(wide(out) - exact) <= half.ulp(exact) / 2 + 300 * EPS32)
    # A part that is small beside the half's own steps is not lost while the sum is in float32.
    out = np.ones(z.shape, half.dtype)
    softxent.cross_entropy_and_grad(z, labels, axis=axis, out=out, accumulate=True, grad_output=1e-12)
    np.testing.assert_array_equal(wide(out), 1)


def test_adding_leaves_ignored_samples_alone(problem, half, isa, rng):
    z, labels, axis = problem
    start = rng.normal(size=z.shape).astype(half.dtype)
    out = start.copy()
    softxent.cross_entropy_and_grad(z, labels, axis=axis, ignore_index=int(labels.flat[0]), out=out, accumulate=True)
    ignored = np.broadcast_to(np.expand_dims(labels == labels.flat[0], axis), z.shape)
    np.testing.assert_array_equal(wide(out)[ignored], wide(start)[ignored])


@pytest.mark.parametrize("other", ["f2", "f4", "f8", ">f2", ">f4", "?", "i8", "half"])
def test_half_logits_go_with_any_target_and_direction(other, problem, half, isa, rng):
    z, _, axis = problem
    values = (rng.integers(0, 9, z.shape) / 8).astype(half.dtype)  # every float dtype holds this number
    code = half.dtype if other == "half" else np.dtype(other)
    if code.kind in "bi":  # an integer target is one-hot
        classes = rng.integers(0, z.shape[axis], np.max(wide(z), axis=axis, keepdims=True).shape)
        values = np.zeros(z.shape, half.dtype)
        np.put_along_axis(values, classes, 1, axis)
    given = values.astype(np.float64).astype(code)
    losses, grad = softxent.cross_entropy_and_grad(z, given, axis=axis, reduction="none")
    expected = softxent.cross_entropy_and_grad(z, values.astype(np.float32), axis=axis, reduction="none")
    assert_nearly_same(half, losses, expected[0])
    assert_nearly_same(half, grad, expected[1])
    assert_nearly_same(
        half, softxent.softmax_jvp(z, given, axis), softxent.softmax_jvp(z, values.astype(np.float32), axis)
    )


@pytest.mark.parametrize("computed", [np.float32, np.float64])
def test_other_logits_go_with_half_targets_and_directions(computed, problem, half, isa, rng):
    z, labels, axis = problem
    values, z = target_like(z, axis, rng), z.astype(computed)
    exact = values.astype(computed)
    near = {"rtol": 8 * np.finfo(computed).eps, "atol": np.finfo(computed).eps}
    losses, grad = softxent.cross_entropy_and_grad(z, values, axis=axis, reduction="none")
    expected = softxent.cross_entropy_and_grad(z, exact, axis=axis, reduction="none")
    assert losses.dtype == grad.dtype == computed
    np.testing.assert_allclose(losses, expected[0], **near)
    np.testing.assert_allclose(grad, expected[1], **near)
    np.testing.assert_allclose(softxent.softmax_jvp(z, values, axis), softxent.softmax_jvp(z, exact, axis), **near)
    np.testing.assert_allclose(
        softxent.cross_entropy_hvp(z, labels, values, axis=axis),
        softxent.cross_entropy_hvp(z, labels, exact, axis=axis),
        **near,
    )


def test_half_weights_and_upstream_gradients_are_taken(problem, half, isa, rng):
    z, labels, axis = problem
    class_weight, sample_weight = rng.random(z.shape[axis]), rng.random(labels.shape)
    upstream = rng.normal(size=labels.shape)
    for logits in (z, z.astype(np.float32)):
        options = {
            "class_weight": class_weight.astype(half.dtype),
            "sample_weight": sample_weight.astype(half.dtype),
            "grad_output": upstream.astype(half.dtype),
        }
        got = softxent.cross_entropy_and_grad(logits, labels, axis=axis, reduction="none", **options)
        options = {name: wide(value) for name, value in options.items()}
        expected = softxent.cross_entropy_and_grad(logits, labels, axis=axis, reduction="none", **options)
        for values, want in zip(got, expected, strict=True):
            assert values.dtype == logits.dtype
            np.testing.assert_allclose(wide(values), wide(want), rtol=8 * EPS32)


# ----------------------------------------------------------------------------------------------------------------------
# Results in float32, before they are rounded to halves.

SIZES = [1, 2, 9, 33, 63, 64, 65, 129, 700, 4097]


@pytest.fixture(params=["C", "Fortran"])
def order(request):
    return request.param


def calls_with_outputs(n_classes, rng):
    """Functions of logits, labels and an output. They fill the output and return it."""
    weights, target = rng.random(n_classes), rng.random(n_classes)
    options = {
        "plain": {},
        "smoothed": {"label_smoothing": 0.1},
        "weighted": {"class_weight": weights, "label_smoothing": 0.1},
        "tempered": {"temperature": 0.7, "z_loss": 1e-3},
    }
    calls = {
        name: lambda z, y, out, o=o: softxent.cross_entropy_and_grad(z, y, out=out, grad_output=3.0, **o)[1]
        for name, o in options.items()
    }
    return calls | {
        "target": lambda z, y, out: softxent.cross_entropy_and_grad(z, np.broadcast_to(target, z.shape), out=out)[1],
        "ignoring": lambda z, y, out: softxent.cross_entropy_and_grad(z, y, ignore_index=int(y[0]), out=out)[1],
        "hessian": lambda z, y, out: softxent.cross_entropy_grad_hess(z, y, out=(out, np.empty_like(out)))[1],
        "product": lambda z, y, out: softxent.cross_entropy_hvp(z, y, np.broadcast_to(weights, z.shape), out=out),
        "softmax": lambda z, y, out: softxent.softmax(z, out=out),
        "log_softmax": lambda z, y, out: softxent.log_softmax(z, out=out),
        "entropy": lambda z, y, out: softxent.entropy_and_grad(z, out=out)[1],
        "divergence": lambda z, y, out: softxent.kl_divergence_and_grad(
            z, np.broadcast_to(weights, z.shape), target_logits=True, out=out
        )[1],
    }


@pytest.mark.parametrize("n_classes", SIZES)
def test_outputs_may_be_float32_and_are_what_the_halves_are_rounded_from(n_classes, order, half, isa, rng):
    z = laid_out(rng.normal(size=(37, n_classes)) * 4, order, half.dtype)
    labels = rng.integers(0, n_classes, 37)
    for name, call in calls_with_outputs(n_classes, rng).items():
        narrow, single = np.empty_like(z), np.empty_like(z, dtype=np.float32)
        assert call(z, labels, narrow) is narrow
        assert call(z, labels, single) is single
        np.testing.assert_array_equal(half.rounded(single), narrow, err_msg=name)
        exact = np.empty(z.shape)
        call(wide(z), labels, exact)
        np.testing.assert_allclose(single, exact, rtol=300 * EPS32, atol=4 * EPS32 * np.abs(exact).max(), err_msg=name)
    for function in (
        lambda out: softxent.cross_entropy(z, labels, reduction="none", out=out),
        lambda out: softxent.logsumexp(z, out=out),
        lambda out: softxent.entropy(z, out=out),
    ):
        losses = function(np.empty(37, np.float32))
        assert losses.dtype == np.float32
        np.testing.assert_array_equal(half.rounded(losses), function(np.empty(37, half.dtype)))


@pytest.mark.parametrize("n_classes", SIZES)
def test_adding_to_float32_adds_what_the_halves_are_rounded_from(n_classes, order, half, isa, rng):
    z = laid_out(rng.normal(size=(37, n_classes)) * 4, order, half.dtype)
    labels = rng.integers(0, n_classes, 37)
    labels[5] = -1
    before = rng.normal(size=z.shape).astype(np.float32)
    sums, single = before.copy(), np.empty_like(before)
    softxent.cross_entropy_and_grad(z, labels, ignore_index=-1, out=single)
    softxent.cross_entropy_and_grad(z, labels, ignore_index=-1, out=sums, accumulate=True)
    np.testing.assert_array_equal(sums, before + single)


def test_a_float32_gradient_keeps_what_is_lost_in_float16(isa, rng):
    z, labels = (rng.normal(size=(2000, 1000)) * 4).astype(np.float16), rng.integers(0, 1000, 2000)
    single = np.empty(z.shape, np.float32)
    softxent.cross_entropy_and_grad(z, labels, out=single)
    _, narrow = softxent.cross_entropy_and_grad(z, labels)
    _, scaled = softxent.cross_entropy_and_grad(z, labels, grad_output=2.0**11)
    assert np.mean(narrow == 0) > 0.3
    assert np.mean(single == 0) == 0
    # The allowed error is half a step of the half type, or of its smallest numbers, divided by the loss scale.
    np.testing.assert_allclose(wide(scaled) / 2**11, single, rtol=2.0**-11, atol=2.0**-25 / 2**11)


@pytest.mark.parametrize("shift", [0, 1])
def test_float32_outputs_of_any_byte_order_and_alignment_are_taken(shift, half, isa, rng):
    z, labels = (rng.normal(size=(300, 70)) * 4).astype(half.dtype), rng.integers(0, 70, 300)
    expected = softxent.cross_entropy_and_grad(z, labels, out=np.empty(z.shape, np.float32))
    memory = np.zeros(z.size * 4 + shift, np.uint8)
    out = memory[shift:].view(np.dtype(np.float32).newbyteorder()).reshape(z.shape)
    loss, _ = softxent.cross_entropy_and_grad(z, labels, out=out)
    assert loss == expected[0]
    np.testing.assert_array_equal(out, expected[1])


def test_an_output_must_have_the_logits_dtype_or_float32(half):
    z, labels = np.zeros((4, 3), half.dtype), np.zeros(4, int)
    with pytest.raises(TypeError, match=f"out must have dtype {half.dtype} or float32; got float64"):
        softxent.cross_entropy_and_grad(z, labels, out=np.zeros((4, 3)))
    with pytest.raises(TypeError, match=f"out must have dtype float32; got {half.dtype}"):
        softxent.cross_entropy_and_grad(z.astype(np.float32), labels, out=z)
    with pytest.raises(TypeError, match=f"out must have dtype {half.dtype} or float32; got float64"):
        softxent.cross_entropy(z, labels, reduction="none", out=np.zeros(4))
    with pytest.raises(TypeError, match=f"out must have dtype {half.dtype} or float32; got float64"):
        softxent.logsumexp(z, out=np.zeros(4))


def test_a_half_result_cannot_be_taken_for_another_half(half):
    pytest.importorskip("ml_dtypes")
    import ml_dtypes

    other = np.dtype(np.float16 if half.bits == 8 else ml_dtypes.bfloat16)
    with pytest.raises(TypeError, match=f"out must have dtype {half.dtype} or float32; got {other}"):
        softxent.softmax(np.zeros((4, 3), half.dtype), out=np.zeros((4, 3), other))


def test_other_narrow_types_are_refused():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4):
        with pytest.raises(TypeError, match="logits must hold real numbers"):
            softxent.softmax(np.zeros((4, 3), dtype))


# ----------------------------------------------------------------------------------------------------------------------
# Edges.


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n_classes", [2, 40, 600])
def test_what_is_too_large_for_the_half_is_infinite(n_classes, order, half, isa):
    """The loss of a lead of 120000 fits in bfloat16 and not in float16. Sums are in neither type."""
    z = np.zeros((3, n_classes), half.dtype, order=order)
    z[:, 0], z[:, 1:] = 60000, -60000
    lead = 2 * float(z[0, 0])
    losses, grad = softxent.cross_entropy_and_grad(z, [1, 1, 1], reduction="none")
    np.testing.assert_array_equal(wide(losses), INF if half.bits == 11 else lead)
    np.testing.assert_array_equal(wide(grad[:, :2]), [[1, -1]] * 3)
    assert softxent.cross_entropy(z, [1, 1, 1], reduction="sum") == 3 * lead
    np.testing.assert_array_equal(wide(softxent.log_softmax(z)[:, 1]), -INF if half.bits == 11 else -lead)
    huge = 1e6 if half.bits == 11 else 3.4e38
    _, grad = softxent.cross_entropy_and_grad(z, [1, 1, 1], reduction="sum", grad_output=huge)
    if half.bits == 11:
        np.testing.assert_array_equal(wide(grad[:, :2]), [[INF, -INF]] * 3)
    else:  # within half a step of the largest that rounds to infinity
        np.testing.assert_array_equal(wide(grad[:, :2]), wide(half.rounded(np.array([[huge, -huge]] * 3))))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n_classes", [3, 40, 600])
def test_the_edges_are_those_of_float32(n_classes, order, half, isa):
    rows = [
        [1, -INF, 0.5],
        [1, -INF, -INF],
        [-INF, -INF, -INF],
        [1, NAN, 0],
        [1, INF, 0],
        [NAN] * 3,
        [60000, -60000, 0],
    ]
    z = np.full((len(rows), n_classes), -INF, half.dtype, order=order)
    z[:, :3] = rows
    z32 = z.astype(np.float32)
    for labels in ([0] * len(rows), [1] * len(rows), [-1, 0] * 3 + [-1]):
        losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none", ignore_index=-1)
        expected = softxent.cross_entropy_and_grad(z32, labels, reduction="none", ignore_index=-1)
        np.testing.assert_array_equal(wide(losses), wide(half.rounded(expected[0])))
        np.testing.assert_array_equal(wide(grad), wide(half.rounded(expected[1])))
    for name in ("softmax", "log_softmax", "logsumexp", "entropy"):
        expected = half.rounded(getattr(softxent, name)(z32))
        np.testing.assert_array_equal(wide(getattr(softxent, name)(z)), wide(expected))


def test_small_entries_are_denormal_and_not_zero(isa):
    """The smallest normal number of float16 is 6e-5. These entries are below it."""
    z = np.zeros((2, 100), np.float16)
    z[:, 5] = 12
    p = softxent.softmax(z)
    expected = reference.softmax(z.astype(np.float64))
    assert 0 < expected[0, 0] < np.finfo(np.float16).tiny
    np.testing.assert_array_equal(p, expected.astype(np.float16))
    assert p[0, 0] > 0


def test_no_samples_are_no_error(half):
    z = np.zeros((0, 5), half.dtype)
    loss, grad = softxent.cross_entropy_and_grad(z, np.zeros(0, int))
    assert np.isnan(loss)
    assert grad.dtype == half.dtype
    assert softxent.cross_entropy(z, z, reduction="none").dtype == half.dtype
    assert softxent.softmax(z).dtype == softxent.softmax_jvp(z, z).dtype == half.dtype
    assert softxent.softmax_jacobian(z).shape == (0, 5, 5)


# ----------------------------------------------------------------------------------------------------------------------
# Memory.

SHAPE = (1024, 1500)  # 3 MB
MEMORY_OPTIONS = {
    "none": {},
    "class_weight": {"class_weight": np.ones(SHAPE[1])},
    "sample_weight": {"sample_weight": np.ones(SHAPE[0])},
    "where": {"where": np.ones(SHAPE, bool)},
    "ignore_index": {"ignore_index": 1},
    "label_smoothing": {"label_smoothing": 0.1},
    "temperature": {"temperature": 2.0},
    "softcap": {"softcap": 30.0},
    "z_loss": {"z_loss": 1e-4},
    "base": {"base": 2},
    "accumulate": {"accumulate": True},
}
assert {*Options._fields} <= {*MEMORY_OPTIONS}  # here too


@pytest.mark.parametrize("name", MEMORY_OPTIONS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_no_temporary_of_the_size_of_the_logits_is_made(name, order, half):
    z, out = np.zeros(SHAPE, half.dtype, order=order), np.zeros(SHAPE, half.dtype)
    labels, target = np.zeros(SHAPE[0], int), np.zeros(SHAPE, half.dtype, order=order)
    options = MEMORY_OPTIONS[name] | {"n_threads": 1}
    calls = [lambda: softxent.cross_entropy_and_grad(z, labels, out=out, **options)]
    if name != "ignore_index":
        calls.append(lambda: softxent.cross_entropy_and_grad(z, target, out=out, **options))
    if name != "accumulate":
        calls.append(lambda: softxent.cross_entropy(z, labels, **options))
    if name in ("none", "where", "temperature"):
        calls.append(lambda: softxent.softmax(z, out=out, **options))
        calls.append(lambda: softxent.entropy_and_grad(z, out=out, **options))
        calls.append(lambda: softxent.kl_divergence_and_grad(z, target, out=out, **options))
        calls.append(lambda: softxent.kl_divergence_and_grad(z, z, target_logits=True, out=out, **options))
    for call in calls:
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
