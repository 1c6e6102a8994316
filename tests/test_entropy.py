"""The entropy and its gradient: exact however small it is, for any shape, axis, layout, dtype and option, with the same
bits for any thread count, batch and place; and the axes that the softmax family takes.

Their derivatives are held against finite differences in test_reference.py.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import exact
import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import reference

INF, NAN = np.inf, np.nan
N_CLASSES = (2, 3, 10, 64, 65, 100, 1000, 4097, 50257, 128256)
PROBLEMS = {
    "few classes": ((50, 10), 1),
    "rows": ((20, 70), 1),
    "long rows": ((5, 701), 1),
    "class axis first": ((70, 23), 0),
    "class axis between": ((2, 40, 9), 1),
}


@pytest.fixture(params=PROBLEMS)
def problem(request, dtype, rng):
    """Logits and the class axis."""
    shape, axis = PROBLEMS[request.param]
    return (rng.normal(size=shape) * 3).astype(dtype), axis


def close(dtype, scale=1.0):
    eps = float(np.finfo(dtype).eps)
    return {"rtol": 60 * eps, "atol": 8 * eps * scale}


def assert_same_bits(got, want):
    assert got.dtype == want.dtype
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes()


# ----------------------------------------------------------------------------------------------------------------------
# Accuracy.


def rows_of(n_classes, dtype):
    """Uniform, narrow, wide, and led by one class by little and by much; of few distinct numbers if there are many."""
    rng = np.random.default_rng(n_classes)

    def noise(scale):
        row = rng.normal(size=n_classes)
        return (np.round(row * 64) / 64 if n_classes > 1000 else row) * scale

    yield np.full(n_classes, 0.37)
    yield np.full(n_classes, 1e8)
    for scale, offset in ((1e-3, 0), (0.3, -30.5), (1, 200), (4, 0), (20, 0)):
        yield noise(scale) + offset
    for lead in (1e-3, 1, 5, 12, 20, 30, 40, 80):
        for others in (np.zeros(n_classes), noise(0.5)):
            others[n_classes // 2] = others.max() + lead
            yield others
    behind = np.zeros(n_classes)
    behind[-1] = -9.7
    yield behind


@cache
def rows_and_truths(n_classes, dtype, temperature):
    rows = np.array(list(rows_of(n_classes, dtype)), dtype)
    if n_classes > 5000:
        rows = rows[[0, 4, 5, 8, 16, 20]]
    return rows, [exact.entropy(row, temperature) for row in rows]


@pytest.mark.parametrize(
    ("n_classes", "temperature"),
    [*((c, 1.0) for c in N_CLASSES), *((c, t) for c in (3, 65, 1000) for t in (0.375, 2.5))],
)
def test_entropies_and_their_gradients_are_within_their_bounds(n_classes, temperature, dtype, isa):
    """However small: a class that leads by 80 leaves 1e-33."""
    rows, truths = rows_and_truths(n_classes, dtype, temperature)
    got, grad = softxent.entropy_and_grad(rows, temperature=temperature)
    assert got.dtype == grad.dtype == dtype
    for h, g, truth in zip(got, grad, truths, strict=True):
        assert truth.error(h) <= 1
        assert truth.grad_error(g) <= 1
    assert_same_bits(softxent.entropy(rows, temperature=temperature), got)


@pytest.mark.parametrize("n_classes", [3, 65, 1000])
@pytest.mark.parametrize("layout", ["Fortran", "every second", "reversed"])
def test_the_bounds_hold_for_every_layout(n_classes, layout, dtype, isa):
    rows, truths = rows_and_truths(n_classes, dtype, 1.0)
    got, grad = softxent.entropy_and_grad(laid_out(rows, layout))
    for h, g, truth in zip(got, grad, truths, strict=True):
        assert truth.error(h) <= 1
        assert truth.grad_error(g) <= 1


def test_a_lead_of_40_leaves_its_entropy(dtype, isa):
    """41 e^-40: what is left of one, of which float64 has no digit beside one."""
    for order in "CF":
        z = np.array([[0, 40], [40, 0]], dtype, order=order)
        np.testing.assert_allclose(softxent.entropy(z), 1.7418252446695514e-16, rtol=170 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n_classes", [1, 2, 10, 64, 65, 1000, 50257])
@pytest.mark.parametrize("value", [0.0, 0.37, -1e8, 3e38])
def test_equal_logits_have_the_most_entropy_and_no_gradient(n_classes, value, dtype, isa):
    z = np.full((3, n_classes), value, dtype)
    h, grad = softxent.entropy_and_grad(z)
    np.testing.assert_allclose(h, np.log(n_classes), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(grad, 0)


def test_entropies_lie_between_nothing_and_log_c(dtype, isa, rng):
    for n_classes in (1, 2, 10, 65, 300):
        z = (rng.normal(size=(2000, n_classes)) * rng.choice([1e-4, 1, 10, 100, 1000], (2000, 1))).astype(dtype)
        h = softxent.entropy(z)
        assert np.all(h >= 0)
        assert np.all(h <= np.log(n_classes) * (1 + 4 * np.finfo(dtype).eps))
        assert not np.any(np.signbit(h))


def test_the_cross_entropy_of_the_probabilities_is_the_entropy(problem, dtype, isa):
    z, axis = problem
    p = softxent.softmax(z, axis)
    expected = softxent.cross_entropy(z, p, axis=axis, reduction="none")
    np.testing.assert_allclose(softxent.entropy(z, axis), expected, **close(dtype, 4))


# ----------------------------------------------------------------------------------------------------------------------
# Shapes, layouts, dtypes.


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, dtype, isa, rng):
    z = laid_out(rng.normal(size=shape) * 3, layout, dtype)
    samples = tuple(np.delete(shape, axis))
    upstream = laid_out(rng.normal(size=samples), layout, dtype)
    h, grad = reference.entropy_and_grad(z, axis, grad_output=upstream)
    out = laid_out(np.full(samples, 9), layout, dtype)
    got = softxent.entropy(z, axis, out=out)
    assert got is out
    np.testing.assert_allclose(got, h, **close(dtype))
    out = laid_out(np.full(shape, 9), layout, dtype)
    got, got_grad = softxent.entropy_and_grad(z, axis, grad_output=upstream, out=out)
    assert got_grad is out
    assert got.dtype == dtype
    assert got.shape == samples
    np.testing.assert_allclose(got, h, **close(dtype))
    np.testing.assert_allclose(got_grad, grad, **close(dtype))
    np.testing.assert_array_equal(softxent.entropy_and_grad(z, axis, grad_output=upstream)[1], out)


@pytest.mark.parametrize("code", ["?", "i1", "u8", "f2", "bfloat16", ">f2", ">f4", ">f8"])
def test_logits_of_every_real_dtype_are_taken(code, isa, rng):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if code == "bfloat16" else np.dtype(code)
    z = (rng.normal(size=(5, 60, 4)) * 3).clip(0).astype(dtype)
    result = np.dtype(np.float64) if dtype.kind in "?biu" else dtype.newbyteorder("=")
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(result.name) or np.finfo(result).eps
    for axis in (0, 1, 2):
        h, grad = softxent.entropy_and_grad(z, axis)
        want, want_grad = reference.entropy_and_grad(z.astype(np.float64), axis)
        assert h.dtype == grad.dtype == result
        np.testing.assert_allclose(h.astype(np.float64), want, rtol=8 * eps)
        np.testing.assert_allclose(grad.astype(np.float64), want_grad, rtol=8 * eps, atol=8 * eps)  # its terms cancel
        np.testing.assert_array_equal(softxent.entropy(z, axis), h)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_are_those_of_float32_rounded(name, isa, rng):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if name == "bfloat16" else np.dtype(name)
    for shape in ((50, 10), (20, 70), (5, 701)):
        z = (rng.normal(size=shape) * 4).astype(dtype)
        for order in "CF":
            halves = np.asarray(z, order=order)
            got = softxent.entropy_and_grad(halves, temperature=0.75)
            wide = softxent.entropy_and_grad(halves.astype(np.float32), temperature=0.75)
            for a, b in zip(got, wide, strict=True):
                assert np.mean(a != b.astype(dtype)) <= 0.02 + 1 / a.size  # float32's own last bit may differ
                steps = np.abs(a.view(np.int16).astype(int) - b.astype(dtype).view(np.int16))
                assert steps[np.sign(a) == np.sign(b.astype(dtype))].max() <= 1
            in_float32 = np.zeros(shape, np.float32)
            assert softxent.entropy_and_grad(halves, out=in_float32)[1] is in_float32


def test_gradients_may_overwrite_the_logits(problem, dtype, isa, rng):
    z, axis = problem
    where = rng.random(z.shape) < 0.8
    for options in ({}, {"temperature": 0.7, "where": where, "grad_output": -2.0}):
        for layout in LAYOUTS:
            in_place = laid_out(z, layout)
            h, grad = softxent.entropy_and_grad(laid_out(z, layout), axis, **options)
            got, same = softxent.entropy_and_grad(in_place, axis, out=in_place, **options)
            assert same is in_place
            np.testing.assert_array_equal(got, h)
            np.testing.assert_array_equal(in_place, grad)


def test_inputs_are_never_written(problem, isa, rng):
    z, axis = problem
    where, upstream = rng.random(z.shape) < 0.8, rng.normal(size=np.delete(z.shape, axis))
    before = [a.copy() for a in (z, where, upstream)]
    softxent.entropy_and_grad(z, axis, where=where, grad_output=upstream)
    softxent.entropy(z, axis, where=where)
    for a, b in zip((z, where, upstream), before, strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------------------------------------
# Options.


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1.7])
def test_options_give_the_reference_values(temperature, problem, dtype, isa, rng):
    z, axis = problem
    of_classes = np.expand_dims(np.arange(z.shape[axis]) % 3 > 0, tuple(range(1, z.ndim - axis)))
    for where in (None, rng.random(z.shape) < 0.7, of_classes, np.True_):
        for upstream in (None, -2.5, rng.normal(size=np.delete(z.shape, axis))):
            options = {"where": where, "temperature": temperature}
            h, grad = softxent.entropy_and_grad(z, axis, grad_output=upstream, **options)
            want, want_grad = reference.entropy_and_grad(z, axis, grad_output=upstream, **options)
            np.testing.assert_allclose(h, want, **close(dtype))
            np.testing.assert_allclose(grad, want_grad, **close(dtype, max(1, np.nanmax(np.abs(want_grad)))))
            np.testing.assert_array_equal(softxent.entropy(z, axis, **options), h)


def test_removed_classes_are_as_good_as_absent(problem, dtype, isa, rng):
    """And are not looked at."""
    z, axis = problem
    kept = np.arange(z.shape[axis]) % 4 != 2
    where = np.broadcast_to(np.expand_dims(kept, tuple(range(1, z.ndim - axis))), z.shape)
    fewer = softxent.entropy_and_grad(np.compress(kept, z, axis), axis)
    for hole in (NAN, INF, -INF, 1e30):
        h, grad = softxent.entropy_and_grad(np.where(where, z, dtype(hole)), axis, where=where)
        np.testing.assert_allclose(h, fewer[0], **close(dtype))
        np.testing.assert_allclose(np.compress(kept, grad, axis), fewer[1], **close(dtype))
        np.testing.assert_array_equal(grad[~where], 0)


# ----------------------------------------------------------------------------------------------------------------------
# Values at the edges.

EDGES = {
    "a class at -inf": ([0.0, -INF, 0.0], np.log(2), [0, 0, 0]),
    "all but one at -inf": ([-INF, 3.0, -INF], 0, [0, 0, 0]),
    "all at -inf": ([-INF] * 3, NAN, [NAN] * 3),
    "a nan": ([0.0, NAN, 1.0], NAN, [NAN] * 3),
    "a +inf": ([0.0, INF, 1.0], NAN, [NAN] * 3),
    "all at +inf": ([INF] * 3, NAN, [NAN] * 3),
    "+inf and -inf": ([INF, -INF, 0.0], NAN, [NAN] * 3),
    "one leads by all that there is": ([0.0, 3e38, 0.0], 0, [0, 0, 0]),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("n_removed", [0, 40, 700])
def test_values_at_the_edges_concern_their_own_sample_only(edge, n_removed, dtype, isa):
    """Among few classes, and among many of which all others are removed."""
    row, value, gradient = EDGES[edge]
    z = np.full((9, 3 + n_removed), -3.0, dtype)
    where = np.arange(3 + n_removed) < 3
    z[:, :3] = [1, 2, 4]
    sound = softxent.entropy_and_grad(z, where=where)
    z[4, :3] = row
    for order in "CF":
        options = {"where": where} if n_removed else {}
        h, grad = softxent.entropy_and_grad(np.asarray(z, order=order), **options)
        np.testing.assert_allclose(h[4], value, rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(grad[4, :3], gradient)
        np.testing.assert_array_equal(grad[4, 3:], 0)
        others = np.arange(9) != 4
        np.testing.assert_allclose(h[others], sound[0][others], rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad[others], sound[1][others], **close(dtype))
        np.testing.assert_array_equal(softxent.entropy(np.asarray(z, order=order), **options), h)


def test_nothing_left_is_no_distribution(dtype, isa):
    z, where = np.zeros((2, 5), dtype), np.array([[True] * 5, [False] * 5])
    h, grad = softxent.entropy_and_grad(z, where=where)
    assert np.isnan(h).tolist() == [False, True]
    np.testing.assert_array_equal(grad, 0)


def test_one_class_has_no_entropy(dtype, isa):
    for value in (0.0, -5.0, 1e30):
        h, grad = softxent.entropy_and_grad(np.full((3, 1), value, dtype))
        np.testing.assert_array_equal(h, 0)
        np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize(("shape", "axis"), [((0, 5), 1), ((5, 0), 0), ((2, 5, 0), 1)])
def test_no_samples_have_no_entropies(shape, axis, dtype, isa):
    h, grad = softxent.entropy_and_grad(np.zeros(shape, dtype), axis)
    assert h.shape == tuple(np.delete(shape, axis))
    assert grad.shape == shape
    assert softxent.entropy(np.zeros(shape, dtype), axis).shape == h.shape


# ----------------------------------------------------------------------------------------------------------------------
# Same bits.


@pytest.mark.parametrize(("shape", "axis"), [((3000, 33), 1), ((9001, 10), 1), ((3, 21, 50, 60), 1), ((5, 50257), 1)])
def test_same_bits_for_any_thread_count(shape, axis, dtype, isa, rng):
    z = (rng.normal(size=shape) * 4).astype(dtype)
    where, upstream = rng.random(shape) < 0.9, rng.normal(size=np.delete(shape, axis))
    for options in ({}, {"where": where, "temperature": 1.7}):
        one = softxent.entropy_and_grad(z, axis, grad_output=upstream, n_threads=1, **options)
        for n in (2, 3, 7):
            for got, want in zip(
                softxent.entropy_and_grad(z, axis, grad_output=upstream, n_threads=n, **options), one, strict=True
            ):
                assert_same_bits(got, want)
            assert_same_bits(softxent.entropy(z, axis, n_threads=n, **options), one[0])


@pytest.mark.parametrize("n_classes", [1, 10, 33, 64, 65, 600, 1001])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_in_any_batch_and_place(n_classes, order, dtype, isa, rng):
    z = np.asarray(rng.normal(size=(67, n_classes)) * 4, dtype, order=order)
    where = rng.random(z.shape) < 0.9
    for options in ({}, {"temperature": 1.7}, {"where": where}):
        h, grad = softxent.entropy_and_grad(z, **options)
        for index in (slice(0, 1), slice(66, None), slice(5, 14), slice(1, None), slice(None, None, -1)):
            some = {**options, "where": where[index]} if "where" in options else options
            got, got_grad = softxent.entropy_and_grad(z[index], **some)
            assert_same_bits(got, h[index])
            assert_same_bits(got_grad, grad[index])


@pytest.mark.parametrize("n_classes", [10, 33, 600])
def test_same_bits_at_any_alignment(n_classes, dtype, isa, rng):
    z = (rng.normal(size=(11, n_classes)) * 4).astype(dtype)
    h, grad = softxent.entropy_and_grad(z)
    for shift in range(1, 64 // z.itemsize, 2):
        moved, out = (np.zeros(z.size + 64, dtype)[s : s + z.size].reshape(z.shape) for s in (shift, 64 - shift))
        moved[...] = z
        got, _ = softxent.entropy_and_grad(moved, out=out)
        assert_same_bits(got, h)
        assert_same_bits(out, grad)


# ----------------------------------------------------------------------------------------------------------------------
# Axes of the softmax family.

FAMILY = ("softmax", "log_softmax", "logsumexp", "entropy")
AXES = [None, (0,), (0, 1), (1, 0), (0, 2), (-1, 0), (1, -1), (0, 1, 2), (2, 0, 1), 1]


def with_one_class_axis(z, axis):
    """The same logits with the classes of all these axes on the last, and how to bring such a result back."""
    axes = tuple(range(z.ndim)) if axis is None else np.atleast_1d(axis) % z.ndim
    axes = sorted(int(i) for i in axes)
    order = [i for i in range(z.ndim) if i not in axes] + axes
    moved = z.transpose(order)
    samples = moved.shape[: z.ndim - len(axes)]
    return moved.reshape(*samples, -1), lambda result: result.reshape(moved.shape).transpose(np.argsort(order)), axes


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("axis", AXES)
def test_several_axes_are_one(name, axis, dtype, isa, rng):
    for shape in ((3, 4, 5), (2, 30, 7), (20, 3, 20)):
        values, where = rng.normal(size=shape) * 3, rng.random(shape) < 0.9
        for layout in LAYOUTS:
            check_axes(getattr(softxent, name), laid_out(values, layout, dtype), where, axis, layout)


def check_axes(function, z, where, axis, layout):
    shape, dtype = z.shape, z.dtype.type
    one_axis, back, axes = with_one_class_axis(z, axis)
    for options, mask in (({}, {}), ({"temperature": 0.7, "where": where}, {"temperature": 0.7})):
        if options:
            mask = {**mask, "where": with_one_class_axis(where, axis)[0]}
        want = function(one_axis, **mask)
        got = function(z, axis, **options)
        if want.ndim == one_axis.ndim:
            want = back(want)
            assert got.shape == shape
            out = laid_out(np.zeros(shape), layout, dtype)
        else:
            kept = function(z, axis, keepdims=True, **options)
            assert kept.shape == tuple(1 if i in axes else n for i, n in enumerate(shape))
            np.testing.assert_array_equal(kept.reshape(want.shape), got)
            assert got.shape == want.shape
            out = laid_out(np.zeros(got.shape), layout, dtype)
        np.testing.assert_allclose(got, want, **close(dtype, 8))
        assert function(z, axis, out=out, **options) is out
        np.testing.assert_array_equal(out, got)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [None, (0, 2), (1, 0)])
def test_several_axes_may_be_overwritten(name, axis, dtype, isa, rng):
    function = getattr(softxent, name)
    for layout in LAYOUTS:
        z = laid_out(rng.normal(size=(5, 6, 7)), layout, dtype)
        expected = function(z, axis)
        assert function(z, axis, out=z) is z
        np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("name", ["logsumexp", "entropy"])
def test_results_with_the_class_axis_kept_go_into_out(name, dtype, isa, rng):
    function = getattr(softxent, name)
    z = rng.normal(size=(3, 40, 5)).astype(dtype)
    for axis in (0, 1, -1, (0, 2), None):
        expected = function(z, axis, keepdims=True)
        assert expected.ndim == 3
        out = np.zeros(expected.shape, dtype)
        assert function(z, axis, keepdims=True, out=out) is out
        np.testing.assert_array_equal(out, expected)
