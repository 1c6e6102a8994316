"""The Jacobians of softmax and log_softmax and their products, the Hessian's diagonal and its products: the values of
the reference for any shape, axis, layout, dtype and option, with relative precision where a prediction is confident.

How they behave at infinities and nan is in test_edges.py, in half precision in test_half.py.
"""

import numpy as np
import pytest

import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import reference

KINDS = ["exact", "xgboost", "lightgbm"]
PRODUCTS = ["softmax_jvp", "softmax_vjp", "log_softmax_jvp", "log_softmax_vjp"]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}

# The numbers of classes cover each way through the kernel: few classes, rows, and rows and columns longer than a kernel
# holds at once.
PROBLEMS = {
    "few classes": ((13, 10), 1),
    "rows": ((7, 70), 1),
    "long rows": ((3, 700), 1),
    "class axis first": ((70, 13), 0),
    "class axis between": ((2, 40, 9), 1),
}


@pytest.fixture(params=PROBLEMS)
def problem(request, dtype, rng):
    """Draw logits and labels, and give the class axis."""
    shape, axis = PROBLEMS[request.param]
    samples = tuple(np.delete(shape, axis))
    return (rng.normal(size=shape) * 3).astype(dtype), rng.integers(0, shape[axis], samples), axis


def needs_wider(dtype):
    if np.finfo(WIDER[dtype]).eps >= np.finfo(dtype).eps / 100:
        pytest.skip("long double is no wider than float64 here")


def close(dtype, scale=1.0):
    """Compare with absolute errors for numbers of size `scale`."""
    eps = float(np.finfo(dtype).eps)
    return {"rtol": 30 * eps, "atol": 8 * eps * scale}


# ----------------------------------------------------------------------------------------------------------------------
# Shapes, axes, layouts.


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, dtype, isa, rng):
    z = laid_out(rng.normal(size=shape) * 3, layout, dtype)
    v = laid_out(rng.normal(size=shape), layout, dtype)
    samples = tuple(np.delete(shape, axis))
    for name in PRODUCTS:
        product = getattr(softxent, name)(z, v, axis)
        assert product.dtype == dtype
        expected = getattr(reference, name)(z, v, axis)
        np.testing.assert_allclose(product, expected, **close(dtype, max(1, np.abs(expected).max())))
    jacobian = softxent.softmax_jacobian(z, axis)
    assert jacobian.dtype == dtype
    assert jacobian.shape == (*samples, shape[axis], shape[axis])
    np.testing.assert_allclose(jacobian, reference.softmax_jacobian(z, axis), **close(dtype))
    for y in (
        laid_out(rng.integers(0, shape[axis], samples), layout),
        laid_out(rng.dirichlet(np.ones(int(np.prod(shape)))).reshape(shape), layout, dtype),
    ):
        options = {"axis": axis, "reduction": "none"}
        expected = reference.cross_entropy_grad_hess(z, y, **options)
        out = laid_out(np.full(shape, 9), layout, dtype), laid_out(np.full(shape, 9), layout, dtype)
        losses, grad, hess = softxent.cross_entropy_grad_hess(z, y, out=out, **options)
        assert grad is out[0]
        assert hess is out[1]
        for got, want in zip((losses, grad, hess), expected, strict=True):
            np.testing.assert_allclose(got, want, **close(dtype))
        expected = reference.cross_entropy_hvp(z, y, v, **options)
        assert softxent.cross_entropy_hvp(z, y, v, out=out[0], **options) is out[0]
        np.testing.assert_allclose(out[0], expected, **close(dtype))
        np.testing.assert_array_equal(softxent.cross_entropy_hvp(z, y, v, **options), out[0])


@pytest.mark.parametrize("n_classes", [5, 70])
def test_arrays_of_different_layouts_go_together(n_classes, dtype, isa, rng):
    z, v = (rng.normal(size=(3, n_classes, 4)).astype(dtype) for _ in range(2))
    target, weight = rng.random(z.shape).astype(dtype), rng.random((3, 4))
    where = rng.random(z.shape) < 0.8
    expected = reference.cross_entropy_hvp(z, target, v, axis=1, sample_weight=weight, where=where)
    scale = np.abs(expected).max()
    for i, layout in enumerate(LAYOUTS):
        a, b, c = (LAYOUTS[(i + k) % len(LAYOUTS)] for k in (1, 2, 3))
        out = laid_out(np.zeros(z.shape), b, dtype)
        softxent.cross_entropy_hvp(
            laid_out(z, layout),
            laid_out(target, a),
            laid_out(v, b),
            axis=1,
            sample_weight=laid_out(weight, c),
            where=laid_out(where, a),
            out=out,
        )
        np.testing.assert_allclose(out, expected, **close(dtype, scale))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_a_jacobian_has_the_sample_axes_first(axis, dtype, isa, rng):
    z = rng.normal(size=(2, 3, 4)).astype(dtype)
    jacobian = softxent.softmax_jacobian(z, axis)
    c = z.shape[axis]
    samples = np.moveaxis(z, axis, -1)
    assert jacobian.shape == (*samples.shape[:-1], c, c)
    for index in np.ndindex(samples.shape[:-1]):
        np.testing.assert_allclose(jacobian[index], softxent.softmax_jacobian(samples[index]), **close(dtype))


def test_one_sample_alone_is_a_sample(dtype, isa, rng):
    for c in (5, 50, 700):
        z, v = rng.normal(size=c).astype(dtype), rng.normal(size=c)
        for name in PRODUCTS:
            function = getattr(softxent, name)
            np.testing.assert_array_equal(function(z, v), function(z[None], v[None])[0])
        np.testing.assert_array_equal(softxent.softmax_jacobian(z), softxent.softmax_jacobian(z[None])[0])
        np.testing.assert_array_equal(
            softxent.cross_entropy_hvp(z, 3, v), softxent.cross_entropy_hvp(z[None], [3], v[None])[0]
        )
        for alone, batch in zip(
            softxent.cross_entropy_grad_hess(z, 3), softxent.cross_entropy_grad_hess(z[None], [3]), strict=True
        ):
            np.testing.assert_array_equal(alone, np.reshape(batch, np.shape(alone)))


@pytest.mark.parametrize("code", ["?", "i1", "u8", "f2", ">f4", ">f8", "f8", "f4"])
def test_directions_of_every_real_dtype_are_taken(code, problem, dtype, isa, rng):
    z, labels, axis = problem
    v = (rng.normal(size=z.shape) * 3).clip(0).astype(code)
    near = {"rtol": 30 * np.finfo(dtype).eps, "atol": np.finfo(dtype).eps}  # as float64, and not as the logits' dtype
    for name in PRODUCTS:
        function = getattr(softxent, name)
        expected = function(z, v.astype(dtype), axis)
        np.testing.assert_allclose(function(z, v, axis), expected, **near)
        np.testing.assert_allclose(function(z, v.tolist(), axis), expected, **near)
    expected = softxent.cross_entropy_hvp(z, labels, v.astype(dtype), axis=axis)
    np.testing.assert_allclose(softxent.cross_entropy_hvp(z, labels, v, axis=axis), expected, **near)


# ----------------------------------------------------------------------------------------------------------------------
# Options.

OPTIONS = {
    "none": lambda shape, axis, rng: {},
    "class_weight": lambda shape, axis, rng: {"class_weight": rng.random(shape[axis]) * 3},
    "sample_weight": lambda shape, axis, rng: {"sample_weight": rng.random(tuple(np.delete(shape, axis))) * 3},
    "where": lambda shape, axis, rng: {"where": rng.random(shape) < 0.7},
    "where of classes": lambda shape, axis, rng: {
        "where": np.expand_dims(np.arange(shape[axis]) % 3 > 0, tuple(range(1, len(shape) - axis)))
    },
    "label_smoothing": lambda shape, axis, rng: {"label_smoothing": 0.2},
    "temperature": lambda shape, axis, rng: {"temperature": 1.7},
    "base": lambda shape, axis, rng: {"base": 2},
    "normalizer": lambda shape, axis, rng: {"normalizer": 77},
    "ignore_index": lambda shape, axis, rng: {"ignore_index": 1},
}


def every_option(shape, axis, rng):
    together = {}
    for make in OPTIONS.values():
        together |= make(shape, axis, rng)
    return together


@pytest.mark.parametrize("name", [*OPTIONS, "all"])
@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_option_gives_the_reference_values(name, target, reduction, problem, dtype, isa, rng):
    z, labels, axis = problem
    options = (every_option if name == "all" else OPTIONS[name])(z.shape, axis, rng)
    options |= {"axis": axis, "reduction": reduction}
    if target:
        labels = rng.random(z.shape).astype(dtype)
        options.pop("ignore_index", None)
        if "where" in options:  # mass on a removed class would make the loss infinite
            labels *= np.broadcast_to(options["where"], z.shape)
    elif "where" in options:
        options["where"] = np.broadcast_to(options["where"], z.shape).copy()
        np.put_along_axis(options["where"], np.expand_dims(labels, axis), True, axis)
    for kind in KINDS:
        got = softxent.cross_entropy_grad_hess(z, labels, kind=kind, **options)
        expected = reference.cross_entropy_grad_hess(z, labels, kind=kind, **options)
        for values, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(values, want, **close(dtype, np.abs(want).max()))
    v = rng.normal(size=z.shape).astype(dtype)
    product = softxent.cross_entropy_hvp(z, labels, v, **options)
    want = reference.cross_entropy_hvp(z, labels, v, **options)
    np.testing.assert_allclose(product, want, **close(dtype, np.abs(want).max()))
    if "ignore_index" in options:
        ignored = np.broadcast_to(np.expand_dims(labels == 1, axis), z.shape)
        for values in (got[1], got[2], product):
            np.testing.assert_array_equal(values[ignored], 0)
    if "where" in options:
        for values in (got[1], got[2], product):
            np.testing.assert_array_equal(values[~np.broadcast_to(options["where"], z.shape)], 0)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 1.7])
def test_products_with_where_and_temperature_give_the_reference_values(name, temperature, problem, dtype, isa, rng):
    z, _, axis = problem
    v = rng.normal(size=z.shape).astype(dtype)
    of_classes = np.expand_dims(np.arange(z.shape[axis]) % 3 > 0, tuple(range(1, z.ndim - axis)))
    for where in (None, rng.random(z.shape) < 0.7, of_classes):
        product = getattr(softxent, name)(z, v, axis, where=where, temperature=temperature)
        want = getattr(reference, name)(z, v, axis, where=where, temperature=temperature)
        np.testing.assert_allclose(product, want, **close(dtype, max(1, np.abs(want).max())))
        if where is None:
            continue
        # A removed class is exactly 0, and neither its logit nor its direction is looked at.
        removed = ~np.broadcast_to(where, z.shape)
        np.testing.assert_array_equal(product[removed], 0)
        for hole in (np.nan, np.inf):
            holes = np.where(removed, dtype(hole), z), np.where(removed, dtype(hole), v)
            again = getattr(softxent, name)(*holes, axis, where=where, temperature=temperature)
            np.testing.assert_array_equal(again, product)


def test_a_product_of_the_log_softmax_is_that_of_the_softmax_over_p(problem, dtype, isa, rng):
    """And the two products of one Jacobian are each other's transpose: g (J v) = (J^T g) v."""
    z, _, axis = problem
    v, g = (rng.normal(size=z.shape).astype(dtype) for _ in range(2))
    p = softxent.softmax(z, axis)
    product = softxent.log_softmax_jvp(z, v, axis)
    np.testing.assert_allclose(p * product, softxent.softmax_jvp(z, v, axis), **close(dtype, 4))
    for jvp, vjp in (("softmax_jvp", "softmax_vjp"), ("log_softmax_jvp", "log_softmax_vjp")):
        forward = np.sum(g * getattr(softxent, jvp)(z, v, axis), axis=axis, dtype=np.float64)
        backward = np.sum(v * getattr(softxent, vjp)(z, g, axis), axis=axis, dtype=np.float64)
        np.testing.assert_allclose(forward, backward, **close(dtype, z.shape[axis]))


def test_the_gradient_through_log_softmax_is_that_of_the_cross_entropy(problem, dtype, isa):
    """-1 at the label, as from the loss -log p: p - y."""
    z, labels, axis = problem
    g = -np.moveaxis(np.arange(z.shape[axis]) == labels[..., None], -1, axis).astype(dtype)
    grad = softxent.cross_entropy_and_grad(z, labels, axis=axis, reduction="sum")[1]
    np.testing.assert_allclose(softxent.log_softmax_vjp(z, g, axis), grad, **close(dtype))


def test_products_of_a_broken_sample_are_nan_there_only(dtype, isa):
    z, v = np.zeros((4, 5), dtype), np.ones((4, 5), dtype)
    z[1, 2], z[2, 0], z[3] = np.nan, np.inf, -np.inf
    for name in PRODUCTS:
        for order in "CF":
            product = getattr(softxent, name)(np.asarray(z, order=order), v)
            assert np.isnan(product).all(axis=1).tolist() == [False, True, True, True]
            assert np.isfinite(product[0]).all()


def test_the_loss_and_gradient_beside_a_hessian_are_those_without(problem, dtype, isa, rng):
    z, labels, axis = problem
    for options in ({}, {"temperature": 0.7, "label_smoothing": 0.1}):
        for reduction in ("mean", "sum", "none"):
            loss, grad = softxent.cross_entropy_and_grad(z, labels, axis=axis, reduction=reduction, **options)
            got = softxent.cross_entropy_grad_hess(z, labels, axis=axis, reduction=reduction, **options)
            np.testing.assert_allclose(got[0], loss, rtol=8 * np.finfo(dtype).eps)
            np.testing.assert_allclose(got[1], grad, **close(dtype, np.abs(grad).max()))
            if options:  # both go through the same kernel
                np.testing.assert_array_equal(got[0], loss)
                np.testing.assert_array_equal(got[1], grad)


# ----------------------------------------------------------------------------------------------------------------------
# Kinds.


def test_kinds_are_the_boosting_libraries_own(problem, dtype, isa):
    """The diagonals are those of XGBoost's multi:softprob and of LightGBM's multiclass objective, for each sample."""
    z, labels, axis = problem
    c, p = z.shape[axis], reference.softmax(z, axis)
    expected = {
        "exact": p * (1 - p),
        "xgboost": np.maximum(2 * p * (1 - p), 1e-16),
        "lightgbm": c / (c - 1) * p * (1 - p),
    }
    for kind, want in expected.items():
        _, _, hess = softxent.cross_entropy_grad_hess(z, labels, axis=axis, reduction="sum", kind=kind)
        np.testing.assert_allclose(hess, want, rtol=200 * np.finfo(dtype).eps)


def test_two_classes_have_half_of_xgboosts_and_of_lightgbms_curvature(dtype, isa):
    z = np.zeros((3, 2), dtype)
    for kind, expected in (("exact", 0.25), ("xgboost", 0.5), ("lightgbm", 0.5)):
        _, _, hess = softxent.cross_entropy_grad_hess(z, [0, 1, 0], reduction="sum", kind=kind)
        np.testing.assert_array_equal(hess, expected)


@pytest.mark.parametrize("n_classes", [3, 40, 700])
@pytest.mark.parametrize("order", ["C", "F"])
def test_xgboosts_curvature_has_a_floor_and_the_others_have_none(n_classes, order, dtype, isa):
    z = np.zeros((2, n_classes), dtype, order=order)
    z[:, 0] = 60
    tiny = float(np.exp(-60))
    hess = {k: softxent.cross_entropy_grad_hess(z, [0, 1], reduction="sum", kind=k)[2] for k in KINDS}
    np.testing.assert_array_equal(hess["xgboost"], dtype(1e-16))
    np.testing.assert_allclose(hess["exact"][:, 1:], tiny, rtol=300 * np.finfo(dtype).eps)
    np.testing.assert_allclose(hess["exact"][:, 0], tiny * (n_classes - 1), rtol=300 * np.finfo(dtype).eps)
    factor = n_classes / (n_classes - 1)
    np.testing.assert_allclose(hess["lightgbm"], hess["exact"] * dtype(factor), rtol=4 * np.finfo(dtype).eps)
    # The floor is below the scaled curvature: the mean over a million samples does not lower the floor.
    options = {"kind": "xgboost", "normalizer": 1e6}
    np.testing.assert_array_equal(softxent.cross_entropy_grad_hess(z, [0, 1], **options)[2], dtype(1e-16))


# ----------------------------------------------------------------------------------------------------------------------
# Outputs.


def test_either_of_the_pair_may_be_given(problem, dtype, isa):
    z, labels, axis = problem
    loss, grad, hess = softxent.cross_entropy_grad_hess(z, labels, axis=axis)
    for given in ((True, True), (True, False), (False, True), (False, False)):
        out = tuple(np.full_like(z, np.nan) if g else None for g in given)
        results = softxent.cross_entropy_grad_hess(z, labels, axis=axis, out=out)
        assert results[0] == loss
        for result, array, want in zip(results[1:], out, (grad, hess), strict=True):
            assert array is None or result is array
            np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pair_may_be_of_any_layouts(layout, problem, dtype, isa):
    z, labels, axis = problem
    _, grad, hess = softxent.cross_entropy_grad_hess(z, labels, axis=axis)
    for other in LAYOUTS:
        out = laid_out(np.zeros(z.shape), layout, dtype), laid_out(np.zeros(z.shape), other, dtype)
        softxent.cross_entropy_grad_hess(z, labels, axis=axis, out=out)
        np.testing.assert_array_equal(out[0], grad)
        np.testing.assert_array_equal(out[1], hess)


def test_the_pair_may_be_of_another_byte_order(problem, dtype, isa):
    z, labels, axis = problem
    _, grad, hess = softxent.cross_entropy_grad_hess(z, labels, axis=axis)
    swapped = np.dtype(dtype).newbyteorder()
    for codes in ((swapped, swapped), (swapped, dtype), (dtype, swapped)):
        out = tuple(np.zeros(z.shape, code) for code in codes)
        softxent.cross_entropy_grad_hess(z, labels, axis=axis, out=out)
        # Logits in several pieces, each with its class axis last, may be rounded differently.
        np.testing.assert_allclose(out[0], grad, **close(dtype, np.abs(grad).max()))
        np.testing.assert_allclose(out[1], hess, **close(dtype, np.abs(hess).max()))


def test_gradient_and_product_may_overwrite_the_logits(problem, dtype, isa, rng):
    z, labels, axis = problem
    v = rng.normal(size=z.shape).astype(dtype)
    for options in ({}, {"label_smoothing": 0.3, "temperature": 2.0}, {"where": rng.random(z.shape) < 0.9}):
        _, grad, hess = softxent.cross_entropy_grad_hess(z, labels, axis=axis, **options)
        in_place, other = z.copy(order="K"), np.zeros_like(z)
        assert (
            softxent.cross_entropy_grad_hess(in_place, labels, axis=axis, out=(in_place, other), **options)[1]
            is in_place
        )
        np.testing.assert_array_equal(in_place, grad)
        np.testing.assert_array_equal(other, hess)
        product = softxent.cross_entropy_hvp(z, labels, v, axis=axis, **options)
        in_place = z.copy(order="K")
        assert softxent.cross_entropy_hvp(in_place, labels, v, axis=axis, out=in_place, **options) is in_place
        np.testing.assert_array_equal(in_place, product)


@pytest.mark.parametrize("n_classes", [1, 10, 70, 700])
def test_no_entry_outside_the_views_is_written(n_classes, dtype, isa, rng):
    for shape, axis in (((6, n_classes), 1), ((n_classes, 6), 0)):
        for layout in ("every second", "padded"):
            out = laid_out(np.zeros(shape), layout, dtype), laid_out(np.zeros(shape), layout, dtype)
            for array in out:
                array.base[...] = 7
            z, labels = rng.normal(size=shape).astype(dtype), rng.integers(0, n_classes, 6)
            softxent.cross_entropy_grad_hess(z, labels, axis=axis, out=out)
            softxent.cross_entropy_hvp(z, labels, z, axis=axis, out=out[0])
            for array in out:
                array[...] = 7
                assert np.all(array.base == 7)


class Subclass(np.ndarray):
    pass


def test_outputs_of_a_subclass_are_written_as_arrays(dtype, isa, rng):
    z, labels = rng.normal(size=(40, 50)).astype(dtype), rng.integers(0, 50, 40)
    _, grad, hess = softxent.cross_entropy_grad_hess(z, labels)
    product = softxent.cross_entropy_hvp(z, labels, z)
    for make in (lambda a: a.view(Subclass), lambda a: a.view(np.recarray)):
        out = make(np.zeros_like(z)), make(np.zeros_like(z))
        assert softxent.cross_entropy_grad_hess(z, labels, out=out)[2] is out[1]
        np.testing.assert_array_equal(np.asarray(out[0]), grad)
        np.testing.assert_array_equal(np.asarray(out[1]), hess)
        assert softxent.cross_entropy_hvp(z, labels, z, out=out[0]) is out[0]
        np.testing.assert_array_equal(np.asarray(out[0]), product)


# ----------------------------------------------------------------------------------------------------------------------
# Relative precision.


def confident(n_classes, dtype, order, lead=30):
    """Logits in which one class leads by `lead`, and a direction that is 0 at this class and of one sign elsewhere.

    So nothing cancels.
    """
    rng = np.random.default_rng(3)
    z = np.asarray(rng.normal(size=(5, n_classes)), dtype, order=order)
    top = np.arange(5) * (n_classes - 1) // 4
    z[np.arange(5), top] = z.max(axis=1) + lead
    v = np.asarray(1 + rng.random(z.shape), dtype, order=order)
    v[np.arange(5), top] = 0
    return z, top, v


@pytest.mark.parametrize("n_classes", [2, 10, 33, 100, 700])
@pytest.mark.parametrize("order", ["C", "F"])
class TestConfidentPredictions:
    """One class leads by 30. So 1 - p is about 1e-13, which is not 0, nor what a subtraction in float32 would give."""

    def bound(self, dtype):
        return 4 * float(np.finfo(dtype).eps) * (2 + 36)  # the bound of p itself, at a distance of up to 36

    def test_keep_the_precision_of_their_curvature(self, n_classes, order, dtype, isa):
        needs_wider(dtype)
        z, top, _ = confident(n_classes, dtype, order)
        for kind in KINDS:
            for labels in (top, (top + 1) % n_classes, np.eye(n_classes, dtype=dtype)[top]):
                _, _, hess = softxent.cross_entropy_grad_hess(z, labels, kind=kind, reduction="sum")
                expected = reference.cross_entropy_grad_hess(
                    z.astype(WIDER[dtype]), labels, kind=kind, reduction="sum"
                )[2]
                np.testing.assert_allclose(hess, expected.astype(np.float64), rtol=self.bound(dtype), atol=0)
                assert np.all(hess > 0)

    def test_keep_the_precision_of_their_products(self, n_classes, order, dtype, isa):
        needs_wider(dtype)
        z, top, v = confident(n_classes, dtype, order)
        wide = z.astype(WIDER[dtype]), v.astype(WIDER[dtype])
        expected = reference.softmax_jvp(*wide).astype(np.float64)
        assert np.all(expected != 0)
        for product in (softxent.softmax_jvp(z, v), softxent.softmax_vjp(z, v)):
            np.testing.assert_allclose(product, expected, rtol=self.bound(dtype), atol=0)
        # A constant that is added to the direction changes nothing, and costs no digit that the direction has.
        np.testing.assert_allclose(softxent.softmax_jvp(z, v + 4), expected, rtol=3 * self.bound(dtype), atol=0)
        for name in ("log_softmax_jvp", "log_softmax_vjp"):  # at a class that has nearly all, what it has not counts
            product = getattr(softxent, name)(z, v)
            expected_log = getattr(reference, name)(*wide).astype(np.float64)
            np.testing.assert_allclose(product, expected_log, rtol=self.bound(dtype), atol=0)
        hvp = softxent.cross_entropy_hvp(z, top, v, reduction="sum")
        np.testing.assert_allclose(hvp, expected, rtol=self.bound(dtype), atol=0)

    def test_keep_the_precision_of_their_jacobian(self, n_classes, order, dtype, isa):
        needs_wider(dtype)
        z, _, _ = confident(n_classes, dtype, order)
        if n_classes == 700:
            z = z[:1]
        expected = reference.softmax_jacobian(z.astype(WIDER[dtype])).astype(np.float64)
        # Entries off the diagonal are products of two probabilities. Their bounds add up.
        np.testing.assert_allclose(softxent.softmax_jacobian(z), expected, rtol=2 * self.bound(dtype), atol=0)


def test_a_lead_of_30_in_float32_has_the_curvature_of_what_it_leaves(isa):
    z = np.zeros((1, 10), np.float32)
    z[0, 3] = 30
    expected = 8.4218608e-13  # p (1 - p) = 9 e^-30
    for order in "CF":
        z = np.asarray(z, order=order)
        assert softxent.cross_entropy_grad_hess(z, [3])[2][0, 3] == pytest.approx(expected, rel=4e-6, abs=0)
        assert softxent.softmax_jacobian(z)[0, 3, 3] == pytest.approx(expected, rel=4e-6, abs=0)
        v = np.eye(10, dtype=np.float32)[[3]]
        assert softxent.softmax_jvp(z, v)[0, 3] == pytest.approx(expected, rel=4e-6, abs=0)
        assert softxent.cross_entropy_hvp(z, [0], v)[0, 3] == pytest.approx(expected, rel=4e-6, abs=0)


# ----------------------------------------------------------------------------------------------------------------------
# Properties that these matrices always have.


def test_jvp_and_vjp_are_the_same_bits(problem, isa, rng):
    """The Jacobian is symmetric, so both products have the same bits."""
    z, _, axis = problem
    v = rng.normal(size=z.shape)
    np.testing.assert_array_equal(softxent.softmax_jvp(z, v, axis), softxent.softmax_vjp(z, v, axis))


def test_a_constant_direction_changes_nothing(problem, isa):
    """The result does not change in the last bit."""
    z, labels, axis = problem
    for constant in (1, -3.7, 1e10):
        v = np.full(z.shape, constant)
        np.testing.assert_array_equal(softxent.softmax_jvp(z, v, axis), 0)
        np.testing.assert_array_equal(softxent.cross_entropy_hvp(z, labels, v, axis=axis), 0)


def test_jacobians_are_symmetric_and_their_rows_add_up_to_zero(problem, dtype, isa):
    z, _, axis = problem
    jacobian = softxent.softmax_jacobian(z, axis)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(jacobian, np.swapaxes(jacobian, -1, -2), rtol=4 * eps, atol=np.finfo(dtype).tiny)
    diagonal = np.diagonal(jacobian, axis1=-2, axis2=-1)
    assert np.all(diagonal >= 0)
    assert np.all(jacobian.sum(axis=-1, dtype=np.float64) <= 50 * eps * diagonal)


def test_products_and_diagonals_are_those_of_the_matrix(problem, dtype, isa, rng):
    z, labels, axis = problem
    v = rng.normal(size=z.shape).astype(dtype)
    jacobian = softxent.softmax_jacobian(z, axis).astype(np.float64)
    product = np.moveaxis((jacobian @ np.moveaxis(v, axis, -1)[..., None])[..., 0], -1, axis)
    np.testing.assert_allclose(softxent.softmax_jvp(z, v, axis), product, **close(dtype))
    # The Hessian of a sample's loss is the softmax's Jacobian.
    options = {"axis": axis, "reduction": "sum"}
    np.testing.assert_allclose(softxent.cross_entropy_hvp(z, labels, v, **options), product, **close(dtype))
    diagonal = np.moveaxis(np.diagonal(jacobian, axis1=-2, axis2=-1), -1, axis)
    np.testing.assert_allclose(softxent.cross_entropy_grad_hess(z, labels, **options)[2], diagonal, **close(dtype))


def test_products_add_up_to_zero_over_the_classes(problem, dtype, isa, rng):
    z, labels, axis = problem
    v, eps = rng.normal(size=z.shape).astype(dtype), np.finfo(dtype).eps
    for product in (softxent.softmax_jvp(z, v, axis), softxent.cross_entropy_hvp(z, labels, v, axis=axis, base=2)):
        assert np.abs(product.sum(axis=axis)).max() < 50 * eps


def test_reduction_none_is_the_hessian_of_the_losses_sum(problem, isa, rng):
    z, labels, axis = problem
    v = rng.normal(size=z.shape)
    for function in (
        lambda **options: softxent.cross_entropy_hvp(z, labels, v, axis=axis, **options),
        lambda **options: softxent.cross_entropy_grad_hess(z, labels, axis=axis, **options)[2],
    ):
        np.testing.assert_array_equal(function(reduction="none"), function(reduction="sum"))


@pytest.mark.parametrize("shape", [(3000, 65), (9001, 10), (40, 50, 60)])
def test_same_bits_for_any_thread_count(shape, dtype, isa, rng):
    z, v = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    labels, where = rng.integers(0, shape[1], (shape[0], *shape[2:])), rng.random(shape) < 0.9
    small = z[:8]

    def results(n):
        options = {"axis": 1, "n_threads": n}
        yield from softxent.cross_entropy_grad_hess(z, labels, **options)
        yield softxent.cross_entropy_hvp(z, labels, v, label_smoothing=0.1, **options)
        for name in PRODUCTS:
            yield getattr(softxent, name)(z, v, **options)
            yield getattr(softxent, name)(z, v, temperature=0.7, where=where, **options)
        yield softxent.softmax_jacobian(small, **options)

    expected = list(results(1))
    for n in (2, 3, 7):
        for got, want in zip(results(n), expected, strict=True):
            np.testing.assert_array_equal(got, want)
