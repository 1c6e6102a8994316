"""A target of a few classes: in every loss it means the dense distribution with the same masses, whatever the options,
the layouts, the dtypes, the padding and the order, and says in its own words what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import SparseTarget, reference

INF, NAN = np.inf, np.nan
PROBLEMS = {
    "few classes": ((50, 10), 1),
    "rows": ((20, 70), 1),
    "long rows": ((5, 701), 1),
    "class axis first": ((70, 23), 0),
    "class axis between": ((2, 40, 9), 1),
}


def sparse_target(rng, samples, n_classes, k, *, padded=False, repeated=False):
    """Indices and masses; none twice unless that is wanted, and some are padding if it is."""
    order = rng.random((*samples, n_classes)).argsort(axis=-1)
    indices = rng.integers(0, n_classes, (*samples, k)) if repeated else order[..., :k]
    values = rng.random(indices.shape)
    values /= values.sum(axis=-1, keepdims=True)
    if padded:
        indices = np.where(rng.random(indices.shape) < 0.3, -1, indices)
    return indices, values


def dense(indices, values, shape, axis, dtype=np.float64):
    """The distribution that is meant, by a loop."""
    target = np.zeros(shape, np.float64)
    rows = np.moveaxis(target, axis, -1)
    for place in np.ndindex(indices.shape):
        if indices[place] != -1:
            rows[(*place[:-1], indices[place])] += float(values[place])
    return target.astype(dtype)


def close(dtype, scale=1.0):
    eps = float(np.finfo(dtype).eps)
    return {"rtol": 60 * eps, "atol": 16 * eps * max(scale, float(np.finfo(dtype).tiny))}


def assert_close(results, expected, dtype):
    for got, want in zip(results, expected, strict=True):
        if np.asarray(want).dtype == np.int64:
            np.testing.assert_array_equal(got, want)
        else:
            finite = np.abs(want)[np.isfinite(want)] if np.ndim(want) else np.abs(want)
            np.testing.assert_allclose(got, want, **close(dtype, np.max(finite, initial=0)))


def results_of(module, z, labels, v, options):
    """Of every loss that takes these options."""
    yield from module.cross_entropy_and_grad(z, labels, **options)
    yield module.cross_entropy(z, labels, **options)
    yield from module.cross_entropy_and_rank(z, labels, **options)
    if not options.keys() & {"softcap", "z_loss"}:
        yield from module.cross_entropy_grad_hess(z, labels, **options)
        yield module.cross_entropy_hvp(z, labels, v, **options)


@pytest.fixture(params=PROBLEMS)
def problem(request, dtype, rng):
    """Logits, the class axis, the samples' shape."""
    shape, axis = PROBLEMS[request.param]
    return (rng.normal(size=shape) * 3).astype(dtype), axis, tuple(int(n) for n in np.delete(shape, axis))


# ----------------------------------------------------------------------------------------------------------------------
# Equal in meaning.

OPTIONS = {
    "none": lambda shape, axis, samples, rng: {},
    "class_weight": lambda shape, axis, samples, rng: {"class_weight": rng.random(shape[axis]) * 3},
    "sample_weight": lambda shape, axis, samples, rng: {"sample_weight": rng.random(samples) * 3},
    "sample_weight, some 0": lambda shape, axis, samples, rng: {"sample_weight": rng.integers(0, 3, samples)},
    "label_smoothing": lambda shape, axis, samples, rng: {"label_smoothing": 0.2},
    "temperature": lambda shape, axis, samples, rng: {"temperature": 1.7},
    "temperatures": lambda shape, axis, samples, rng: {"temperature": rng.uniform(0.5, 2, samples)},
    "softcap": lambda shape, axis, samples, rng: {"softcap": 5.0},
    "z_loss": lambda shape, axis, samples, rng: {"z_loss": 0.1},
    "base": lambda shape, axis, samples, rng: {"base": 2},
    "normalizer": lambda shape, axis, samples, rng: {"normalizer": 7.0},
    "where": lambda shape, axis, samples, rng: {"where": rng.random(shape) < 0.8},
}
TOGETHER = (
    ("class_weight", "label_smoothing"),
    ("where", "label_smoothing", "class_weight", "sample_weight", "temperature", "base"),
    ("softcap", "z_loss", "temperatures", "class_weight", "sample_weight", "label_smoothing", "where", "base"),
)


@pytest.mark.parametrize("names", [*((name,) for name in OPTIONS), *TOGETHER], ids="+".join)
def test_it_means_the_dense_distribution_with_every_option(names, problem, isa, rng):
    z, axis, samples = problem
    options = {}
    for name in names:
        options |= OPTIONS[name](z.shape, axis, samples, rng)
    indices, values = sparse_target(rng, samples, z.shape[axis], 5, padded=True, repeated=True)
    values = values.astype(z.dtype)
    if "where" in options:  # no mass on a removed class: the loss would be infinite
        np.put_along_axis(np.moveaxis(options["where"], axis, -1), np.maximum(indices, 0), True, -1)
    v = rng.normal(size=z.shape)
    meant = dense(indices, values, z.shape, axis)
    for reduction in ("none", "mean", "sum"):
        fixed = options | {"axis": axis, "reduction": reduction}
        want = results_of(reference, z, meant, v, fixed)
        assert_close(results_of(softxent, z, SparseTarget(indices, values), v, fixed), want, z.dtype)


def test_the_reference_makes_no_difference(problem, rng):
    z, axis, samples = problem
    indices, values = sparse_target(rng, samples, z.shape[axis], 4, padded=True, repeated=True)
    meant, v = dense(indices, values, z.shape, axis), rng.normal(size=z.shape)
    for options in ({}, {"label_smoothing": 0.3, "class_weight": rng.random(z.shape[axis])}):
        got = results_of(reference, z, SparseTarget(indices, values), v, {"axis": axis, **options})
        for a, b in zip(got, results_of(reference, z, meant, v, {"axis": axis, **options}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 33, 64, 100])
@pytest.mark.parametrize("n_classes", [1, 2, 10, 64, 65, 1000])
def test_any_number_of_indices_of_any_number_of_classes(k, n_classes, dtype, isa, rng):
    """Also more indices than classes, all of which then add up."""
    z = (rng.normal(size=(7, n_classes)) * 3).astype(dtype)
    indices, values = sparse_target(rng, (7,), n_classes, k, padded=True, repeated=True)
    meant = dense(indices, values, z.shape, 1)
    for order in "CF":
        got = softxent.cross_entropy_and_grad(
            np.asarray(z, order=order), SparseTarget(indices, values), reduction="none"
        )
        assert_close(got, reference.cross_entropy_and_grad(z, meant, reduction="none"), dtype)


def test_one_index_of_mass_one_is_a_label(problem, isa, rng):
    z, axis, samples = problem
    labels = rng.integers(0, z.shape[axis], samples)
    target = SparseTarget(labels[..., None], np.ones((*samples, 1)))
    for options in ({}, {"label_smoothing": 0.1}, {"sample_weight": rng.random(samples)}, {"reduction": "none"}):
        want = results_of(softxent, z, labels, z, {"axis": axis, **options})
        assert_close(results_of(softxent, z, target, z, {"axis": axis, **options}), want, z.dtype)


def test_an_index_twice_has_both_masses(dtype, isa):
    z = np.array([[0, 1, 2, -1]], dtype)
    together = softxent.cross_entropy_and_grad(z, SparseTarget([[2, 0]], [[0.75, 0.25]]), reduction="none")
    for indices, values in (
        ([[2, 0, 2]], [[0.5, 0.25, 0.25]]),
        ([[2, 2, 2, 0]], [[0.25, 0.25, 0.25, 0.25]]),
        ([[0, 2, 2]], [[0.25, 0.75, 0]]),
    ):
        got = softxent.cross_entropy_and_grad(z, SparseTarget(indices, values), reduction="none")
        assert_close(got, together, dtype)


def test_the_order_of_the_indices_says_nothing(problem, isa, rng):
    z, axis, samples = problem
    indices, values = sparse_target(rng, samples, z.shape[axis], 6)
    want = list(results_of(softxent, z, SparseTarget(indices, values), z, {"axis": axis}))
    for order in (slice(None, None, -1), [3, 1, 5, 0, 2, 4]):
        got = results_of(softxent, z, SparseTarget(indices[..., order], values[..., order]), z, {"axis": axis})
        assert_close(got, want, z.dtype)


def test_padding_adds_nothing_wherever_it_is(problem, isa, rng):
    """And its mass is not looked at."""
    z, axis, samples = problem
    indices, values = sparse_target(rng, samples, z.shape[axis], 3)
    want = softxent.cross_entropy_and_grad(z, SparseTarget(indices, values), axis=axis, reduction="none")
    pad = np.full((*samples, 1), -1)
    for filler in (0.0, 0.5, NAN, -1.0, INF):
        mass = np.full((*samples, 1), filler)
        for i, j in (
            (np.concatenate([indices, pad, pad], -1), np.concatenate([values, mass, mass], -1)),
            (np.concatenate([pad, indices], -1), np.concatenate([mass, values], -1)),
            (
                np.concatenate([indices[..., :1], pad, indices[..., 1:]], -1),
                np.concatenate([values[..., :1], mass, values[..., 1:]], -1),
            ),
        ):
            got = softxent.cross_entropy_and_grad(z, SparseTarget(i, j), axis=axis, reduction="none")
            assert_close(got, want, z.dtype)


@pytest.mark.parametrize("k", [0, 1, 5])
def test_nothing_but_padding_is_a_target_without_mass(k, dtype, isa, rng):
    """Such a sample counts in the mean, as one with zeros does."""
    z = rng.normal(size=(3, 7)).astype(dtype)
    target = SparseTarget(np.full((3, k), -1), np.ones((3, k)))
    for reduction in ("none", "sum", "mean"):
        loss, grad = softxent.cross_entropy_and_grad(z, target, reduction=reduction)
        np.testing.assert_array_equal(loss, 0)
        np.testing.assert_array_equal(grad, 0)
    smooth = softxent.cross_entropy_and_grad(z, target, label_smoothing=0.5)
    assert_close(smooth, softxent.cross_entropy_and_grad(z, np.zeros_like(z), label_smoothing=0.5), dtype)


def test_a_confident_and_right_sample_keeps_its_digits(dtype, isa):
    for n_classes in (3, 64, 1000):
        z = np.zeros((2, n_classes), dtype)
        z[0, 1] = z[1, 2] = 30
        target = SparseTarget([[1, -1], [2, -1]], [[1.0, 9.0], [1.0, 9.0]])
        losses, grad = softxent.cross_entropy_and_grad(z, target, reduction="none")
        left = (n_classes - 1) * np.exp(-30)
        near = 200 * np.finfo(dtype).eps
        np.testing.assert_allclose(losses, np.log1p(left), rtol=near)
        np.testing.assert_allclose([grad[0, 1], grad[1, 2]], -left / (1 + left), rtol=near)
        np.testing.assert_allclose(grad[:, 0], np.exp(-30) / (1 + left), rtol=near)


# ----------------------------------------------------------------------------------------------------------------------
# Layouts, dtypes, outputs.


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, dtype, isa, rng):
    """The indices have their own axis last, wherever the logits' class axis is."""
    samples = tuple(int(n) for n in np.delete(shape, axis))
    z = laid_out(rng.normal(size=shape) * 3, layout, dtype)
    indices, values = sparse_target(rng, samples, shape[axis], 3, padded=True)
    meant = dense(indices, values.astype(dtype), shape, axis)
    out = laid_out(np.full(shape, 9), layout, dtype)
    target = SparseTarget(laid_out(indices, layout), laid_out(values, layout, dtype))
    got = softxent.cross_entropy_and_grad(z, target, axis=axis, reduction="none", out=out)
    assert got[1] is out
    assert_close(got, reference.cross_entropy_and_grad(z, meant, axis=axis, reduction="none"), dtype)
    assert_close(
        [softxent.cross_entropy_hvp(z, target, z, axis=axis)],
        [reference.cross_entropy_hvp(z, meant, z, axis=axis)],
        dtype,
    )


@pytest.mark.parametrize("code", [*"bhilq", *"BHILQ", ">i2", ">i8", ">u4"])
def test_indices_of_every_integer_dtype_are_taken(code, dtype, isa, rng):
    z = rng.normal(size=(20, 70)).astype(dtype)
    indices, values = sparse_target(rng, (20,), 70, 4, padded=np.dtype(code).kind == "i")
    want = softxent.cross_entropy_and_grad(z, SparseTarget(indices, values))
    got = softxent.cross_entropy_and_grad(z, SparseTarget(indices.astype(code), values))
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])
    lists = SparseTarget(indices.tolist(), values.tolist())
    np.testing.assert_array_equal(softxent.cross_entropy_and_grad(z, lists)[1], want[1])


@pytest.mark.parametrize("code", ["f2", "bfloat16", "f4", "f8", ">f2", ">f4", ">f8"])
def test_masses_of_every_float_dtype_are_taken(code, dtype, isa, rng):
    masses = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if code == "bfloat16" else np.dtype(code)
    z = rng.normal(size=(20, 70)).astype(dtype)
    indices, values = sparse_target(rng, (20,), 70, 4)
    values = values.astype(masses)
    got = softxent.cross_entropy_and_grad(z, SparseTarget(indices, values), reduction="none")
    meant = dense(indices, values, z.shape, 1)
    assert_close(got, reference.cross_entropy_and_grad(z, meant, reduction="none"), dtype)


@pytest.mark.parametrize("code", ["f2", "bfloat16", ">f4", ">f8", "i2", ">f2"])
def test_logits_of_other_dtypes_are_taken(code, isa, rng):
    other = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if code == "bfloat16" else np.dtype(code)
    z = (rng.normal(size=(6, 40, 3)) * 3).astype(other)
    indices, values = sparse_target(rng, (6, 3), 40, 4, padded=True)
    target, meant = SparseTarget(indices, values), dense(indices, values, z.shape, 1)
    result = np.dtype(np.float64) if other.kind == "i" else other.newbyteorder("=")
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(result.name) or np.finfo(result).eps
    losses, grad = softxent.cross_entropy_and_grad(z, target, axis=1, reduction="none")
    want, want_grad = reference.cross_entropy_and_grad(z.astype(np.float64), meant, axis=1, reduction="none")
    assert losses.dtype == grad.dtype == result
    np.testing.assert_allclose(losses.astype(np.float64), want, rtol=30 * min(eps, 1e-4) + eps)
    np.testing.assert_allclose(grad.astype(np.float64), want_grad, rtol=30 * min(eps, 1e-4) + eps, atol=1e-5)


def test_gradients_may_overwrite_the_logits_and_be_added(problem, isa, rng):
    z, axis, samples = problem
    target = SparseTarget(*sparse_target(rng, samples, z.shape[axis], 4, padded=True, repeated=True))
    for options in ({}, {"label_smoothing": 0.1, "class_weight": rng.random(z.shape[axis]), "temperature": 0.7}):
        loss, grad = softxent.cross_entropy_and_grad(z, target, axis=axis, **options)
        in_place = z.copy(order="K")
        got, same = softxent.cross_entropy_and_grad(in_place, target, axis=axis, out=in_place, **options)
        assert same is in_place
        assert got == loss
        np.testing.assert_array_equal(in_place, grad)
        start = rng.normal(size=z.shape).astype(z.dtype)
        out = start.copy()
        softxent.cross_entropy_and_grad(z, target, axis=axis, out=out, accumulate=True, **options)
        np.testing.assert_allclose(out, start + grad, **close(z.dtype, 4))


def test_inputs_are_never_written(problem, isa, rng):
    z, axis, samples = problem
    indices, values = sparse_target(rng, samples, z.shape[axis], 4, padded=True)
    before = [a.copy() for a in (z, indices, values)]
    list(results_of(softxent, z, SparseTarget(indices, values), z, {"axis": axis, "label_smoothing": 0.1}))
    for a, b in zip((z, indices, values), before, strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------------------------------------
# Values at the edges.


def test_edges_are_those_of_the_dense_distribution(dtype, isa):
    rows = [
        ([0, -INF, 1], [0, 2], [0.5, 0.5]),  # absent, without mass
        ([0, -INF, 1], [1, 2], [0.5, 0.5]),  # absent, with mass
        ([0, -INF, 1], [1, 2], [0, 1]),  # of mass 0 that is said
        ([-INF, -INF, -INF], [0, -1], [1, 0]),
        ([0, NAN, 1], [0, 2], [0.5, 0.5]),
        ([0, INF, 1], [0, 2], [0.5, 0.5]),
        ([0, INF, 1], [1, -1], [1, 0]),
        ([1, 2, 3], [-1, -1], [0, 0]),
    ]
    z, indices, values = (np.array(column) for column in zip(*rows, strict=True))
    z = z.astype(dtype)
    meant = dense(indices, values, z.shape, 1)
    for order in "CF":
        logits = np.asarray(z, order=order)
        got = softxent.cross_entropy_and_grad(logits, SparseTarget(indices, values), reduction="none")
        want = reference.cross_entropy_and_grad(z, meant, reduction="none")
        assert_close(got, want, dtype)
        assert np.isinf(got[0]).tolist() == [False, True] + [False] * 6
        assert np.isnan(got[0]).tolist() == [False, False, False, True, True, True, True, False]


def test_mass_on_a_removed_class_is_an_infinite_loss(dtype, isa):
    z, where = np.zeros((2, 4), dtype), [True, True, True, False]
    target = SparseTarget([[0, 3], [0, 3]], [[0.5, 0.5], [1.0, 0.0]])
    losses, grad = softxent.cross_entropy_and_grad(z, target, where=where, reduction="none")
    assert np.isinf(losses).tolist() == [True, False]
    np.testing.assert_array_equal(grad[:, 3], 0)


def test_nothing_of_a_sample_without_weight_is_looked_at(problem, isa, rng):
    """Neither its logits nor its masses; its indices must be classes all the same."""
    z, axis, samples = problem
    s = rng.integers(0, 2, samples)
    s.flat[0], s.flat[-1] = 0, 1
    indices, values = sparse_target(rng, samples, z.shape[axis], 4)
    clean = list(results_of(softxent, z, SparseTarget(indices, values), z, {"axis": axis, "sample_weight": s}))
    broken = np.broadcast_to(np.expand_dims(s == 0, axis), z.shape)
    for hole in (NAN, -1.0):
        bad = SparseTarget(indices, np.where(s[..., None] == 0, hole, values))
        bad_z = np.where(broken, z.dtype.type(NAN), z)
        for got, want in zip(
            results_of(softxent, bad_z, bad, z, {"axis": axis, "sample_weight": s}), clean, strict=True
        ):
            np.testing.assert_array_equal(got, want)
    indices = np.array(indices)
    indices.reshape(-1, 4)[0, 1] = z.shape[axis]
    with pytest.raises(IndexError, match=r"indices.* is .* not a class"):
        softxent.cross_entropy(z, SparseTarget(indices, values), axis=axis, sample_weight=s)


@pytest.mark.parametrize(("shape", "axis"), [((0, 5), 1), ((5, 0), 0), ((2, 5, 0), 1)])
def test_the_mean_of_nothing_is_nan(shape, axis, dtype, isa):
    samples = tuple(int(n) for n in np.delete(shape, axis))
    target = SparseTarget(np.zeros((*samples, 3), int), np.ones((*samples, 3)))
    loss, grad = softxent.cross_entropy_and_grad(np.zeros(shape, dtype), target, axis=axis)
    assert np.isnan(loss)
    assert grad.shape == shape


def test_one_sample_alone_is_a_sample(dtype, isa):
    z = np.array([0, 1, 2, 3], dtype)
    got = softxent.cross_entropy_and_grad(z, SparseTarget([3, 1], [0.75, 0.25]), reduction="none")
    assert got[0].shape == ()
    batch = softxent.cross_entropy_and_grad(z[None], SparseTarget([[3, 1]], [[0.75, 0.25]]), reduction="none")
    np.testing.assert_array_equal(got[0], batch[0][0])
    np.testing.assert_array_equal(got[1], batch[1][0])


# ----------------------------------------------------------------------------------------------------------------------
# Same bits.


@pytest.mark.parametrize(("shape", "axis"), [((3000, 33), 1), ((9001, 10), 1), ((3, 21, 50, 60), 1), ((5, 50257), 1)])
def test_same_bits_for_any_thread_count(shape, axis, dtype, isa, rng):
    z = (rng.normal(size=shape) * 4).astype(dtype)
    samples = tuple(int(n) for n in np.delete(shape, axis))
    target = SparseTarget(rng.integers(-1, shape[axis], (*samples, 5)), rng.random((*samples, 5)))
    for options in ({}, {"label_smoothing": 0.1, "class_weight": rng.random(shape[axis])}, {"reduction": "none"}):
        one = softxent.cross_entropy_and_grad(z, target, axis=axis, n_threads=1, **options)
        for n in (2, 3, 7):
            got = softxent.cross_entropy_and_grad(z, target, axis=axis, n_threads=n, **options)
            for a, b in zip(got, one, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_classes", [1, 10, 33, 65, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_in_any_batch_and_place(n_classes, order, dtype, isa, rng):
    z = np.asarray(rng.normal(size=(67, n_classes)) * 4, dtype, order=order)
    indices, values = rng.integers(-1, n_classes, (67, 5)), rng.random((67, 5))
    for options in ({}, {"label_smoothing": 0.1, "class_weight": rng.random(n_classes)}, {"temperature": 0.7}):
        whole = softxent.cross_entropy_and_grad(z, SparseTarget(indices, values), reduction="none", **options)
        for index in (slice(0, 1), slice(66, None), slice(5, 14), slice(1, None), slice(None, None, -1)):
            target = SparseTarget(indices[index], values[index])
            got = softxent.cross_entropy_and_grad(z[index], target, reduction="none", **options)
            for a, b in zip(got, whole, strict=True):
                np.testing.assert_array_equal(a, b[index])


# ----------------------------------------------------------------------------------------------------------------------
# What is refused: each message names the entry, what it was, and what would do; nothing is written.

Z = np.arange(12.0).reshape(4, 3)
GOOD = SparseTarget(np.array([[0, 1], [1, 2], [2, -1], [0, 2]]), np.full((4, 2), 0.5))


@pytest.mark.parametrize("bad", [-2, 3, -100, 10**6, -(2**31)])
@pytest.mark.parametrize("code", [np.int32, np.int64])
def test_an_index_that_is_no_class_is_an_index_error(bad, code, isa, call):
    indices = GOOD.indices.astype(code)
    indices[2, 1] = indices[3, 0] = bad
    with pytest.raises(IndexError, match=rf"indices\[2, 1\] is {bad}, which is not a class in \[0, 3\)"):
        call(Z, SparseTarget(indices, GOOD.values))


def test_a_huge_index_does_not_wrap(call):
    indices = np.array([[0, 1], [2**64 - 1, 2], [2, 1], [0, 2]], np.uint64)
    with pytest.raises(IndexError, match=r"indices\[1, 0\] is 18446744073709551615"):
        call(Z, SparseTarget(indices, GOOD.values))


@pytest.mark.parametrize("bad", [-1.0, NAN, -(2.0**-24)])
@pytest.mark.parametrize("code", ["f2", "f4", "f8", ">f4"])
def test_a_value_that_is_no_mass_is_a_value_error(bad, code, isa, call):
    values = GOOD.values.astype(code)
    values[1, 1] = values[3, 0] = bad
    for z in (Z, Z.astype(np.float32)):
        with pytest.raises(ValueError, match=rf"values\[1, 1\] is {bad}"):
            call(z, SparseTarget(GOOD.indices, values))


@pytest.mark.parametrize("n_classes", [3, 100])
@pytest.mark.parametrize("options", [{}, {"accumulate": True}, {"reduction": "none"}, {"label_smoothing": 0.1}])
def test_nothing_is_written_where_it_is_bad(n_classes, options, isa):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(1000, n_classes))
    indices, values = rng.integers(0, n_classes, (1000, 3)), rng.random((1000, 3))
    bad_indices, bad_values = indices.copy(), values.copy()
    bad_indices[997, 1], bad_values[997, 2] = n_classes, -1
    for bad, error in (
        (SparseTarget(bad_indices, values), IndexError),
        (SparseTarget(indices, bad_values), ValueError),
    ):
        for out in (np.full_like(z, 7), z):
            before = out.copy()
            with pytest.raises(error, match=r"\[997, "):
                softxent.cross_entropy_and_grad(z, bad, out=out, **options)
            np.testing.assert_array_equal(out, before)
        losses = np.full(1000, 7.0)
        with pytest.raises(error, match=r"\[997, "):
            softxent.cross_entropy(z, bad, reduction="none", out=losses)
        np.testing.assert_array_equal(losses, 7)


@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (1, 2), (4, 2, 1), (2, 4)])
def test_indices_have_the_samples_axes_and_one_more(shape, call):
    with pytest.raises(ValueError, match=r"indices must have .*\(4, K\).*; got \("):
        call(Z, SparseTarget(np.zeros(shape, int), np.zeros(shape)))


def test_values_have_the_shape_of_the_indices(call):
    for shape in ((4, 1), (4, 3), (4,), (2,), (1, 2)):
        with pytest.raises(ValueError, match=r"values must have the shape of .*indices,? \(4, 2\); got \("):
            call(Z, SparseTarget(GOOD.indices, np.full(shape, 0.5)))


@pytest.mark.parametrize("code", [float, complex, object, str, bool])
def test_indices_must_be_integers(code, call):
    with pytest.raises(TypeError, match="indices must have an integer dtype; got"):
        call(Z, SparseTarget(GOOD.indices.astype(code), GOOD.values))


@pytest.mark.parametrize("code", [complex, object, str, "M8[s]"])
def test_values_must_be_real_numbers(code, call):
    with pytest.raises(TypeError, match="values must hold real numbers"):
        call(Z, SparseTarget(GOOD.indices, GOOD.values.astype(int).astype(code)))


def test_masked_arrays_are_refused(call):
    with pytest.raises(TypeError, match=r"indices .*masked"):
        call(Z, SparseTarget(np.ma.masked_less(GOOD.indices, 0), GOOD.values))
    with pytest.raises(TypeError, match=r"values .*masked"):
        call(Z, SparseTarget(GOOD.indices, np.ma.masked_less(GOOD.values, 0)))


def test_ignore_index_needs_class_indices(call):
    """As for the dense distribution."""
    for labels in (GOOD, dense(GOOD.indices, GOOD.values, Z.shape, 1)):
        with pytest.raises(ValueError, match="ignore_index needs class indices"):
            call(Z, labels, ignore_index=-1)


def test_a_plain_pair_is_no_sparse_target(call):
    """A tuple of two arrays is an array like any other."""
    with pytest.raises((ValueError, TypeError)):
        call(Z, (GOOD.indices, GOOD.values))


def test_the_divergence_takes_none():
    with pytest.raises(TypeError, match=r"target .*SparseTarget"):
        softxent.kl_divergence(Z, GOOD)
    with pytest.raises(TypeError, match=r"target .*SparseTarget"):
        softxent.kl_divergence_and_grad(Z, GOOD)


def test_outputs_that_overlap_it_are_refused():
    memory = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"out overlaps .*values"):
        softxent.cross_entropy_and_grad(Z, SparseTarget(GOOD.indices, memory[:, 1:]), out=memory)
    with pytest.raises(ValueError, match=r"out overlaps .*indices"):
        softxent.cross_entropy_and_grad(Z, SparseTarget(memory.view(np.int64)[:, 1:], GOOD.values), out=memory)
    np.testing.assert_array_equal(memory, 0)


def test_it_is_a_named_tuple():
    assert SparseTarget._fields == ("indices", "values")
    indices, values = GOOD
    assert indices is GOOD.indices
    assert values is GOOD.values


def test_a_mass_that_is_too_large_for_the_dtype_is_infinite_without_a_warning():
    """As in a dense target. A signalling nan is one that NumPy warns of."""
    z = np.zeros((1, 3), np.float32)
    for mass in (1e300, 3.5e38):
        got = softxent.cross_entropy(z, SparseTarget([[0, 1]], [[mass, 1.0]]))
        np.testing.assert_array_equal(got, softxent.cross_entropy(z, [[mass, 1.0, 0.0]]))
    signalling = np.array([0x7FA00000], np.uint32).view(np.float32)
    with pytest.raises(ValueError, match=r"labels.values\[0, 0\] is nan"):
        softxent.cross_entropy(np.zeros((1, 3)), SparseTarget([[0]], signalling[:, None]))
    with pytest.raises(ValueError, match=r"temperature\[0\] is nan"):
        softxent.cross_entropy(np.zeros((1, 3)), [1], temperature=signalling)
