"""The table of values at the edges, a test a line, for each kernel: rows, few classes, and a class axis that is not the
last, each plain and as the general kernel computes it, which an option brings in that does not change the value.

Then the derivatives at the same inputs, and the edges that the options have of their own. What is not easily seen by
eye is compared with softxent.reference, whose docstrings say what a case means.
"""

import itertools

import numpy as np
import pytest

import softxent
from softxent import reference
from softxent._options import Options

INF, NAN = np.inf, np.nan
KINDS = ["exact", "xgboost", "lightgbm"]
BROKEN = [[-INF, -INF, -INF], [1, NAN, 0], [1, INF, 0], [INF, INF, INF], [NAN] * 3, [-INF, NAN, -INF], [NAN, INF, 1]]


@pytest.fixture(params=["rows", "long rows", "few classes", "class axis first"])
def kernel(request):
    """Put a few logits into a sample that the named kernel takes. The further classes at -inf change nothing.

    Long rows are longer than the general kernel holds in registers and on the stack at once.
    """
    further = {"few classes": 0, "long rows": 700}.get(request.param, 40)

    def embedded(rows, dtype):
        z = np.asarray(rows, dtype)
        z = np.concatenate([z, np.full((len(z), further), -INF, dtype)], axis=1)
        return np.asfortranarray(z) if request.param == "class axis first" else z

    return embedded


class Way:
    """A call for the plain kernels, or the same call with an option that changes nothing.

    The option is half the temperature, with half the logits: this is exact and cannot overflow.
    """

    def __init__(self, name):
        self.name = name
        self.scale = 0.5 if name == "temperature" else 1

    def options(self, z, losses=True):
        if self.name == "sample weights" and losses:
            return {"sample_weight": np.ones(len(z))}
        return {"where": {"where": np.ones_like(z, bool)}, "temperature": {"temperature": 0.5}}.get(self.name, {})

    def family(self, name, z):
        return getattr(softxent, name)(z * z.dtype.type(self.scale), **self.options(z, losses=False))

    def losses_and_grad(self, z, labels, **options):
        z, more = z * z.dtype.type(self.scale), self.options(z)
        losses, grad = softxent.cross_entropy_and_grad(z, np.asarray(labels), **{"reduction": "none"} | more | options)
        only_losses = softxent.cross_entropy(
            z, np.asarray(labels), **{"reduction": "none"} | more | without(options, "grad_output")
        )
        np.testing.assert_array_equal(only_losses, losses)
        return losses, grad * grad.dtype.type(self.scale)


def without(options, *names):
    return {name: value for name, value in options.items() if name not in names}


@pytest.fixture(params=["plain", "sample weights", "where", "temperature"])
def way(request):
    return Way(request.param)


def padded(values, z):
    """Values of the first few classes in the shape of the logits. The classes that were added have no value."""
    full = np.zeros_like(z, dtype=np.asarray(values).dtype)
    full[:, : np.shape(values)[1]] = values
    return full


def few_eps(dtype):
    return {"rtol": 8 * np.finfo(dtype).eps, "atol": 0}


# ----------------------------------------------------------------------------------------------------------------------
# The lines of the table.


def test_a_class_at_minus_infinity_is_as_if_absent(kernel, way, dtype, isa):
    z, alone = kernel([[1, -INF, 0.5]], dtype), np.array([[1, 0.5]], dtype)
    losses, grad = way.losses_and_grad(z, [0])
    alone_losses, alone_grad = way.losses_and_grad(alone, [0])
    assert losses[0] == alone_losses[0]
    assert np.all(grad[0, 3:] == 0)
    assert grad[0, 1] == 0
    np.testing.assert_array_equal(grad[0, [0, 2]], alone_grad[0])
    probability, log_probability = way.family("softmax", z), way.family("log_softmax", z)
    assert np.all(probability[0, 3:] == 0)
    np.testing.assert_array_equal(probability[0, :3:2], way.family("softmax", alone)[0])
    np.testing.assert_array_equal(probability[0, 1], 0)
    np.testing.assert_array_equal(log_probability[0, 1], -INF)
    np.testing.assert_array_equal(way.family("logsumexp", z), way.family("logsumexp", alone))


def test_a_label_at_minus_infinity_has_infinite_loss_and_finite_gradient(kernel, way, dtype, isa):
    losses, grad = way.losses_and_grad(kernel([[1, -INF, 1]], dtype), [1])
    assert losses[0] == INF
    np.testing.assert_array_equal(grad[0, :3], [0.5, -1, 0.5])


@pytest.mark.parametrize("t", [[1, 0, 0], [0.5, 0, 0.5]])
def test_no_target_mass_at_minus_infinity_costs_nothing(t, kernel, way, dtype, isa):
    z = kernel([[1, -INF, 1]], dtype)
    losses, grad = way.losses_and_grad(z, padded([t], z).astype(dtype))
    assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
    assert grad[0, 1] == 0
    np.testing.assert_allclose(grad[0, :3], [0.5 - t[0], 0, 0.5 - t[2]], rtol=1e-6)


def test_target_mass_at_minus_infinity_costs_infinitely_much(kernel, way, dtype, isa):
    z = kernel([[1, -INF, 1]], dtype)
    losses, grad = way.losses_and_grad(z, padded([[0.5, 0.5, 0]], z).astype(dtype))
    assert losses[0] == INF
    np.testing.assert_array_equal(grad[0, :3], [0, -0.5, 0.5])


@pytest.mark.parametrize("row", BROKEN)
def test_a_sample_without_a_finite_maximum_or_with_nan_is_nan(row, kernel, way, dtype, isa):
    z = kernel([row, [1, 2, 3]], dtype)
    for labels in ([0, 0], padded([[1, 0, 0], [0.5, 0, 0.5]], z), padded(np.zeros((2, 3)), z)):
        losses, grad = way.losses_and_grad(z, labels)
        assert np.isnan(losses[0])
        assert np.all(np.isnan(grad[0]))
        assert np.all(np.isfinite(losses[1]))
        assert np.all(np.isfinite(grad[1]))
        for reduction in ("mean", "sum"):
            loss, grad = way.losses_and_grad(z, labels, reduction=reduction)
            assert np.isnan(loss)
            assert np.all(np.isfinite(grad[1]))
    for name in ("softmax", "log_softmax"):
        values = way.family(name, z)
        assert np.all(np.isnan(values[0]))
        assert np.all(np.isfinite(values[1, :3]))
    # the sum of exps is not a quotient: it is infinite if an exp is, and nan only if a logit is nan
    with np.errstate(all="ignore"):
        expected = np.logaddexp.reduce(np.array(row, dtype))
    np.testing.assert_array_equal(way.family("logsumexp", z)[0], expected)


def test_nan_beside_minus_infinity_is_nan_for_logsumexp(kernel, way, dtype, isa):
    np.testing.assert_array_equal(way.family("logsumexp", kernel([[-INF, NAN, -INF]], dtype)), [NAN])


@pytest.mark.parametrize("row", [[-INF, -INF, -INF], [1, NAN, 0], [1, INF, 0]])
def test_an_ignored_sample_is_zero_whatever_it_holds(row, kernel, way, dtype, isa):
    z = kernel([[1, 2, 3], row, [3, 2, 1]], dtype)
    losses, grad = way.losses_and_grad(z, [0, -100, 2], ignore_index=-100)
    assert losses[1] == 0
    np.testing.assert_array_equal(grad[1], 0)
    assert not np.any(np.signbit(grad[1]))
    assert not np.signbit(losses[1])
    apart_losses, apart_grad = way.losses_and_grad(z[[0, 2]], [0, 2])
    np.testing.assert_array_equal(losses[[0, 2]], apart_losses)
    np.testing.assert_array_equal(grad[[0, 2]], apart_grad)


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_the_mean_of_nothing_is_nan_and_its_gradient_zero(labels, kernel, way, dtype, isa):
    z = kernel(np.full((len(labels), 3), NAN), dtype)
    labels = np.array(labels, int)
    loss, grad = way.losses_and_grad(z, labels, ignore_index=-1, reduction="mean")
    assert np.isnan(loss)
    assert grad.shape == z.shape
    assert np.all(grad == 0)
    for reduction, expected in (("sum", 0.0), ("none", np.zeros(len(labels), dtype))):
        loss, grad = way.losses_and_grad(z, labels, ignore_index=-1, reduction=reduction)
        np.testing.assert_array_equal(loss, expected)
        assert np.all(grad == 0)
    loss, grad = way.losses_and_grad(z, labels, ignore_index=-1, reduction="mean", normalizer=3.0)
    assert loss == 0.0
    assert np.all(grad == 0)


def test_no_samples_are_no_error_without_ignore_index_either(dtype):
    z = np.zeros((0, 5), dtype)
    assert np.isnan(softxent.cross_entropy(z, np.zeros(0, int)))
    assert np.isnan(softxent.cross_entropy(z, np.zeros((0, 5))))
    assert softxent.softmax(z).shape == (0, 5)
    assert softxent.logsumexp(np.zeros((3, 0, 5), dtype)).shape == (3, 0)


@pytest.mark.parametrize("n_classes", [10, 1000])
def test_a_lead_of_30_keeps_its_loss_and_gradient(n_classes, way, isa):
    z = np.zeros((1, n_classes), np.float32)
    z[0, 4] = 30
    expected = 9.357622968840175e-14 * (n_classes - 1)
    for labels in ([4], np.eye(n_classes)[[4]]):
        for order in "CF":
            losses, grad = way.losses_and_grad(np.asarray(z, order=order), labels)
            assert losses[0] == pytest.approx(expected, rel=1e-6, abs=0)
            assert grad[0, 4] == pytest.approx(-expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("n_classes", [2, 10, 100, 1000])
def test_equal_logits_near_1e8_are_exact(n_classes, way, isa):
    losses, grad = way.losses_and_grad(np.full((1, n_classes), 1e8, np.float32), [1])
    # The plain kernels are exact. The general kernel multiplies by 1 / T, and may be off by one eps.
    assert losses[0] == pytest.approx(np.float32(np.log(n_classes)), rel=0 if way.name == "plain" else 1.2e-7, abs=0)
    assert grad[0, 0] == np.float32(1) / np.float32(n_classes)


def test_one_class_has_loss_and_gradient_zero(way, dtype, isa):
    z = np.array([[3.7], [-1e30], [0.1]], dtype)
    for labels in ([0, 0, 0], np.ones((3, 1)), np.full((3, 1), 0.3)):
        losses, grad = way.losses_and_grad(z, labels)
        np.testing.assert_array_equal(losses, 0)
        np.testing.assert_array_equal(grad, 0)
    np.testing.assert_array_equal(way.family("softmax", z), 1)
    np.testing.assert_array_equal(way.family("log_softmax", z), 0)


def test_the_ends_of_the_range_do_not_overflow(kernel, way, dtype, isa):
    big = np.finfo(dtype).max
    losses, grad = way.losses_and_grad(kernel([[big, -big, 0]], dtype), [0])
    assert losses[0] == 0
    np.testing.assert_array_equal(grad[0], 0)
    losses, _ = way.losses_and_grad(kernel([[-big, -big, -big]], dtype), [0])
    assert losses[0] == pytest.approx(np.log(3), rel=1e-6)


def test_no_probability_is_denormal(kernel, way, dtype, isa):
    tiny = np.finfo(dtype).tiny
    z = kernel([np.linspace(0, -800, 4001)], dtype)
    p = way.family("softmax", z)
    assert np.all((p == 0) | (p >= tiny))
    assert p[0, 5] > 0
    _, grad = softxent.cross_entropy_and_grad(z, [0], grad_output=1e-9, **without(way.options(z), "temperature"))
    assert np.all((grad == 0) | (np.abs(grad) >= tiny))


@pytest.mark.parametrize(("code", "lead"), [("f4", 88), ("f4", 90), ("f4", 95), ("f8", 709), ("f8", 715)])
@pytest.mark.parametrize("n_classes", [20, 100, 128256])
@pytest.mark.parametrize("order", ["C", "F"])
def test_terms_too_small_for_the_dtype_still_add_up(code, lead, n_classes, order, isa):
    z = np.zeros((2, n_classes), code, order=order)
    z[:, 7] = lead
    info = np.finfo(code)
    # The factors are applied one by one, because float64 can hold each of them.
    others = np.exp(-lead / 2) * (n_classes - 1) * np.exp(-lead / 2)
    tolerance = 4 * (1 + lead) * float(info.eps)
    for options in ({}, {"sample_weight": np.ones(2)}):
        for upstream in (1.0, 1e10):
            losses, grad = softxent.cross_entropy_and_grad(z, [7, 7], grad_output=upstream, reduction="none", **options)
            if others >= info.tiny:
                assert float(losses[0]) == pytest.approx(others, rel=tolerance, abs=0)
            if others * upstream >= info.tiny:
                assert float(grad[0, 7]) == pytest.approx(-others * upstream, rel=tolerance, abs=0)


def test_an_empty_batch_may_have_an_output(dtype):
    z, labels = np.zeros((0, 3), dtype), np.zeros(0, int)
    assert np.isnan(softxent.cross_entropy_and_grad(z, labels, out=np.zeros((0, 3), dtype))[0])
    assert softxent.cross_entropy_and_grad(z, labels, out=z, reduction="sum")[0] == 0
    assert softxent.cross_entropy(z, labels, reduction="none", out=np.zeros(0, dtype)).shape == (0,)
    assert softxent.softmax(z, out=np.zeros((0, 3), dtype)).shape == (0, 3)
    pair = np.zeros((0, 3), dtype), np.zeros((0, 3), dtype)
    assert softxent.cross_entropy_grad_hess(z, labels, out=pair)[2] is pair[1]
    assert softxent.cross_entropy_hvp(z, labels, z, out=pair[0]) is pair[0]


# ----------------------------------------------------------------------------------------------------------------------
# The derivatives follow from the probabilities.


class TestDerivatives:
    """The derivatives at the inputs of the table."""

    @pytest.mark.parametrize("row", BROKEN)
    def test_of_a_broken_sample_are_nan_and_those_of_its_neighbour_are_not(self, row, kernel, way, dtype, isa):
        z = kernel([row, [1, 2, 3]], dtype)
        v, options = np.ones_like(z), way.options(z)
        for kind in KINDS:
            _, grad, hess = softxent.cross_entropy_grad_hess(z, [0, 0], kind=kind, **options)
            assert np.all(np.isnan(grad[0]))
            assert np.all(np.isnan(hess[0]))
            assert np.all(np.isfinite(grad[1]))
            assert np.all(np.isfinite(hess[1]))
        products = [softxent.cross_entropy_hvp(z, [0, 0], v, **options)]
        products += [f(z, v) for f in (softxent.softmax_jvp, softxent.softmax_vjp)] + [softxent.softmax_jacobian(z)]
        for product in products:
            assert np.all(np.isnan(product[0]))
            assert np.all(np.isfinite(product[1]))

    @pytest.mark.parametrize("row", [[1, -INF, 0.5], [1, -INF, -INF], [-INF, 2, 2]])
    def test_at_minus_infinity_are_zero(self, row, kernel, way, dtype, isa):
        z, absent = kernel([row], dtype), np.isneginf(row)
        v, options = np.ones_like(z) * np.arange(z.shape[1], dtype=dtype), way.options(z)
        _, grad, hess = softxent.cross_entropy_grad_hess(z, [0], **options)
        for values in (hess, softxent.cross_entropy_hvp(z, [0], v, **options), softxent.softmax_jvp(z, v)):
            assert np.all(values[0, :3][absent] == 0)
            assert np.all(values[0, 3:] == 0)
        assert np.all(grad[0, 3:] == 0)
        jacobian = softxent.softmax_jacobian(z)
        assert np.all(jacobian[0, :3][absent] == 0)
        assert np.all(jacobian[0, :, :3][:, absent] == 0)
        np.testing.assert_allclose(jacobian, reference.softmax_jacobian(z), **few_eps(dtype))

    def test_of_an_infinite_loss_are_finite(self, kernel, way, dtype, isa):
        z = kernel([[1, -INF, 1]], dtype)
        loss, grad, hess = softxent.cross_entropy_grad_hess(z, [1], **without(way.options(z), "temperature"))
        assert loss == INF
        np.testing.assert_array_equal(grad[0, :3], [0.5, -1, 0.5])
        np.testing.assert_array_equal(hess[0, :3], [0.25, 0, 0.25])

    @pytest.mark.parametrize("row", [[-INF, -INF, -INF], [1, NAN, 0], [1, INF, 0]])
    def test_of_an_ignored_sample_are_zero_of_whatever_kind(self, row, kernel, way, dtype, isa):
        z = kernel([[1, 2, 3], row], dtype)
        options = {"ignore_index": -1, **way.options(z)}
        for kind in KINDS:
            _, grad, hess = softxent.cross_entropy_grad_hess(z, [0, -1], kind=kind, **options)
            np.testing.assert_array_equal(grad[1], 0)
            np.testing.assert_array_equal(hess[1], 0)
            _, grad, hess = softxent.cross_entropy_grad_hess(z, [-1, -1], kind=kind, **options)
            np.testing.assert_array_equal(grad, 0)
            np.testing.assert_array_equal(hess, 0)
        for v in (np.ones_like(z), np.full_like(z, NAN)):
            product = softxent.cross_entropy_hvp(z, [-1, -1], v, **options)
            np.testing.assert_array_equal(product, 0)

    def test_of_a_lead_of_30_keep_their_precision(self, dtype, isa):
        for n_classes in (10, 40, 1000):
            z = np.zeros((2, n_classes), dtype)
            z[:, 4] = 30
            for order in "CF":
                z = np.asarray(z, order=order)
                _, _, hess = softxent.cross_entropy_grad_hess(z, [4, 0], reduction="sum")
                expected = 9.357622968840175e-14 * (n_classes - 1)  # (1 - p) p of the class that leads
                np.testing.assert_allclose(hess[:, 4], expected, rtol=1e-6, atol=0)
                np.testing.assert_allclose(softxent.softmax_jacobian(z)[:, 4, 4], expected, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("value", [3.7, -1e30, 0])
    def test_of_one_class_are_zero(self, value, way, dtype, isa):
        z, v = np.full((3, 1), value, dtype), np.full((3, 1), 5.0)
        options = way.options(z)
        for labels in ([0, 0, 0], np.ones((3, 1))):
            for kind in KINDS:
                loss, grad, hess = softxent.cross_entropy_grad_hess(z, labels, kind=kind, **options)
                assert loss == 0
                np.testing.assert_array_equal(grad, 0)
                np.testing.assert_array_equal(hess, dtype(1e-16) if kind == "xgboost" else 0)
            np.testing.assert_array_equal(softxent.cross_entropy_hvp(z, labels, v, **options), 0)
        for function in (softxent.softmax_jvp, softxent.softmax_vjp):
            np.testing.assert_array_equal(function(z, v), 0)
        np.testing.assert_array_equal(softxent.softmax_jacobian(z), np.zeros((3, 1, 1)))

    def test_at_the_ends_of_the_range_are_those_of_certainty(self, kernel, dtype, isa):
        big = np.finfo(dtype).max
        z = kernel([[big, -big, 0]], dtype)
        v = np.ones_like(z) * np.arange(z.shape[1], dtype=dtype)
        _, grad, hess = softxent.cross_entropy_grad_hess(z, [1])
        np.testing.assert_array_equal(grad[0, :3], [1, -1, 0])
        for zero in (hess, softxent.cross_entropy_hvp(z, [1], v), softxent.softmax_jvp(z, v)):
            np.testing.assert_array_equal(zero, 0)
        np.testing.assert_array_equal(softxent.softmax_jacobian(z), 0)

    def test_of_no_samples_are_empty(self, dtype):
        for shape, axis in (((0, 5), 1), ((5, 0), 0), ((3, 5, 0), 1)):
            z = np.zeros(shape, dtype)
            labels = np.zeros(np.delete(shape, axis), int)
            for y in (labels, z):
                loss, grad, hess = softxent.cross_entropy_grad_hess(z, y, axis=axis)
                assert np.isnan(loss)
                assert grad.shape == hess.shape == shape
                assert grad.dtype == hess.dtype == dtype
                assert softxent.cross_entropy_grad_hess(z, y, axis=axis, reduction="sum")[0] == 0
                assert softxent.cross_entropy_hvp(z, y, z, axis=axis).shape == shape
            assert softxent.softmax_jvp(z, z, axis).shape == softxent.softmax_vjp(z, z, axis).shape == shape
            assert softxent.softmax_jacobian(z, axis).shape == (*labels.shape, 5, 5)


# ----------------------------------------------------------------------------------------------------------------------
# The edges of each option.


class TestWhere:
    """False in `where` removes a class, whatever its logit is."""

    ROWS = ((1, NAN, 1), (1, INF, 1), (1, -INF, 1), (1, 1e30, 1))

    @pytest.mark.parametrize("row", ROWS)
    def test_a_removed_class_is_never_looked_at(self, row, kernel, dtype, isa):
        z = kernel([row], dtype)
        where = padded([[True, False, True]], z)
        options = {"where": where, "reduction": "none"}
        losses, grad = softxent.cross_entropy_and_grad(z, [0], **options)
        assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
        np.testing.assert_array_equal(grad, padded([[-0.5, 0, 0.5]], z))
        _, grad, hess = softxent.cross_entropy_grad_hess(z, [0], **options)
        np.testing.assert_array_equal(grad, padded([[-0.5, 0, 0.5]], z))
        np.testing.assert_array_equal(hess, padded([[0.25, 0, 0.25]], z))
        _, _, hess = softxent.cross_entropy_grad_hess(z, [0], kind="xgboost", **options)
        np.testing.assert_array_equal(hess, padded([[0.5, 0, 0.5]], z))  # no floor under a removed class
        v = padded([[1.0, NAN, 3.0]], z)
        np.testing.assert_array_equal(softxent.cross_entropy_hvp(z, [0], v, **options), padded([[-0.5, 0, 0.5]], z))
        np.testing.assert_array_equal(softxent.softmax(z, where=where), padded([[0.5, 0, 0.5]], z))
        log_p = softxent.log_softmax(z, where=where)
        np.testing.assert_allclose(log_p[0, [0, 2]], -np.log(2), rtol=1e-6)
        assert np.all(log_p[~where] == -INF)
        np.testing.assert_allclose(softxent.logsumexp(z, where=where), 1 + np.log(2), rtol=1e-6)

    def test_smoothing_mass_goes_to_the_others(self, kernel, dtype, isa):
        z = kernel([[0, NAN, 0]], dtype)
        options = {"where": padded([[True, False, True]], z), "label_smoothing": 0.5, "reduction": "none"}
        losses, grad = softxent.cross_entropy_and_grad(z, [0], **options)
        assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
        np.testing.assert_array_equal(grad, padded([[-0.25, 0, 0.25]], z))

    def test_removing_the_label_makes_the_loss_infinite(self, kernel, dtype, isa):
        z = kernel([[1, 7, 1]], dtype)
        where = padded([[True, False, True]], z)
        for labels in ([1], padded([[0, 1, 0]], z), padded([[0, 0.25, 0]], z)):
            losses, grad = softxent.cross_entropy_and_grad(z, labels, where=where, reduction="none")
            mass = np.sum(labels)
            assert losses[0] == INF
            np.testing.assert_array_equal(grad, padded([[mass / 2, 0, mass / 2]], z))

    def test_all_but_one_is_certain(self, kernel, dtype, isa):
        z = kernel([[3, 7, NAN]], dtype)
        where = padded([[True, False, False]], z)
        losses, grad, hess = softxent.cross_entropy_grad_hess(z, [0], where=where, reduction="none")
        for zero in (losses, grad, hess):
            np.testing.assert_array_equal(zero, 0)
        np.testing.assert_array_equal(softxent.softmax(z, where=where), padded([[1, 0, 0]], z))
        np.testing.assert_array_equal(softxent.logsumexp(z, where=where), 3)
        assert softxent.log_softmax(z, where=where)[0, 0] == 0

    @pytest.mark.parametrize("row", [[1, 2, 3], [NAN, INF, -INF]])
    @pytest.mark.parametrize("smoothing", [0.0, 0.5])
    def test_removing_everything_leaves_no_gradient(self, row, smoothing, kernel, dtype, isa):
        z = kernel([row, [0, 0, -INF]], dtype)
        where = padded([[False] * 3, [True] * 3], z)
        for labels in ([0, 0], padded([[1.0, 0, 0], [1, 0, 0]], z), padded([[0.0, 0, 0], [1, 0, 0]], z)):
            options = {"where": where, "reduction": "none", "label_smoothing": smoothing}
            losses, grad, hess = softxent.cross_entropy_grad_hess(z, labels, **options)
            expected = reference.cross_entropy_grad_hess(z, labels, **options)
            np.testing.assert_allclose(losses, expected[0], **few_eps(dtype))
            np.testing.assert_array_equal(grad[0], 0)
            np.testing.assert_array_equal(hess[0], 0)
            np.testing.assert_allclose(grad[1], expected[1][1], **few_eps(dtype))
            hvp = softxent.cross_entropy_hvp(z, labels, np.ones_like(z), **options)
            np.testing.assert_array_equal(hvp[0], 0)
        np.testing.assert_array_equal(softxent.softmax(z, where=where)[0], 0)
        np.testing.assert_array_equal(softxent.log_softmax(z, where=where)[0], -INF)
        np.testing.assert_array_equal(softxent.logsumexp(z, where=where)[0], -INF)

    def test_a_nan_that_is_left_is_nan_but_where_classes_are_removed(self, kernel, dtype, isa):
        z = kernel([[NAN, 1, 2]], dtype)
        where = padded([[True, False, True]], z)
        losses, grad = softxent.cross_entropy_and_grad(z, [2], where=where, reduction="none")
        assert np.isnan(losses[0])
        assert np.all(np.isnan(grad[where]))
        assert np.all(grad[~where] == 0)
        probability = softxent.softmax(z, where=where)
        assert np.all(np.isnan(probability[where]))
        assert np.all(probability[~where] == 0)

    def test_an_ignored_sample_is_zero_also_if_nothing_is_allowed(self, kernel, dtype, isa):
        z = kernel([[NAN, 1, 2], [0, 0, -INF]], dtype)
        where = padded([[False] * 3, [True] * 3], z)
        for weights in (None, [0.0, 1.0], [3.0, 1.0]):
            options = {"where": where, "sample_weight": weights, "ignore_index": -1}
            loss, grad, hess = softxent.cross_entropy_grad_hess(z, [-1, 0], **options)
            assert loss == pytest.approx(np.log(2), rel=1e-6)
            np.testing.assert_array_equal(grad, padded([[0, 0, 0], [-0.5, 0.5, 0]], z))
            np.testing.assert_array_equal(hess, padded([[0, 0, 0], [0.25, 0.25, 0]], z))


class TestLabelSmoothing:
    """Label smoothing from none of the mass to all of it."""

    @pytest.mark.parametrize("none", [0, 0.0, np.float32(0), np.array(0), False])
    def test_of_zero_changes_nothing(self, none, kernel, dtype, isa):
        z = kernel([[1, -INF, 0.5]], dtype)
        expected = softxent.cross_entropy_and_grad(z, [0])
        loss, grad = softxent.cross_entropy_and_grad(z, [0], label_smoothing=none)
        assert loss == pytest.approx(expected[0], rel=1e-6)
        np.testing.assert_allclose(grad, expected[1], **few_eps(dtype))

    @pytest.mark.parametrize("e", [1, 1.0, True])
    def test_of_one_forgets_the_label(self, e, dtype, isa):
        for z in (np.zeros((3, 4), dtype), np.zeros((3, 100), dtype)):
            n = z.shape[1]
            for labels in ([0, 1, 2], np.eye(n)[:3]):
                losses, grad = softxent.cross_entropy_and_grad(z, labels, label_smoothing=e, reduction="none")
                np.testing.assert_allclose(losses, np.log(n), rtol=1e-6)
                np.testing.assert_allclose(grad, 0, atol=np.finfo(dtype).eps / n)

    def test_puts_mass_on_a_class_at_minus_infinity(self, kernel, dtype, isa):
        z = kernel([[1, -INF, 1]], dtype)
        losses, grad = softxent.cross_entropy_and_grad(z, [0], label_smoothing=0.5, reduction="none")
        share = 0.5 / z.shape[1]
        assert losses[0] == INF
        np.testing.assert_allclose(grad[0, :3], [-share, -share, 0.5 - share], rtol=1e-6, atol=1e-7)

    def test_of_one_does_not_look_at_a_label_that_is_removed(self, kernel, dtype, isa):
        z = kernel([[1, NAN, 1]], dtype)
        where = padded([[True, False, True]], z)
        losses, grad = softxent.cross_entropy_and_grad(z, [1], where=where, label_smoothing=1, reduction="none")
        assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
        np.testing.assert_allclose(grad, 0, atol=np.finfo(dtype).eps)


class TestWeights:
    """Weights of zero."""

    def test_a_class_weight_of_zero_makes_nothing_of_its_class(self, kernel, dtype, isa):
        z = kernel([[1, -INF, 1], [0, 0, -INF]], dtype)
        weight = padded([[1.0, 0, 1]], z[:1])[0]
        losses, grad, hess = softxent.cross_entropy_grad_hess(z, [1, 0], class_weight=weight, reduction="none")
        np.testing.assert_allclose(losses, [0, np.log(2)], rtol=1e-6)
        np.testing.assert_array_equal(grad, padded([[0, 0, 0], [-0.5, 0.5, 0]], z))
        np.testing.assert_array_equal(hess, padded([[0, 0, 0], [0.25, 0.25, 0]], z))
        assert softxent.cross_entropy(z, [1, 0], class_weight=weight) == pytest.approx(np.log(2), rel=1e-6)

    def test_a_sample_weight_of_zero_makes_nothing_of_an_infinite_loss(self, kernel, dtype, isa):
        z = kernel([[1, -INF, 1], [0, 0, -INF]], dtype)
        for labels in ([1, 0], padded([[0, 1, 0], [1, 0, 0]], z)):
            options = {"sample_weight": [0, 2], "reduction": "none"}
            losses, grad, hess = softxent.cross_entropy_grad_hess(z, labels, **options)
            np.testing.assert_allclose(losses, [0, 2 * np.log(2)], rtol=1e-6)
            np.testing.assert_array_equal(grad, padded([[0, 0, 0], [-1, 1, 0]], z))
            np.testing.assert_array_equal(hess, padded([[0, 0, 0], [0.5, 0.5, 0]], z))

    @pytest.mark.parametrize("row", BROKEN)
    def test_a_sample_weight_of_zero_leaves_a_sample_out_whatever_it_holds(self, row, kernel, way, dtype, isa):
        """Its logits and its target are not looked at: it adds nothing, has no gradient and no rank."""
        z, clean = kernel([row, [0, 0, -INF]], dtype), kernel([[1, 2, 3], [0, 0, -INF]], dtype)
        options = way.options(z) | {"sample_weight": [0, 2]}
        for target, good in (
            ([2, 0], [2, 0]),
            (padded([[NAN, -1, INF], [1, 0, 0]], z), padded([[1, 0, 0], [1, 0, 0]], z)),
        ):
            for reduction in ("none", "sum", "mean"):
                options["reduction"] = reduction
                v = np.array(z)  # which is not looked at either
                v[1] = 1
                got = [
                    *softxent.cross_entropy_grad_hess(z, target, **options),
                    softxent.cross_entropy_hvp(z, target, v, **options),
                    *softxent.cross_entropy_and_grad(z, target, **options),
                    *softxent.cross_entropy_and_rank(z, target, **options),
                ]
                want = [
                    *softxent.cross_entropy_grad_hess(clean, good, **options),
                    softxent.cross_entropy_hvp(clean, good, np.ones_like(z), **options),
                    *softxent.cross_entropy_and_grad(clean, good, **options),
                    *softxent.cross_entropy_and_rank(clean, good, **options),
                ]
                for values, wanted in zip(got, want, strict=True):
                    np.testing.assert_array_equal(values, wanted)
                for values in (got[1], got[2], got[3], got[5]):
                    np.testing.assert_array_equal(values[0], 0)
                for values in got[7:]:
                    assert values.tolist() == [-1, 0]
                if reduction == "none":
                    assert got[0][0] == got[4][0] == 0

    def test_a_sample_weight_of_zero_leaves_the_gradient_that_is_added_to(self, kernel, dtype, isa):
        z = kernel([[NAN, 1, 2], [0, 0, -INF]], dtype)
        out = np.full_like(z, 3)
        softxent.cross_entropy_and_grad(z, [0, 0], sample_weight=[0, 1], out=out, accumulate=True)
        np.testing.assert_array_equal(out[0], 3)

    def test_a_sample_weight_of_zero_has_no_curvature_of_any_kind(self, kernel, dtype, isa):
        """Not even XGBoost's least."""
        z = kernel([[NAN, 1, 2], [0, 0, -INF]], dtype)
        for kind in ("exact", "xgboost", "lightgbm"):
            hess = softxent.cross_entropy_grad_hess(z, [0, 0], sample_weight=[0, 1], kind=kind)[2]
            np.testing.assert_array_equal(hess[0], 0)

    def test_the_label_of_a_sample_without_weight_is_a_class(self, kernel, way, dtype, isa):
        z = kernel([[NAN, 1, 2], [0, 0, -INF]], dtype)
        with pytest.raises(IndexError, match=r"labels\[0\] is -3, which is not a class"):
            softxent.cross_entropy_and_grad(z, [-3, 0], **way.options(z) | {"sample_weight": [0, 1]})
        with pytest.raises(IndexError, match=r"labels\[0\] is 100000, which is not a class"):
            softxent.cross_entropy_and_rank(z, [100000, 0], **way.options(z) | {"sample_weight": [0, 1]})

    @pytest.mark.parametrize("weights", [{"sample_weight": [0, 0]}, {"class_weight": 0}])
    def test_that_are_all_zero_have_no_mean_and_no_gradient(self, weights, kernel, dtype, isa):
        z = kernel([[1, 2, 3], [0, 0, 0]], dtype)
        if "class_weight" in weights:
            weights = {"class_weight": np.zeros(z.shape[1])}
        loss, grad, hess = softxent.cross_entropy_grad_hess(z, [0, 1], **weights)
        assert np.isnan(loss)
        np.testing.assert_array_equal(grad, 0)
        np.testing.assert_array_equal(hess, 0)
        np.testing.assert_array_equal(softxent.cross_entropy_hvp(z, [0, 1], np.ones_like(z), **weights), 0)
        loss, grad = softxent.cross_entropy_and_grad(z, [0, 1], reduction="sum", **weights)
        assert loss == 0
        np.testing.assert_array_equal(grad, 0)

    def test_distributions_have_a_mean_also_where_all_class_weights_are_zero(self, kernel, dtype, isa):
        """A distribution is divided by the weights of the samples, and not by those of the classes."""
        z = kernel([[1, 2, 3], [0, 0, 0]], dtype)
        loss, grad = softxent.cross_entropy_and_grad(z, np.ones_like(z), class_weight=np.zeros(z.shape[1]))
        assert loss == 0
        np.testing.assert_array_equal(grad, 0)

    def test_on_ignored_samples_do_not_count(self, kernel, dtype, isa):
        z = kernel([[NAN] * 3, [0, 0, -INF]], dtype)
        for weights in ([1e30, 2], [0, 2]):
            loss, grad = softxent.cross_entropy_and_grad(z, [-1, 0], ignore_index=-1, sample_weight=weights)
            assert loss == pytest.approx(np.log(2), rel=1e-6)
            np.testing.assert_array_equal(grad, padded([[0, 0, 0], [-0.5, 0.5, 0]], z))


class TestNormalizer:
    """A float normalizer is used as it is."""

    @pytest.mark.parametrize("labels", [[], [-1, -1]])
    def test_of_no_samples_gives_zero(self, labels, kernel, way, dtype, isa):
        z = kernel(np.full((len(labels), 3), NAN), dtype)
        y = np.array(labels, int)
        options = {"normalizer": 8.0, "ignore_index": -1, **way.options(z)}
        assert softxent.cross_entropy(z, y, **options) == 0.0
        loss, grad, hess = softxent.cross_entropy_grad_hess(z, y, **options)
        assert type(loss) is float
        assert loss == 0.0
        np.testing.assert_array_equal(grad, 0)
        np.testing.assert_array_equal(hess, 0)

    @pytest.mark.parametrize("zero", [0, 0.0, -0.0, np.float32(0)])
    def test_of_zero_is_for_the_mean_of_nothing(self, zero, kernel, way, dtype, isa):
        z = kernel([[1, 2, 3], [0, 0, 0]], dtype)
        options = {"normalizer": zero, **way.options(z)}
        for module in (softxent, reference):
            loss, grad, hess = module.cross_entropy_grad_hess(z, [-1, -1], ignore_index=-1, **options)
            assert (type(loss), loss) == (float, 0.0)
            np.testing.assert_array_equal(grad, 0)
            np.testing.assert_array_equal(hess, 0)
            assert module.cross_entropy(z, [-1, -1], ignore_index=-1, **options) == 0.0
            assert module.cross_entropy_and_rank(z, [-1, -1], ignore_index=-1, **options)[0] == 0.0
            assert module.cross_entropy(np.zeros((0, 3)), [], normalizer=zero) == 0.0
            with pytest.raises(ValueError, match="normalizer is 0, but there are samples that count"):
                module.cross_entropy_grad_hess(z, [0, -1], ignore_index=-1, **options)
            with pytest.raises(ValueError, match="normalizer is 0, but there are samples that count"):
                module.cross_entropy_hvp(z, [0, 1], z, **options)

    def test_of_zero_asks_for_weights_of_samples_and_not_of_classes(self, kernel, dtype, isa):
        z = kernel([[1, 2, 3], [0, 0, 0]], dtype)
        targets, class_weight = ([0, 1], np.full(z.shape, 1 / z.shape[1])), np.zeros(z.shape[1])
        for module, labels in itertools.product((softxent, reference), targets):
            loss, grad = module.cross_entropy_and_grad(z, labels, normalizer=0, sample_weight=[0, 0])
            assert loss == 0.0
            np.testing.assert_array_equal(grad, 0)
            for weights in ({}, {"sample_weight": [0, 1e-30]}):
                with pytest.raises(ValueError, match="normalizer is 0"):
                    module.cross_entropy(z, labels, normalizer=0, class_weight=class_weight, **weights)

    @pytest.mark.parametrize("bad", [-1.0, -1e-300, NAN, INF, -INF, 1e-310, np.float64(-2), -3])
    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_that_is_no_divisor_is_refused(self, bad, reduction, kernel, way, dtype, isa):
        z = kernel([[1, 2, 3], [0, 0, 0]], dtype)
        options = {"normalizer": bad, "reduction": reduction, **way.options(z)}
        for module in (softxent, reference):
            for loss in (module.cross_entropy, module.cross_entropy_and_grad, module.cross_entropy_grad_hess):
                with pytest.raises(ValueError, match=f"normalizer must be positive and finite, .*; got {float(bad)}"):
                    loss(z, [0, 1], **options)

    def test_that_is_tiny_divides_as_long_as_the_gradient_can_be_held(self, kernel, dtype, isa):
        z, tiny = kernel([[1, 2, 3], [0, 0, 0]], dtype), float(np.finfo(dtype).tiny)
        scaled, grad = (
            softxent.cross_entropy_and_grad(z, [0, 1], normalizer=normalizer)[1] for normalizer in (tiny, 1.0)
        )
        np.testing.assert_allclose(scaled * dtype(tiny), grad, rtol=4 * np.finfo(dtype).eps)
        for subnormal in (np.nextafter(2.0**-1022, 0), 5e-324):
            with pytest.raises(ValueError, match="normalizer must be positive and finite, at least 2"):
                softxent.cross_entropy_and_grad(z, [0, 1], normalizer=subnormal)

    @pytest.mark.parametrize("normalizer", [2, np.float32(2), np.int64(2), np.array(2.0)])
    def test_of_any_real_type_is_a_number(self, normalizer, kernel, dtype, isa):
        z = kernel([[1, 2, 3], [0, 0, 0]], dtype)
        total, total_grad = softxent.cross_entropy_and_grad(z, [0, 1], reduction="sum")
        loss, grad = softxent.cross_entropy_and_grad(z, [0, 1], normalizer=normalizer)
        assert loss == total / 2
        np.testing.assert_array_equal(grad, total_grad / 2)
        with_sum = softxent.cross_entropy_and_grad(z, [0, 1], normalizer=normalizer, reduction="sum")
        assert with_sum[0] == total
        np.testing.assert_array_equal(with_sum[1], total_grad)


@pytest.mark.parametrize("base", [0.5, 2, 10, 1e-30, 1e30, np.nextafter(1, 2)])
def test_a_base_below_one_turns_the_sign(base, kernel, dtype, isa):
    z = kernel([[1, 2, 3]], dtype)
    nats, nats_grad = softxent.cross_entropy_and_grad(z, [0], reduction="none")
    losses, grad = softxent.cross_entropy_and_grad(z, [0], base=base, reduction="none")
    np.testing.assert_allclose(losses, (nats / np.log(base)).astype(dtype), **few_eps(dtype))
    np.testing.assert_allclose(grad, (nats_grad / np.log(base)).astype(dtype), **few_eps(dtype))


class TestZLoss:
    """a lse^2 for any lse."""

    def test_of_a_huge_lse_is_infinite_only_where_its_square_is(self, kernel, dtype, isa):
        for lse in (1e15, -1e15, 1e25):
            z = kernel([[lse, -INF, -INF]], dtype)
            losses, grad = softxent.cross_entropy_and_grad(z, [0], z_loss=1e-4, reduction="none")
            expected = 1e-4 * float(dtype(lse)) ** 2
            expected = INF if float(dtype(lse)) ** 2 > float(np.finfo(dtype).max) else expected
            np.testing.assert_allclose(losses, expected, rtol=1e-6)
            np.testing.assert_allclose(grad[0, :3], [2e-4 * lse, 0, 0], rtol=1e-6)

    @pytest.mark.parametrize("row", BROKEN)
    def test_of_a_broken_sample_is_nan(self, row, kernel, dtype, isa):
        losses, grad = softxent.cross_entropy_and_grad(kernel([row], dtype), [0], z_loss=0.1, reduction="none")
        assert np.isnan(losses[0])
        assert np.all(np.isnan(grad))

    def test_has_neither_class_weight_nor_base(self, kernel, dtype, isa):
        z = kernel([[0, 0, -INF]], dtype)
        weight = np.zeros(z.shape[1])
        losses, grad = softxent.cross_entropy_and_grad(
            z, [0], z_loss=2.0, class_weight=weight, base=2, reduction="none"
        )
        np.testing.assert_allclose(losses, 2 * np.log(2) ** 2, rtol=1e-6)
        np.testing.assert_allclose(grad, padded([[2 * np.log(2)] * 2], z), rtol=1e-6)

    def test_of_one_class_is_the_square_of_its_logit(self, dtype, isa):
        losses, grad = softxent.cross_entropy_and_grad(np.array([[3.0]], dtype), [0], z_loss=0.5, reduction="none")
        np.testing.assert_allclose(losses, 4.5, rtol=1e-6)
        np.testing.assert_allclose(grad, 3.0, rtol=1e-6)


class TestSoftcap:
    """The softcap leaves infinite logits and nan unchanged."""

    @pytest.mark.parametrize("row", BROKEN)
    def test_of_a_broken_sample_is_nan(self, row, kernel, dtype, isa):
        losses, grad = softxent.cross_entropy_and_grad(kernel([row], dtype), [0], softcap=30.0, reduction="none")
        assert np.isnan(losses[0])
        assert np.all(np.isnan(grad))

    def test_leaves_minus_infinity_absent(self, kernel, dtype, isa):
        z = kernel([[2, -INF, 2]], dtype)
        losses, grad = softxent.cross_entropy_and_grad(z, [0], softcap=4.0, reduction="none")
        slope = 1 / np.cosh(0.5) ** 2
        np.testing.assert_allclose(losses, np.log(2), rtol=1e-6)
        np.testing.assert_allclose(grad, padded([[-slope / 2, 0, slope / 2]], z), rtol=1e-6)
        losses, grad = softxent.cross_entropy_and_grad(z, [1], softcap=4.0, reduction="none")
        assert losses[0] == INF
        assert np.all(np.isfinite(grad))

    def test_of_huge_logits_is_flat(self, kernel, dtype, isa):
        big = np.finfo(dtype).max
        z = kernel([[big, -big, 0]], dtype)
        losses, grad = softxent.cross_entropy_and_grad(z, [2], softcap=2.0, reduction="none")
        np.testing.assert_allclose(losses, np.log(np.exp(2) + np.exp(-2) + 1), rtol=1e-6)
        np.testing.assert_array_equal(grad[0, :2], 0)
        p = 1 / (np.exp(2) + np.exp(-2) + 1)
        np.testing.assert_allclose(grad[0, 2], p - 1, rtol=1e-6)

    def test_does_not_look_at_what_where_removes(self, kernel, dtype, isa):
        z = kernel([[2, NAN, 2], [2, INF, 2]], dtype)
        where = padded([[True, False, True]] * 2, z)
        losses, grad = softxent.cross_entropy_and_grad(z, [0, 2], softcap=4.0, where=where, reduction="none")
        np.testing.assert_allclose(losses, np.log(2), rtol=1e-6)
        assert np.all(grad[~where] == 0)
        assert np.all(np.isfinite(grad))

    def test_of_an_ignored_sample_is_zero(self, kernel, dtype, isa):
        z = kernel([[NAN, INF, 2], [2, -INF, 2]], dtype)
        options = {"softcap": 4.0, "ignore_index": -1, "reduction": "none"}
        losses, grad = softxent.cross_entropy_and_grad(z, [-1, 0], **options)
        assert losses[0] == 0
        np.testing.assert_array_equal(grad[0], 0)


EVERY_OPTION = {
    "class_weight": lambda shape: np.full(shape[-1], 2.0),
    "sample_weight": lambda shape: np.full(shape[:-1], 3.0),
    "where": lambda shape: np.ones(shape, bool),
    "label_smoothing": lambda shape: 0.3,
    "temperature": lambda shape: 0.7,
    "softcap": lambda shape: 5.0,
    "z_loss": lambda shape: 0.1,
    "base": lambda shape: 2,
    "normalizer": lambda shape: 7.0,
}
assert {*Options._fields} <= {*EVERY_OPTION}  # a new one has its value here


@pytest.mark.parametrize("name", EVERY_OPTION)
def test_one_class_has_no_cross_entropy_with_any_option(name, dtype, isa):
    z = np.array([[3.5], [-20], [0]], dtype)
    option = {name: EVERY_OPTION[name](z.shape)}
    for labels in ([0, 0, 0], np.ones((3, 1))):
        losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none", **option)
        expected = reference.cross_entropy_and_grad(z, labels, reduction="none", **option)
        if name == "z_loss":
            np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
            np.testing.assert_allclose(grad, expected[1], rtol=1e-6)
            continue
        np.testing.assert_array_equal(losses, 0)
        np.testing.assert_array_equal(grad, 0)
        if name != "softcap":
            _, grad, hess = softxent.cross_entropy_grad_hess(z, labels, **option)
            np.testing.assert_array_equal(grad, 0)
            np.testing.assert_array_equal(hess, 0)
            np.testing.assert_array_equal(softxent.cross_entropy_hvp(z, labels, z, **option), 0)


@pytest.mark.parametrize("name", EVERY_OPTION)
def test_no_samples_are_no_error_with_any_option(name, dtype):
    for shape in ((0, 5), (0, 100), (3, 0, 2)):
        z, labels = np.zeros(shape, dtype), np.zeros(shape[:-1], int)
        option = {name: EVERY_OPTION[name](shape)}
        for y in (labels, z):
            loss, grad = softxent.cross_entropy_and_grad(z, y, **option)
            if name == "normalizer":
                assert loss == 0.0
            else:
                assert np.isnan(loss)
            assert grad.shape == shape
            assert softxent.cross_entropy(z, y, reduction="sum", **option) == 0.0
            assert softxent.cross_entropy(z, y, reduction="none", **option).shape == shape[:-1]
        if name in ("where", "temperature"):
            assert softxent.softmax(z, **option).shape == softxent.log_softmax(z, **option).shape == shape
            assert softxent.logsumexp(z, **option).shape == shape[:-1]
